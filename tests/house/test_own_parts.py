"""Every example of docs/extend/ runs as it is printed, from a directory of a user's own."""

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnlab.cli import main
from attnlab.run_record.record import Record, find_runs
from tests.prose import says

PAGES = {page.stem: page.read_text() for page in Path(__file__).parents[2].glob("docs/extend/*.md")}
FILE = re.compile(r"```\w+\n(?:#|<!--) (\S+/\S+\.\w+)(?: -->)?\n(.*?)```", re.DOTALL)
"""A file: a block whose first line is its path."""
SIZES = {
    "debug": "tiny",
    "model.d_model": "8",
    "dataset.num_train": "200",
    "dataset.num_validation": "60",
    "dataset.num_test": "60",
    "callbacks.cadence.statistics_every": "6",
    "trainer.accelerator": "cpu",
    "trainer.threads": "1",
    "trainer.max_steps": "12",
    "trainer.val_check_interval": "6",
}
OF_TEXTS = ("dataset=diary", "dataset=text")
COMBINED = (
    *("dataset=pronoun", "model/mixer=averages", "model/ffn=squared"),
    *("optimizer=sgd", "schedule=inverse_root", "metric=[accuracy,margin]", "evidence=anchor"),
    *("callbacks=both", "callbacks.norms.every=3", "callbacks.freeze.after=4"),
    *("logger=[csv,json_lines]", "optimizer.lr=0.1", "schedule.warmup_steps=2"),
    *("trainer.max_steps=6", "trainer.val_check_interval=3"),
)


def files() -> dict[str, str]:
    """Return the files that all pages print, by their paths."""
    return {path: text for page in PAGES.values() for path, text in FILE.findall(page)}


def commands(page: str) -> list[list[str]]:
    """Return the words of the commands that a page prints."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGES[page], re.DOTALL)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]


def small(words: list[str]) -> list[str]:
    """Return a command with sizes for a test, where it does not state its own."""
    stated = {word.partition("=")[0] for word in words}
    sizes = [f"{key}={value}" for key, value in SIZES.items() if key not in stated]
    if set(OF_TEXTS) & {*words}:
        sizes = [word for word in sizes if not word.startswith("dataset.")]
    if words[0] == "bench":
        return ["bench", "model.d_model=8", *words[1:], "--lengths", "64", "--rounds", "1"]
    return [*words, *sizes] if words[0] == "train" else words


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Iterator[Path]:
    """A user's directory with all files of the pages, in which commands are typed."""
    home = tmp_path_factory.mktemp("home")
    printed = files()
    # The two callbacks in one YAML, and the paper at a size for a test.
    both = printed["mine/callbacks/norms.yaml"] + printed["mine/callbacks/freeze.yaml"]
    printed["mine/callbacks/both.yaml"] = both.replace("defaults:\n  - default\n\nfreeze", "freeze")
    recipe = "exps/mypaper/check.yaml"
    sizes = ", ".join(f"{key}={value}" for key, value in SIZES.items() if "trainer.a" not in key)
    sizes = sizes.replace(", trainer.threads=1", "")
    printed[recipe] = printed[recipe].replace("dataset=pronoun", f"dataset=pronoun, {sizes}")
    printed["diary.txt"] = "Today I attended to many things, and to some of them twice.\n" * 100
    for name, text in printed.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(sys, "path", [*sys.path])
        for variable in ("PYTHONPATH", "ATTNLAB_RUNS"):
            patch.delenv(variable, raising=False)
        yield home
    own = {Path(name).stem for name in printed if name.endswith(".py")} | {"my_package"}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def trained(home) -> Path:
    """Train two seeds with a part of nearly every kind."""
    words = ["train", "-m", "--config-dir", "mine", *COMBINED, "seed=0,1"]
    assert main(small(words)) == 0
    return home / "runs"


