"""The list of a sweep is appended to, survives torn lines, and states who trains it."""

import os
import subprocess
import sys

import pytest

from attnlab.errors import RecordError
from attnlab.run_record.sweep_record import ListedCell, SweepRecord, sweep_names


def cell(name: str, config_dir: str | None = None) -> ListedCell:
    return ListedCell((f"seed={name}", "dataset=mqar"), name, config_dir)


def test_a_list_grows_by_the_cells_that_are_new(tmp_path):
    record = SweepRecord(tmp_path, "rates")
    assert (record.cells, record.threads, sweep_names(tmp_path)) == ([], None, [])
    record.add([cell("1"), cell("0")], threads=2)
    record.add([cell("0"), cell("2", "mine")], threads=4)
    record.add([cell("1")], threads=4)
    again = SweepRecord(tmp_path, "rates")
    assert again.cells == [cell("1"), cell("0"), cell("2", "mine")] == record.cells
    assert again.threads == 2
    assert (record.path / "cells.jsonl").read_text().count("\n") == 2
    assert sweep_names(tmp_path) == ["rates"]


@pytest.mark.parametrize(
    "torn", ['{"at": "2026", "cells": [[["se', "null", '{"config_dir": 1}', "\x00" * 9]
)
def test_a_line_that_cannot_be_read_is_passed_over(tmp_path, torn):
    record = SweepRecord(tmp_path, "rates")
    record.add([cell("0")], threads=1)
    with (record.path / "cells.jsonl").open("a") as file:
        file.write(torn)
    record = SweepRecord(tmp_path, "rates")
    record.add([cell("1")], threads=1)
    assert SweepRecord(tmp_path, "rates").cells == [cell("0"), cell("1")]


def test_a_list_that_leads_elsewhere_is_refused(tmp_path):
    record = SweepRecord(tmp_path, "rates")
    record.add([cell("0")], threads=1)
    (tmp_path / "other").write_text("{}\n")
    (record.path / "cells.jsonl").unlink()
    (record.path / "cells.jsonl").symlink_to(tmp_path / "other")
    with pytest.raises(RecordError):
        _ = SweepRecord(tmp_path, "rates").cells


def test_a_launch_is_running_until_its_block_ends_and_can_be_cancelled(tmp_path):
    record = SweepRecord(tmp_path, "rates")
    record.add([cell("0")], threads=1)
    with record.launching("inline", 1) as first, record.launching("processes", 2) as second:
        assert [launch.number for launch in record.launches] == [1, 2]
        assert all(launch.is_running and launch.is_here for launch in record.launches)
        assert record.launches[1].claim["launcher"] == "processes"
        assert record.launches[0].claim["pid"] == os.getpid()
        second.cancel()
        second.cancel()
        assert [launch.is_cancelled for launch in record.launches] == [False, True]
    assert not any(launch.is_running for launch in (first, second, *record.launches))


def test_a_launch_whose_process_was_killed_is_not_running(tmp_path):
    script = (
        "import os, signal; from pathlib import Path\n"
        "from attnlab.run_record.sweep_record import SweepRecord\n"
        f"record = SweepRecord(Path({str(tmp_path)!r}), 'rates')\n"
        "record.path.mkdir(parents=True)\n"
        "with record.launching('inline', 1):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    (launch,) = SweepRecord(tmp_path, "rates").launches
    assert not launch.is_running
    (launch.path / "claim.json").write_text("{")
    assert SweepRecord(tmp_path, "rates").launches == []
