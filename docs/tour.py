"""Run the tour of the README in its order, and time each line.

``python docs/tour.py [--write]`` in the directory that has the runs of `make demo`. With --write,
the README states the seconds of each line.
"""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path
from time import perf_counter

README = Path(__file__).parents[1] / "README.md"
COMMENT_COLUMN = 60


def tour_lines(text: str) -> list[str]:
    """Return the attnlab commands of the tour as they are printed, in their order."""
    tour = text.partition("\n## Tour\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", tour, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("attnlab ")]


def demo_words(makefile: str) -> list[str]:
    """Return the arguments of attnlab in the line of the Makefile that trains the demo."""
    recipe = re.search(r"^demo:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe is not None, "the Makefile has no demo"
    line = recipe[1].replace("\\\n", " ").splitlines()[0]
    return shlex.split(line.replace("$(DEMO_RUNS)", "runs"))[1:]


def with_seconds(line: str, seconds: float) -> str:
    """Return a line of the tour that ends in a comment with its seconds."""
    command = line.partition("  #")[0].rstrip()
    return f"{command:<{COMMENT_COLUMN}}  # {max(1, round(seconds))} s"


def main() -> int:
    """Run each line, print its seconds, and stop at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="state the seconds in the README")
    asked = parser.parse_args()
    text = README.read_text()
    for line in tour_lines(text):
        words = shlex.split(line, comments=True)[1:]
        began = perf_counter()
        done = subprocess.run([sys.executable, "-m", "attnlab", *words], capture_output=True)
        seconds = perf_counter() - began
        print(f"{seconds:6.1f} s  {line}", flush=True)
        if done.returncode != 0:
            sys.stderr.buffer.write(done.stderr)
            return 1
        text = text.replace(line + "\n", with_seconds(line, seconds) + "\n", 1)
    if asked.write:
        README.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
