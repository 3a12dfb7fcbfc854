"""Measure one part here and keep its results: `python -m bench.gpu.one NAME DEVICE OUT [TEXT]`."""

import sys
import time
from pathlib import Path

import torch

from bench.gpu import results
from bench.gpu.part import Part
from bench.gpu.parts import PARTS


def one(part: Part, device: torch.device, out: Path, text: Path | None) -> None:
    """Measure a part and keep what is found."""
    given = part.given(device, text)
    began = time.perf_counter()
    found = part.measure(given)
    results.write(out, part, given, found, time.perf_counter() - began)


if __name__ == "__main__":
    name, device, out, *text = sys.argv[1:]
    chosen = next(part for part in PARTS if part.name == name)
    try:
        one(chosen, torch.device(device), Path(out), Path(text[0]) if text else None)
    except KeyboardInterrupt as interruption:
        print(f"interrupted {interruption}".strip())
        sys.exit(130)
