"""A run says on which machine and by which code it was made; what is not known costs nothing."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from attnlab.launch import machine
from tests.child import TINY

CPU = torch.device("cpu")
SAID = """\
processor\t: 0
model\t\t: 143
model name\t: Intel(R)  Xeon(R) Platinum 8481C CPU @ 2.70GHz
stepping\t: 8

processor\t: 1
model name\t: another
"""


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    """What Linux would say of a processor; there is no such file until it is written."""
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "processor", lambda: "")
    return tmp_path / "cpuinfo"


def test_a_cpu_is_called_by_its_model_in_one_line(cpuinfo):
    cpuinfo.write_text(SAID)
    assert machine.device_name(CPU) == "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz (x86_64 cpu)"


@pytest.mark.parametrize("content", [None, b"processor\t: 0\nBogoMIPS\t: 50.00\n", b"\xff"])
def test_where_no_model_is_said_the_platform_is_asked(cpuinfo, monkeypatch, content):
    if content:
        cpuinfo.write_bytes(content)
    assert machine.device_name(CPU) == "x86_64 cpu"
    monkeypatch.setattr(platform, "processor", lambda: "x86_64")
    assert machine.device_name(CPU) == "x86_64 cpu"
    monkeypatch.setattr(platform, "processor", lambda: "i386")
    assert machine.device_name(CPU) == "i386 (x86_64 cpu)"


@pytest.mark.parametrize(
    ("content", "held"),
    [
        ("Name:\tpython\nVmHWM:\t  1234 kB\nVmRSS:\t 99 kB\n", 1234 * 1024),
        ("Name:\tpython\nVmRSS:\t 99 kB\n", None),
        ("VmHWM:\tmuch\n", None),
        (None, None),
    ],
)
def test_the_peak_is_what_linux_says_and_unknown_where_it_says_nothing(
    tmp_path, monkeypatch, content, held
):
    monkeypatch.setattr(machine, "STATUS", tmp_path / "status")
    if content is not None:
        (tmp_path / "status").write_text(content)
    assert machine.peak_memory(CPU) == held


def test_a_run_finishes_although_nothing_is_known_of_its_machine(tmp_path, monkeypatch, capsys):
    from attnlab.cli import main
    from attnlab.run_record.record import find_runs

    def fails(*_):
        raise RuntimeError("nobody knows")

    monkeypatch.setattr(machine, "_read_checkout_state", fails)
    monkeypatch.setattr(machine, "_device_name", fails)
    monkeypatch.setattr(machine, "_peak_memory", fails)
    monkeypatch.setattr(machine, "version", fails)
    machine.checkout_state.cache_clear()
    try:
        assert main(["train", *TINY, f"runs_dir={tmp_path}"]) == 0
    finally:
        machine.checkout_state.cache_clear()
    (record,) = find_runs(tmp_path)
    result = record.result
    assert result is not None
    assert (result.git, result.device, result.peak_memory_bytes) == (None, None, None)
    assert set(result.versions) == {"python", *machine.PACKAGES}
    assert result.versions["numpy"] is None
    capsys.readouterr()
    for command in (["compare"], ["report", "-o", str(tmp_path / "report.html")]):
        assert main([*command, "--runs-dir", str(tmp_path)]) == 0


def git(directory: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(directory), *who, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def package(monkeypatch):
    """Let attnlab stand somewhere else."""

    def stands_at(place: Path) -> None:
        place.mkdir(parents=True)
        (place / "__init__.py").touch()
        monkeypatch.setattr(machine, "PACKAGE", place)
        machine.checkout_state.cache_clear()

    yield stands_at
    machine.checkout_state.cache_clear()


@pytest.fixture
def repository(tmp_path) -> Path:
    """A repository of somebody, with one commit."""
    place = tmp_path / "repository"
    place.mkdir()
    git(place, "init", "-q")
    git(place, "commit", "-q", "--allow-empty", "-m", "theirs")
    return place


def test_the_commit_is_that_of_the_own_checkout(package, repository):
    package(repository / "src/attnlab")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "ours")
    commit = git(repository, "rev-parse", "HEAD")
    assert machine.checkout_state() == {"commit": commit, "dirty": False}
    (repository / "src/attnlab/__init__.py").write_text("changed = True\n")
    machine.checkout_state.cache_clear()
    assert machine.checkout_state() == {"commit": commit, "dirty": True}


@pytest.mark.parametrize(
    "place",
    [
        *("copied/src/attnlab", ".venv/lib/python3.11/site-packages/attnlab"),
        # The same place as in a checkout, of a repository that does not hold it.
        "src/attnlab",
    ],
)
def test_a_repository_around_it_is_not_its_own(package, repository, place):
    package(repository / place)
    assert machine.checkout_state() is None


def test_another_repository_that_the_environment_names_is_not_asked(
    package, repository, tmp_path, monkeypatch
):
    package(tmp_path / "copied/src/attnlab")
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "copied"))
    assert machine.checkout_state() is None


def test_without_git_no_commit_is_known(package, repository, monkeypatch):
    package(repository / "src/attnlab")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "ours")
    monkeypatch.setenv("PATH", str(repository))
    assert shutil.which("git") is None
    assert machine.checkout_state() is None


def test_a_git_dir_beside_the_own_checkout_does_not_change_the_commit(tmp_path, monkeypatch):
    machine.checkout_state.cache_clear()
    own = machine.checkout_state()
    if own is None:
        pytest.skip("attnlab is not in a checkout of its own here")
    other = tmp_path / "other"
    subprocess.run(["git", "init", "--quiet", other], check=True)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    machine.checkout_state.cache_clear()
    assert machine.checkout_state() == own
