"""An empty variable is an unset one, and `~` is a home in every path that a person gives."""

import os
import pwd
from pathlib import Path

import pytest

from attnlab.cli import main
from attnlab.config import compose, search_path
from attnlab.environment import cache_dir, default_runs_dir, expand_home, read_variable
from attnlab.errors import RequestError
from tests.prose import refuses


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("ATTNLAB_RUNS", "ATTNLAB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def homeless(home, monkeypatch) -> None:
    def unknown(_):
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_a_variable_counts_unless_it_is_empty(home, monkeypatch):
    for value, runs, cache in (
        (None, Path("runs"), home / ".cache/attnlab"),
        ("", Path("runs"), home / ".cache/attnlab"),
        ("~/a b", home / "a b", home / "a b"),
    ):
        for name in ("ATTNLAB_RUNS", "ATTNLAB_CACHE"):
            if value is not None:
                monkeypatch.setenv(name, value)
        assert (read_variable("ATTNLAB_RUNS") or None) == (value or None)
        assert (default_runs_dir(), cache_dir()) == (runs, cache)
        with search_path() as own:
            assert compose([], own).values["runs_dir"] == str(runs)


def test_a_home_stands_in_every_path(home, composed, capsys):
    assert composed("runs_dir=~/mine").values["runs_dir"] == str(home / "mine")
    (home / "text.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 400)
    where = ["dataset.path=~/text.txt", "dataset.length=8"]
    assert main(["data", "show", "text", *where]) == 0
    assert main(["compare", "--runs-dir", "~/nowhere"]) == 2
    assert str(home / "nowhere") in capsys.readouterr().err
    (home / "mine/optimizer").mkdir(parents=True)
    assert main(["list", "optimizer", "--config-dir", "~/mine"]) == 0


@pytest.mark.usefixtures("homeless")
def test_without_a_home_only_what_needs_it_is_refused(monkeypatch, capsys):
    assert main(["train", "--cfg", "runs_dir=here"]) == 0
    with refuses(RequestError, "environment.homeless"):
        expand_home("~/runs")
    with refuses(RequestError, "environment.homeless_cache"):
        cache_dir()
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--runs-dir", "~/runs"])
    assert ended.value.code == 2
    assert "HOME is not set" in capsys.readouterr().err
    monkeypatch.setenv("ATTNLAB_CACHE", os.sep)
    assert cache_dir() == Path(os.sep)
