"""Time the start of commands and a training step with another commit and with this tree.

``python -m bench.startup [COMMIT]``: each command runs in a process of its own, the two codes in
turn within a round. Measured are the processor seconds of the process (user and system), which
other work on the machine changes less than the time by the clock. A ratio is this tree over the
commit, its median over the rounds and its range.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from bench.same import ROOT, checkout

STEPS = 200
"""The steps of the longer of two runs, whose difference is the time of its steps."""
RECORDS = ROOT / "tests/records/runs"
TRAIN = (
    *("train", "dataset=pronoun", "variant=multihead", "depth=base", "evidence=none", "seed=0"),
    *("dataset.num_train=2000", "dataset.num_validation=100", "dataset.num_test=100"),
    *("trainer.threads=1", "trainer.accelerator=cpu"),
)
COMMANDS: dict[str, tuple[str, ...]] = {
    "attnlab --help": ("--help",),
    "attnlab compare, 17 records of attnlab 0.1": ("compare", "--runs-dir", str(RECORDS)),
    "attnlab train, 1 step": (*TRAIN, "trainer.max_steps=1"),
    f"attnlab train, {STEPS + 1} steps": (*TRAIN, f"trainer.max_steps={STEPS + 1}"),
}
SHORT, LONG = list(COMMANDS)[2:]
STEP = "a training step, of the two above"

Times = Mapping[str, Sequence[tuple[float, float]]]
"""Seconds of the commit and of this tree by what was timed, a pair for each round."""


def main() -> int:
    """Time, print the table or write it to a file, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=__doc__)
    parser.add_argument("commit", nargs="?", default="HEAD^", help="default: the parent commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table to a file")
    asked = parser.parse_args()
    if asked.rounds < 1:
        parser.error(f"--rounds {asked.rounds}: expected at least 1")
    with tempfile.TemporaryDirectory() as scratch, checkout(asked.commit, Path(scratch)) as base:
        if base is None:
            print(f"{asked.commit} is no commit of this repository; give one", file=sys.stderr)
            return 2
        times = measure((base, ROOT), asked.rounds, Path(scratch))
    text = "\n".join(page(times, asked.commit, asked.rounds)) + "\n"
    if asked.write is None:
        print(text, end="")
    else:
        asked.write.write_text(text)
    return 0


def measure(trees: tuple[Path, Path], rounds: int, scratch: Path) -> Times:
    """Return the seconds of each command and of a training step, the two trees in turn."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in (*COMMANDS, STEP)}
    for round_index in range(-1, rounds):
        seconds_by_name: dict[str, tuple[float, float]] = {}
        for name, words in COMMANDS.items():
            # The order changes with the round, so that neither is always the first.
            order = (0, 1) if round_index % 2 else (1, 0)
            seconds = {}
            for which in order:
                runs_dir = scratch / f"runs-{round_index}-{which}"
                runs_dir.mkdir(exist_ok=True)
                place = [f"runs_dir={runs_dir}"] if words[0] == "train" else []
                seconds[which] = processor_seconds(trees[which], [*words, *place], runs_dir)
            seconds_by_name[name] = seconds[0], seconds[1]
        short, long = seconds_by_name[SHORT], seconds_by_name[LONG]
        seconds_by_name[STEP] = (long[0] - short[0]) / STEPS, (long[1] - short[1]) / STEPS
        # The first round compiles the sources, and fills the caches of the machine.
        if round_index >= 0:
            for name, pair in seconds_by_name.items():
                times[name].append(pair)
    return times


def processor_seconds(tree: Path, words: Sequence[str], directory: Path) -> float:
    """Return the processor seconds of one command with the code of a tree, in a new process."""
    script = f"import sys; from attnlab.cli import main; sys.exit(main({list(words)!r}))"
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    after = os.times()
    if done.returncode:
        sys.exit(f"{' '.join(words)} with {tree} failed:\n{done.stderr}")
    children = after.children_user + after.children_system
    return children - before.children_user - before.children_system


def page(times: Times, commit: str, rounds: int) -> list[str]:
    """Return the page: what was measured where, and the table."""
    return [
        "# Start-up beside an earlier commit",
        "",
        f"`python -m bench.startup {commit} --rounds {rounds}`: processor seconds of a process",
        "(user and system), median; the ratio is this tree over that commit, median [range]. A",
        "step includes its share of what is recorded, validated and saved on the way.",
        f"{platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} cores.",
        "",
        f"| what | {commit}, s | this tree, s | ratio |",
        "|---|---|---|---|",
        *(row(name, pairs) for name, pairs in times.items()),
    ]


def row(name: str, pairs: Sequence[tuple[float, float]]) -> str:
    """Return a line of the table."""
    before, after = (median(column) for column in zip(*pairs, strict=True))
    ratios = sorted(now / then for then, now in pairs)
    spread = f"{median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
    return f"| {name} | {before:.3g} | {after:.3g} | {spread} |"


if __name__ == "__main__":
    sys.exit(main())
