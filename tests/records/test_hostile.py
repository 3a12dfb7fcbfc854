"""A record is data: whatever is in it, no command runs it, follows it or stumbles over it."""

import re
import shutil
import signal
from pathlib import Path

import pytest

import attnlab
from attnlab.cli import main
from attnlab.errors import RequestError
from attnlab.printable import OBEYED
from tests.prose import refuses
from tests.records import hostile

RUNS = Path(__file__).parent / "runs"
SOUND = "pronoun-multihead-1x4-s0-58d2bbb3ea"
ANOTHER = "pronoun-multihead-1x4-s0-e75bd9ded1"
TEXT = "The animal didn't cross the street because it was too tired."
ONE = {
    "evaluate": ("evaluate", "harm"),
    "attend": ("attend", "harm", TEXT),
    "generate": ("generate", "harm"),
    "embed": ("embed", "harm"),
    "ablate": ("ablate", "harm"),
    "heads": ("heads", "harm"),
    "experts": ("experts", "harm"),
}
"""Commands that open one run."""
MANY = {"compare": ("compare",), "report": ("report", "-o", "page.html")}
"""Commands that show all runs of a directory."""
SECONDS = 20


@pytest.fixture
def where(tmp_path, monkeypatch) -> Path:
    """A directory with a sound run and a copy that will be harmed, in which commands are typed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    shutil.copytree(RUNS / SOUND, tmp_path / "runs/harm")
    shutil.copytree(RUNS / ANOTHER, tmp_path / "runs/sound")
    hostile.put_payload(tmp_path, tmp_path / "runs/harm")
    return tmp_path


def asked(capsys, words) -> tuple[int, str, str]:
    """Run a command that must end soon."""

    def late(*_: object) -> None:
        raise TimeoutError(f"{words} does not end")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        code = main([*words, "--runs-dir", "runs"])
    finally:
        signal.alarm(0)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_run_is_sound_before_it_is_harmed(where, capsys):
    for words in [*ONE.values(), *MANY.values()]:
        code, _, err = asked(capsys, words)
        # Of this kind of run there is nothing to generate, and it has no experts.
        assert code == (2 if words[0] in ("generate", "experts") else 0), (words, err)


@pytest.mark.slow
@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("harm", hostile.ALL)
def test_no_command_runs_or_follows_what_a_record_holds(where, capsys, harm, sealed):
    hostile.ALL[harm](where / "runs/harm")
    if sealed:
        hostile.seal(where / "runs/harm")
    before = sorted(path for path in where.rglob("*") if path.name != "page.html")
    offenders = []
    for name, words in {**ONE, **MANY}.items():
        code, out, err = asked(capsys, words)
        if code not in (0, 2) or (code == 2 and not (err and not out)):
            offenders.append(f"{name}: exit code {code}: {err[-300:]}")
        if obeyed := OBEYED.search(out + err):
            offenders.append(f"{name}: prints {obeyed[0]!r}")
        if name in MANY and code != 0:
            offenders.append(f"{name}: does not show the sound run: {err[-300:]}")
    after = sorted(path for path in where.rglob("*") if path.name != "page.html")
    assert offenders == []
    # Nothing was made: no mark, and no other file.
    assert after == before


@pytest.mark.parametrize("harm", hostile.RUNNING)
def test_what_would_run_is_refused_and_named(where, harm):
    hostile.RUNNING[harm](where / "runs/harm")
    with refuses(RequestError, f"hostile.{harm}", where):
        attnlab.load("harm", runs_dir="runs")
    assert not (where / hostile.MARK).exists()


def test_what_would_run_in_training_is_not_built(where):
    for harm in hostile.UNASKED.values():
        harm(where / "runs/harm")
    assert attnlab.load("harm", runs_dir="runs").step == 8
    assert not (where / hostile.MARK).exists()


def test_a_part_of_ones_own_is_built_from_the_config_directory_of_this_call_alone(where):
    hostile.RUNNING["module_in_the_mixer"](where / "runs/harm")
    mine = where / "mine/model/mixer"
    mine.mkdir(parents=True)
    with pytest.raises(RequestError, match="--config-dir"):
        attnlab.load("harm", runs_dir="runs")
    (mine / "other.yaml").write_text("_target_: attnlab.mixer.additive.Additive\n")
    with pytest.raises(RequestError, match=re.escape("payload.Part")):
        attnlab.load("harm", runs_dir="runs", config_dir="mine")
    assert not (where / hostile.MARK).exists()
    # A run below the directory adds nothing to what its owner wrote.
    shutil.copytree(where / "runs", where / "mine/runs")
    for directory in ("mine", "."):
        with pytest.raises(RequestError, match=re.escape("payload.Part")):
            attnlab.load("harm", runs_dir="runs", config_dir=directory)
    assert not (where / hostile.MARK).exists()
    (mine / "part.yaml").write_text("_target_: payload.Part\n_partial_: true\n")
    with pytest.raises(RequestError, match="no part of a model"):
        attnlab.load("harm", runs_dir="runs", config_dir="mine")
    assert (where / hostile.MARK).exists()
