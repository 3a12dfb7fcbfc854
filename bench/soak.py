"""Run the soak: every kill point, faults, each slow law at every size, hypothesis at depth.

``python -m bench.soak [--share .1]``: a whole soak is written into docs/soak.md with its commit; a
share of it, as in CI, is only run. Exit code as pytest's.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/soak.md"
HEADER = """# Soaks

The long tests at full size: a kill and a fault at every passing of every write, every mixer's slow
laws, hypothesis with twenty times as many examples, drawn anew. `make soak` adds a line; `.ci/run`
runs a tenth, another one for each commit.

| date | commit | passed | failed | minutes |
|---|---|---|---|---|
"""


def main() -> int:
    """Run the tests, write the line of a whole soak, and return pytest's exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="default: 1, all of it")
    share = parser.parse_args().share
    if not 0 < share <= 1:
        print(f"--share {share}: give a share above 0, 1 at most", file=sys.stderr)
        return 2
    begun = time.monotonic()
    code, text = run(share)
    minutes = (time.monotonic() - begun) / 60
    if share == 1 and code in (0, 1):
        counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed)", text)}
        if not PAGE.exists():
            PAGE.write_text(HEADER)
        with PAGE.open("a") as page:
            passed, failed = counts.get("passed", 0), counts.get("failed", 0)
            date = time.strftime("%Y-%m-%d")
            page.write(f"| {date} | {commit()} | {passed} | {failed} | {minutes:.0f} |\n")
    return code


def run(share: float) -> tuple[int, str]:
    """Run pytest over a share of the soak; return its exit code and its last lines."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-m", "soak or hypothesis"]
    environment = {**os.environ, "ATTNLAB_SOAK": str(share)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        sys.stdout.write(line)
        lines = [*lines[-5:], line]
    return process.wait(), "".join(lines)


def commit() -> str:
    """Return the short name of the commit, with a mark where the tree differs from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main())
