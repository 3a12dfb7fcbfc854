"""A directory of configs may have any name, and its files say what is wrong with them."""

import queue
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import attnlab
from attnlab.cli import main
from attnlab.config import compose, conf_dir, search_path
from attnlab.config import paths as module
from attnlab.errors import ConfigError
from tests.prose import says

NAMES = ["a b", "a[1]", "a+b", "a,b", "a=b", "a&b", "a%20b", "a#b", "é", "a'b", 'a"b', "${a}", "a?"]
NAMES += ["a:b", "a\\b", "~a", "a;b", "*"]


@pytest.mark.parametrize("name", NAMES)
def test_configs_are_found_below_a_directory_of_any_name(tmp_path, name):
    mine = tmp_path / name
    (mine / "optimizer").mkdir(parents=True)
    text = (conf_dir() / "optimizer/adamw.yaml").read_text()
    (mine / "optimizer/mine.yaml").write_text(text.replace("beta1: 0.9", "beta1: 0.5"))
    with search_path(mine) as own:
        assert compose(["optimizer=mine"], own).values["optimizer"]["beta1"] == 0.5


def test_attnlabs_own_configs_and_runs_lie_below_a_directory_of_any_name(tmp_path, monkeypatch):
    place = tmp_path.joinpath(*NAMES)
    shutil.copytree(conf_dir(), place / "conf")
    monkeypatch.setattr(module, "conf_dir", lambda: place / "conf")
    monkeypatch.setenv("ATTNLAB_RUNS", str(place))
    with search_path() as own:
        assert compose([], own).values["runs_dir"] == str(place)


BROKEN = {
    "twice": b"# Mine.\n_target_: a.B\nlr: 1\nlr: 2\n",
    "tab": b"_target_: a.B\nlr:\t1\n\tbeta1: 2\n",
    "latin": b"# caf\xe9\nlr: 1\n",
    "bracket": b"lr: [1\nbeta1: 2\n",
    "text": b"only words\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_read_is_named_with_its_line(tmp_path, name):
    (tmp_path / "optimizer").mkdir()
    path = tmp_path / "optimizer/mine.yaml"
    path.write_bytes(BROKEN[name])
    with search_path(tmp_path) as own, pytest.raises(ConfigError) as raised:
        compose(["optimizer=mine"], own)
    says(f"config.yaml.{name}", "\n".join(raised.value.faults), path)
    # What is not chosen hinders nothing.
    with search_path(tmp_path) as own:
        compose([], own)


def test_what_lies_in_the_directory_or_beside_it_is_found_wherever_one_is(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "mine/optimizer").mkdir(parents=True)
    (tmp_path / "beside_it").mkdir()
    text = """
from attnlab.optimizer.adamw import AdamW
class Mine(AdamW):
    pass
"""
    for path in ("mine/lies_in_it", "beside_it/of_mine", "mine/queue", "mine/torch"):
        (tmp_path / f"{path}.py").write_text(text)
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = [*sys.path]
    knobs = (conf_dir() / "optimizer/adamw.yaml").read_text()
    for name in ("lies_in_it", "beside_it.of_mine", "queue"):
        choice = knobs.replace("attnlab.optimizer.adamw.AdamW", f"{name}.Mine")
        (tmp_path / "mine/optimizer" / f"{name.partition('.')[0]}.yaml").write_text(choice)
    with search_path(Path("../mine")) as own:
        for choice in ("lies_in_it", "beside_it"):
            made = compose([f"optimizer={choice}"], own).build("optimizer")
            assert type(made).__name__ == "Mine"
        # A module of Python's own comes first, and the message says which was found.
        with pytest.raises(ConfigError) as raised:
            compose(["optimizer=queue"], own)
    says("config.import.queue", raised.value.faults[0], queue.__file__)
    # Nothing of the user's comes before what attnlab itself imports.
    assert sys.path[: len(before)] == before


FAILS = {
    "few": "def __init__(self, d_model): super().__init__(d_model, None, True)",
    "undefined": """def __init__(self, d_model, position, causal, layer=0):
        super().__init__(d_model, position, causal)
        self.width = d_modl""",
    "abstract": "forward = Mixer.forward",
}


@pytest.mark.parametrize("name", FAILS)
def test_a_class_of_ones_own_that_cannot_be_built_is_told_with_its_place(
    tmp_path, monkeypatch, name
):
    text = f"""
from attnlab.mixer.base import Mixer
class Mine(Mixer):
    def forward(self, x, valid=None): return x
    {FAILS[name]}
"""
    (tmp_path / "model/mixer").mkdir(parents=True)
    (tmp_path / f"fails_{name}.py").write_text(text)
    choice = f"_target_: fails_{name}.Mine\n_partial_: true\n"
    (tmp_path / "model/mixer/mine.yaml").write_text(choice)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with search_path(tmp_path) as own, pytest.raises(ConfigError) as raised:
        compose(["model/mixer=mine"], own)
    # Of the two others, the words are Python's.
    (fault,) = raised.value.faults
    assert fault.startswith("model: ")
    assert "Mine" in fault or "d_modl" in fault
    if name == "undefined":
        says("config.fails.undefined", fault, tmp_path)


ENDS = {
    "mine_fails.Mine": "raise OSError('no such library')",
    "mine_exits.Mine": "import sys; sys.exit(3)",
    "mine_lacks.Mine": "import nowhere",
    "nowhere.Mine": None,
    "attnlab.optimizer.adamw.Mine": None,
}


@pytest.mark.parametrize("name", ENDS)
def test_a_class_that_cannot_be_imported_is_told_whatever_it_does(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    if text := ENDS[name]:
        Path(name).with_suffix(".py").write_text(text)
    Path("mine/optimizer").mkdir(parents=True)
    Path("mine/optimizer/mine.yaml").write_text(yaml.safe_dump({"_target_": name}))
    with search_path(Path("mine")) as own, pytest.raises(ConfigError) as raised:
        compose(["optimizer=mine"], own)
    says(f"config.import.{name.partition('.')[0]}", raised.value.faults[0])


def test_attnlab_runs_from_a_checkout_with_a_space(tmp_path):
    """The package itself is copied there."""
    checkout = tmp_path / "my check,out"
    package = Path(attnlab.__file__).parent
    shutil.copytree(package, checkout / "src/attnlab", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(conf_dir(), checkout / "conf")
    command = [sys.executable, "-m", "attnlab.cli", "train", "--cfg", "seed=7"]
    environment = {"PYTHONPATH": str(checkout / "src"), "PATH": "/usr/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert yaml.safe_load(done.stdout)["seed"] == 7


def test_without_a_group_of_experiments_a_name_is_refused_and_with_one_the_nearest_is_said(
    tmp_path, capsys
):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\nseed: 7\n")
    words = ["train", "--cfg", "--config-dir", str(tmp_path)]
    assert main([*words, "experiment=mine"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["seed"] == 7
    assert main([*words, "experiment=mien"]) == 2
    says("config.misspelt_experiment", capsys.readouterr().err)
    faulty = {
        "asks_for_what_is_not_there": "# @package _global_\ndefaults: [override /variant: zzz]\n",
        "not_global": "seed: 7\n",
    }
    for name, text in faulty.items():
        (tmp_path / f"experiment/{name}.yaml").write_text(text)
        assert main([*words, f"experiment={name}"]) == 2
        says(f"config.experiment.{name}", capsys.readouterr().err)
