"""What users of Hydra type does what it does there: `--cfg job`, `-p`, `--info`, `+experiment=`."""

from pathlib import Path

import pytest
import yaml

from attnlab.cli import COMMANDS, main
from attnlab.config import compose, search_path


def printed(capsys, *words: str) -> str:
    assert main(["train", *words]) == 0
    return capsys.readouterr().out


@pytest.fixture
def own_dir(tmp_path) -> Path:
    """A directory of configs with an experiment."""
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\n# Mine.\ndefaults:\n  - override /variant: lstm\n\nseed: 7\n"
    (tmp_path / "experiment/mine.yaml").write_text(text)
    return tmp_path


def test_the_config_is_printed_however_that_is_asked(capsys, composed):
    expected = composed("seed=3").values
    for words in (
        *(["--cfg", "seed=3"], ["--cfg", "job", "seed=3"], ["--cfg=job", "seed=3"]),
        *(["seed=3", "-c", "job"], ["seed=3", "--cfg", "--resolve"], ["-c", "seed=3"]),
    ):
        assert yaml.safe_load(printed(capsys, *words)) == expected, words


def test_a_part_of_the_config_is_printed_below_its_key(capsys):
    part = yaml.safe_load(printed(capsys, "--cfg", "-p", "model.mixer"))
    assert list(part) == ["model"]
    assert list(part["model"]) == ["mixer"]
    assert part["model"]["mixer"]["num_heads"] == 4


def test_what_hydra_holds_is_printed(capsys):
    node = yaml.safe_load(printed(capsys, "--cfg", "hydra", "seed=3"))
    assert list(node) == ["hydra"]
    assert node["hydra"]["overrides"]["task"] == ["seed=3"]
    whole = yaml.safe_load(printed(capsys, "--cfg", "all", "seed=3"))
    assert (whole["seed"], whole["hydra"]) == (3, node["hydra"])


def test_the_configs_of_a_sweep_are_printed_as_what_differs(capsys):
    words = ["variant=lstm,multihead", "optimizer.lr=1e-3,2e-3"]
    shared, *rests = yaml.safe_load_all(text := printed(capsys, "-m", "--cfg", *words))
    assert len(rests) == 4
    assert shared["schedule"]["warmup_steps"] == 100
    assert "# 2/4: variant=lstm optimizer.lr=0.002" in text
    assert rests[1]["optimizer"] == {"lr": 0.002}

    def merged(first, second):
        if not isinstance(first, dict) or not isinstance(second, dict):
            return second
        keys = {**first, **second}
        return {k: merged(first.get(k, {}), second[k]) if k in second else first[k] for k in keys}

    with search_path() as own:
        config = compose(["variant=lstm", "optimizer.lr=2e-3"], own)
    assert merged(shared, rests[1]) == {**config.values, "sweep": shared["sweep"]}


def test_what_a_config_is_composed_of_is_printed_in_order(capsys, own_dir):
    text = printed(capsys, "--config-dir", str(own_dir), "--info", "experiment=mine")
    names = [line.split()[0] for line in text.split("# defaults")[1].splitlines() if line]
    assert names.index("variant/lstm") < names.index("experiment/mine")
    places = text.split("# defaults")[0]
    assert 0 < places.index(str(own_dir)) < places.index("/conf")
    assert yaml.safe_load(text.split("# config\n")[1])["seed"] == 7
    only = printed(capsys, "-i", "searchpath")
    assert "# defaults" not in only


@pytest.mark.parametrize("word", ["experiment=mine", "+experiment=mine"])
def test_an_experiment_of_ones_own_is_chosen_and_listed(capsys, own_dir, word):
    where = ["--config-dir", str(own_dir)]
    values = yaml.safe_load(printed(capsys, *where, "--cfg", word))
    assert (values["seed"], values["model"]["_target_"].split(".")[-1]) == (7, "Recurrent")
    # What stands on the command line wins over it.
    values = yaml.safe_load(printed(capsys, *where, "--cfg", word, "variant=vanilla", "seed=1"))
    assert (values["seed"], values["model"]["_target_"].split(".")[-1]) == (1, "Transformer")
    assert main(["list", "experiment", *where]) == 0
    listed = capsys.readouterr().out
    assert "mine" in listed
    assert "recall" in listed


def test_experiments_are_a_sweep_like_any_choice(capsys):
    words = ["-m", "--cfg", "-p", "dataset", "+experiment=recall,length_generalisation"]
    _, recall, lengths = yaml.safe_load_all(printed(capsys, *words))
    assert recall["dataset"]["num_pairs"] > 0
    assert lengths["dataset"]["test_lengths"]


def test_help_is_a_command_too(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["help", "compare"])
    assert ended.value.code == 0
    assert COMMANDS["compare"] in capsys.readouterr().out
    assert main(["help"]) == 0
    assert "usage: attnlab COMMAND" in capsys.readouterr().out
    assert main(["-V"]) == 0
    assert capsys.readouterr().out.startswith("attnlab ")


def test_more_threads_than_cores_are_noted_once(capsys, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    words = ["-m", "--cfg", "-p", "seed", "trainer.threads=100", "seed=0,1"]
    assert main(["train", *words]) == 0
    notes = capsys.readouterr().err
    assert notes.count("trainer.threads=100 is more than the 2 cores") == 1
    assert main(["train", "--cfg", "-p", "seed", "trainer.threads=2"]) == 0
    assert capsys.readouterr().err == ""
