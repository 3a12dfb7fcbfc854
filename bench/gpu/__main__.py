"""Measure on a GPU what is not measured yet: `python -m bench.gpu`, or `make gpu-check`."""

import argparse
import signal
import sys
from pathlib import Path

import torch

from bench.gpu import runner, table
from bench.gpu.parts import PARTS

EPILOG = """\
Each part writes DIR/NAME.json when it is done, and the tables go to DIR.md. A part whose file
has the same settings and names the same device is not measured again. Where there is no GPU,
the tables alone are written, and the exit code is 0; it is 1 where a part has failed.
"""


def main(words: list[str]) -> int:
    """Measure, then write the tables of all that there is."""
    asked, code = _parse(words), 0
    if asked.dry or torch.cuda.is_available():
        device = torch.device("cpu" if asked.dry else "cuda")
        wanted = runner.Asked(device, asked.out, 60 * asked.minutes, asked.again, asked.text)
        parts = [part for part in PARTS if part.name in asked.only]
        # Whoever limits the time of this program may end it like this.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            code = runner.measure(parts, wanted, runner.in_a_process(wanted, say), tell=say)
        except KeyboardInterrupt:
            say("interrupted; the same command goes on")
            code = 130
    else:
        say(f"no GPU is at hand (torch {torch.__version__} sees none), so nothing is measured")
    table.write(PARTS, asked.out)
    return code


def say(line: str) -> None:
    """Print a line at once, whoever reads it."""
    print(line, flush=True)


def _parse(words: list[str]) -> argparse.Namespace:
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description="Measure on a GPU what is not measured yet.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="all that it may take")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--again", action="store_true", help="measure what is there, too")
    parser.add_argument("--out", type=Path, default=Path("docs/gpu"), metavar="DIR")
    parser.add_argument("--text", type=Path, metavar="FILE", help="tiny Shakespeare")
    parser.add_argument("--dry", action="store_true", help="tiny sizes on the CPU: does it run?")
    asked = parser.parse_args(words)
    if asked.dry and asked.out == parser.get_default("out"):
        parser.error("--dry measures nothing worth keeping there; give another --out DIR")
    if asked.text is not None and not asked.text.is_file():
        parser.error(f"--text {asked.text}: there is no such file")
    return asked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
