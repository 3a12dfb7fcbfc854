"""What the tests of the record share: processes to kill, and a run that nobody disturbed."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from attnlab.run_record import write
from attnlab.run_record.record import Record
from tests.run_record import trainer
from tests.run_record.trainer import FINISHED, Children


@pytest.fixture(scope="session")
def children() -> Iterator[Children]:
    with Children() as children:
        yield children


@pytest.fixture
def disk() -> Iterator[Path]:
    """A directory in memory where there is one: its syncs cost nothing, its names work alike."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as disk:
        yield Path(disk)


@pytest.fixture(scope="session")
def undisturbed(children: Children, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is in the record of a run that nobody disturbed."""
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    assert children.train(run_dir) == FINISHED
    return as_read(run_dir)


@pytest.fixture(scope="session")
def passings(tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """How often a run passes each fault point."""
    passed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "strike_fault", passed.append)
        # As in every test here, the run makes the directory above it too.
        assert trainer.train(tmp_path_factory.mktemp("counted") / "runs" / "run") == FINISHED
    return Counter(passed)


def as_read(run_dir: Path) -> dict[str, Any]:
    """Give what a reader sees of a finished run, but for the number of attempts it took."""
    record = Record(run_dir)
    result = record.result
    assert result is not None
    assert result == record.attempts[result.attempt - 1].summary
    tables = {name: record.rows(name).to_pylist() for name in ("train", "validation")}
    return tables | {"identity": result.identity, "metrics": result.metrics}