def test_the_record_has_what_each_of_them_gives(trained):
    for record in find_runs(trained):
        result = record.result
        assert result is not None
        anchor = result.findings["anchor"].heads["anchor"]
        assert anchor.weight == pytest.approx(result.metrics["anchor/weight"])
        assert anchor.without == {"head out": result.metrics["anchor/without"]}
        assert {"test/margin", "validation/margin"} <= {*result.metrics}
        (layer, *_) = record.layers.attention
        assert layer.path == "blocks.0.mixer.attend"
        assert record.rows("weight_norms")["step"].to_pylist() == [0, 3, 6]
        assert record.rows("heads").num_rows
        # Of step 6: sqrt(3 / 6) of the rate.
        last_row = record.rows("train").to_pylist()[-1]
        assert last_row["lr"] == pytest.approx(0.1 * 0.5**0.5)
        assert record.identity["optimizer"]["_target_"] == "sgd.SGD"
        # What only measures is no part of the identity; what may change training is.
        assert "norms" not in record.identity["callbacks"]
        assert record.identity["callbacks"]["freeze"]["after"] == 4
        lines = (record.path / "attempts/1/metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["step"] == 6


def test_the_mixer_offers_what_evidence_finds(trained):
    mixer = sys.modules["averages"].Averages(8)
    assert mixer.pattern_modules() == {"attend": mixer.attend}


def test_the_json_of_commands_has_them(trained, capsys):
    assert main(["compare", "--format", "json"]) == 0
    (panel,) = json.loads(capsys.readouterr().out)["panels"]
    (group,) = panel["groups"]
    assert group["n"] == 2
    assert group["metrics"]["anchor/weight"]["mean"] is not None
    run = find_runs(trained)[0]
    assert main(["heads", run.name, "--format", "json"]) == 0
    (content,) = json.loads(capsys.readouterr().out)["runs"]
    assert content["layers"][0]["name"] == "blocks.0.mixer.attend"
    anchor = content["findings"]["anchor"]["anchor"]
    result = run.result
    assert result is not None
    head = result.findings["anchor"].heads["anchor"].head
    assert anchor["head"] == {"layer": head.layer, "head": head.head}


def test_the_report_shows_them_as_they_state(trained, tmp_path):
    page = tmp_path / "report.html"
    assert main(["report", "-o", str(page)]) == 0
    text = page.read_text()
    assert "weight of the first four tokens" in text
    assert "what happens when the head passes nothing on" in text


def test_a_run_says_which_directory_it_needs_and_imports_nothing_of_it(
    trained, capsys, monkeypatch
):
    run = find_runs(trained)[0]
    places = [place for place in sys.path if not Path(place).is_relative_to(trained.parent)]
    monkeypatch.setattr(sys, "path", [*places])
    monkeypatch.delitem(sys.modules, "averages")
    assert main(["evaluate", run.name]) == 2
    said = capsys.readouterr().err
    says("own_parts.needed", re.sub(r": \w{16}\)", ": HASH)", said), run.name)
    assert (sys.path, "averages" in sys.modules) == (places, False)
    option = ["--config-dir", "mine"]
    assert shlex.join(option) in said
    assert main(["evaluate", run.name, *option]) == 0
    assert "averages" in sys.modules


def test_a_task_a_corpus_and_a_tokenizer_are_data(home, capsys):
    for name in ("first_letter", "diary"):
        assert main(["data", "show", name, "--config-dir", "mine"]) == 0
    said = capsys.readouterr().out
    assert "Which letter did the row begin with?" in said
    assert "My diary, by characters." in said


def test_an_objective_a_position_scheme_and_a_tokenizer_work_together(home, capsys):
    words = ["objective=focal", "dataset=text", "dataset.path=diary.txt", "evidence=none"]
    words += ["model/position=nearness", "dataset/tokenizer=lowercase", f"runs_dir={home / 'text'}"]
    assert main(small(["train", "--config-dir", "mine", *words])) == 0
    (record,) = find_runs(home / "text")
    position = record.identity["model"]["position"]
    assert position == {"_target_": "my_package.nearness.Nearness", "_partial_": True, "slope": 0.1}
    assert record.result is not None
    assert "test/bits_per_byte" in record.result.metrics
    capsys.readouterr()
    words = ["--prompt", "TODAY", "--runs-dir", "text", "--config-dir", "mine", "--tokens", "3"]
    code = main(["generate", record.name, *words])
    assert code == 0
    continuation = capsys.readouterr().out.removeprefix("TODAY")
    assert continuation == continuation.lower()


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_that_is_no_file_runs(home, page):
    for code in re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL):
        if not code.startswith("# "):
            exec(code, {})


def test_every_page_has_a_class_a_choice_a_command_and_what_one_gets():
    for name, page in PAGES.items():
        if name != "README":
            assert [path for path, _ in FILE.findall(page) if path.endswith(".yaml")], name
            assert commands(name), name
            assert "\n## What you get\n" in page, name
            assert f"]({name}.md)" in PAGES["README"], name


@pytest.mark.slow
@pytest.mark.parametrize("page", [name for name in PAGES if name not in ("README", "paper")])
def test_the_commands_of_a_page_run_as_they_are_printed(home, tmp_path, monkeypatch, page):
    monkeypatch.setenv("ATTNLAB_RUNS", str(tmp_path))
    for words in commands(page):
        assert main(small(words)) == 0, words
    assert all(record.result for record in find_runs(tmp_path))


@pytest.mark.slow
def test_a_paper_about_a_part_of_ones_own_is_trained_and_its_command_written(home, capsys):
    train, *others = commands("paper")
    assert main([*train, "-j", "2"]) in (0, 1)
    readme = home / "exps/mypaper/README.md"
    written = readme.read_text()
    assert f"```sh\n{shlex.join(['attnlab', *train])}\n```" in written
    assert "Each run is `attnlab train --config-dir mine dataset=pronoun" in written
    assert "not_run" not in written
    for words in others:
        assert main(words) in (0, 1)
    assert readme.read_text() == written
    assert {type(record) for record in find_runs(home / "runs/reproduce/mypaper-check")} == {Record}
