"""Print what is measured, with the machine, the date and the commit: `python -m bench`."""

import argparse
import datetime
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch

from bench import data, length, lstm, moe, recording, step

TABLES = {
    "step": lambda: step.table(step.CELLS),
    "moe": moe.tables,
    "lstm": lstm.tables,
    "length": length.tables,
    "data": data.tables,
}
NUMBERS = {"recording": recording}


def heading() -> str:
    """Say where and when, and which code."""
    commit = _git("describe", "--always") or "none"
    # The tables themselves are no part of what is measured.
    changed = _git("status", "--porcelain", "--", "src", "bench", "conf")
    commit += "-dirty" if changed else ""
    return (
        f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}; "
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, commit {commit}"
    )


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True).stdout.strip()


def processor() -> str:
    """Name the CPU: its model where Linux says it, else its kind."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def numbers(part: ModuleType) -> Iterator[str]:
    """Give the lines of a part that has one list of numbers."""
    yield (part.__doc__ or "").splitlines()[0]
    for name, value in part.ratios().items():
        yield f"  {name:<60} {value:8.3f}"


parser = argparse.ArgumentParser(prog="python -m bench", description="Timings, interleaved.")
parser.add_argument("--only", choices=(*TABLES, *NUMBERS))
parser.add_argument("--write", type=Path, metavar="FILE", help="the tables of --only, as Markdown")
asked = parser.parse_args()
if asked.write and asked.only not in TABLES:
    parser.error(f"--write needs --only {', '.join(TABLES)}: one file for each")

print(heading())
for name, make in TABLES.items():
    if asked.only in (None, name):
        lines = [f"{heading()}."]
        for line in make():
            print(line, flush=True)
            lines.append(line)
        if asked.write:
            asked.write.write_text("\n".join(lines) + "\n")
for name, part in NUMBERS.items():
    if asked.only in (None, name):
        print(*numbers(part), sep="\n")
