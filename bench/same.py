"""Train tiny seeded runs with another commit and with this tree, and compare them bit for bit.

``python -m bench.same [COMMIT]``: both train here, one after the other, from the overrides of
tests/records/runs.yaml. Compared are the weights of the last checkpoint, every row of every table
and the final metrics, where both commits have them. Exit code 0 where all are equal, 1 where one is
not, 2 for a wrong commit.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.table import Table

from attnlab.console import Console
from attnlab.run_record.checkpoint import newest_checkpoint
from attnlab.run_record.record import Record, find_runs

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "tests/records/runs.yaml"
TABLES = ("train", "validation", "patterns", "heads", "vectors")


def main() -> int:
    """Compare, print a table, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.same", description=__doc__)
    parser.add_argument("commit", nargs="?", default="HEAD^", help="default: the parent commit")
    commit = parser.parse_args().commit
    console = Console()
    table = Table("run", "weights", "rows", "metrics", "hash", box=None, pad_edge=False)
    with tempfile.TemporaryDirectory() as scratch, checkout(commit, Path(scratch)) as base:
        if base is None:
            print(f"{commit} is no commit of this repository; give one, or a tag", file=sys.stderr)
            return 2
        then, now = (
            train(tree, Path(scratch, place)) for tree, place in ((base, "then"), (ROOT, "now"))
        )
        equal = then.keys() == now.keys()
        for name in now:
            before, after = then[name], now[name]
            checks = [
                same_weights(before, after),
                all(same_rows(before, after, table) for table in TABLES),
                same_numbers(metrics(before), metrics(after)),
            ]
            equal = equal and all(checks)
            words = ["equal" if check else "[bold]differ[/bold]" for check in checks]
            kept = "kept" if before.name == after.name else f"was {before.name}"
            table.add_row(after.name, *words, kept)
    console.print(f"this tree beside {commit}, same machine, same seeds")
    console.print(table)
    return 0 if equal else 1


@contextmanager
def checkout(commit: str, scratch: Path) -> Iterator[Path | None]:
    """Check a commit out beside the tree for as long as it is needed; None if there is none."""
    path = scratch / "base"
    command = ["git", "-C", str(ROOT), "worktree"]
    added = subprocess.run(
        [*command, "add", "--detach", str(path), commit], capture_output=True, check=False
    )
    try:
        yield path if added.returncode == 0 else None
    finally:
        subprocess.run([*command, "remove", "--force", str(path)], capture_output=True, check=False)


def train(tree: Path, runs_dir: Path) -> dict[str, Record]:
    """Train every run of the recipe with the code of a tree, in one process of its own."""
    recipe = yaml.safe_load(RECIPE.read_text())
    runs_dir.mkdir()
    commands = [
        ["train", *recipe["shared"], *overrides, "-m", f"runs_dir={runs_dir / name}"]
        for name, overrides in recipe["finished"].items()
    ]
    script = "import sys; from attnlab.cli import main; sys.exit(max(map(main, {commands})))"
    done = subprocess.run(
        [sys.executable, "-c", script.format(commands=commands)],
        env={**os.environ, "PYTHONPATH": str(tree / "src")},
        cwd=runs_dir,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"training with {tree} failed:\n{done.stderr}")
    return {
        f"{name}, seed {run.identity['seed']}": run
        for name in recipe["finished"]
        for run in find_runs(runs_dir / name)
    }


def weights(run: Record) -> dict[str, Any]:
    """Return the weights of a run's newest checkpoint."""
    checkpoint, _ = newest_checkpoint(run.path)
    assert checkpoint is not None
    return torch.load(io.BytesIO(checkpoint.content), weights_only=True)["state_dict"]


def same_weights(before: Record, after: Record) -> bool:
    """Return whether two runs end with the same weights, whatever their names."""
    then, now = list(weights(before).values()), list(weights(after).values())
    return len(then) == len(now) and all(map(torch.equal, then, now))


def same_rows(before: Record, after: Record, table: str) -> bool:
    """Return whether two runs have the same rows in the columns that both have."""
    then, now = (run.rows(table).to_pylist() for run in (before, after))
    return len(then) == len(now) and all(map(same_numbers, then, now))


def same_numbers(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether two mappings agree where both have a key, as NaN agrees with itself."""
    shared = then.keys() & now.keys()
    return bool(shared or not then) and all(repr(then[key]) == repr(now[key]) for key in shared)


def metrics(run: Record) -> Mapping[str, float]:
    """Return the final metrics of a finished run."""
    assert run.result is not None
    return run.result.metrics


if __name__ == "__main__":
    raise SystemExit(main())
