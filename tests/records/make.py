"""Train the runs of runs.yaml into tests/records/runs, with the code that is on the path.

Done once, with commit 01043c6 (attnlab 0.1.0); see README.md here. Never run it over what is there:
the records are worth something because an older attnlab made them.
"""

import os
import signal
import sys
from pathlib import Path

import yaml

from attnlab.cli import main
from attnlab.run_record.attempt import Attempt

HERE = Path(__file__).parent
RUNS = HERE / "runs"


def train(overrides: list[str]) -> int:
    return main(["train", *overrides, f"runs_dir={RUNS}"])


def interrupt_after(last_step: int) -> None:
    """Have the next run get Ctrl-C once it has saved its checkpoint of `last_step`."""
    save = Attempt.save

    def save_and_interrupt(self: Attempt, step: int, content: bytes) -> str:
        sha256 = save(self, step, content)
        if step == last_step:
            Attempt.save = save
            os.kill(os.getpid(), signal.SIGINT)
        return sha256

    Attempt.save = save_and_interrupt


def make() -> None:
    if RUNS.exists():
        sys.exit(f"{RUNS} exists; these records are kept, not made anew")
    recipe = yaml.safe_load((HERE / "runs.yaml").read_text())
    for overrides in recipe["finished"].values():
        assert train([*recipe["shared"], *overrides, "-m"]) == 0
    for name in ("resumed", "interrupted"):
        interrupt_after(4)
        assert train([*recipe["shared"], *recipe[name]]) == 130
    assert train([*recipe["shared"], *recipe["resumed"]]) == 0
    assert train([*recipe["shared"], *recipe["failed"]]) == 1


if __name__ == "__main__":
    make()
