"""Every mixer by the length of the sequence: time and memory of a forward and backward pass."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from attnlab.analysis.growth import Exponent, fit_growth
from attnlab.config import compose, conf_dir, search_path
from attnlab.measure import NUM_TOKENS, MeasuredArm, Measurement, measure
from attnlab.model.base import DECODER

LENGTHS = (512, 1024, 2048, 4096, 8192)
TOKENS = 8192
"""In a batch, at every length."""
NUM_LAYERS, D_MODEL = 2, 128
ROUNDS = 3
GOAL = 1.15
"""Of the exponent of the time, where the state has one size."""
LIMIT = 4e9
"""Bytes that a batch may take."""


def mixers() -> list[str]:
    """List what conf/ offers."""
    return sorted(path.stem for path in Path(conf_dir(), "model/mixer").glob("*.yaml"))


def arm(mixer: str, longest: int) -> MeasuredArm:
    """Make a model of mixers alone, between an embedding and a head."""
    words = (f"model/mixer={mixer}", "model/ffn=none", f"model.num_layers={NUM_LAYERS}")
    with search_path() as own:
        config = compose([*words, f"model.d_model={D_MODEL}"], own)
    return MeasuredArm(mixer, config.build("model", NUM_TOKENS, NUM_TOKENS, longest, DECODER))


def is_linear(of: MeasuredArm, longest: int) -> bool:
    """Say whether an arm keeps as much of a sequence of half the length, and so can be linear."""
    kept = of.model.state_size(longest)
    return kept is not None and kept == of.model.state_size(longest // 2)


def tables(
    names: Sequence[str] | None = None,
    lengths: Sequence[int] = LENGTHS,
    tokens: int = TOKENS,
    rounds: int = ROUNDS,
    limit: float = LIMIT,
) -> Iterator[str]:
    """Give the lines of one table for all mixers, which take turns at each length."""
    arms = [arm(name, lengths[-1]) for name in names or mixers()]
    found: dict[str, list[Measurement]] = {of.name: [] for of in arms}
    for length in lengths:
        fitting = [of for of in arms if expected(found[of.name], length, tokens) <= limit]
        for cell in measure(fitting, [length], ["backward"], tokens, rounds):
            found[cell.arm].append(cell)
    yield ""
    yield (
        f"{NUM_LAYERS} layers of the mixer alone, d={D_MODEL}, fp32, forward, loss and backward; "
        f"{tokens} tokens at every length; {rounds} rounds. A dash: the batch could take more than "
        f"{limit / 1e9:g} GB, were its memory quadratic. Powers of the length are fitted to what "
        f"one sequence takes, ± their standard error; goal for the linear ones, whose state has "
        f"one size: {GOAL} of the time, and memory linear."
    )
    spans = [f"ms, {length}" for length in lengths]
    header = ["mixer", "linear", *spans, "power of time", f"MB, {lengths[0]}", "power of memory"]
    yield from ("", f"| {' | '.join(header)} |", "|---" * len(header) + "|")
    for of in arms:
        cells = found[of.name]
        powers = fit_growth(cells)
        times = {
            cell.length: f"{1000 * statistics.median(cell.seconds):.0f}"
            for cell in cells
            if cell.seconds
        }
        row = [
            of.name,
            "yes" if is_linear(of, lengths[-1]) else "no",
            *(times.get(length, "-") for length in lengths),
            said(powers.time),
            f"{(cells[0].peak_bytes or 0) / 1e6:.0f}",
            said(powers.memory),
        ]
        yield f"| {' | '.join(row)} |"


def expected(cells: Sequence[Measurement], length: int, tokens: int) -> float:
    """Bound the bytes of the next batch by those of the last one: a sequence squared."""
    if not cells:
        return 0.0
    last = cells[-1]
    grown = (length / last.length) ** 2 * max(1, tokens // length) / last.batch
    return (last.peak_bytes or float("inf")) * grown


def said(power: Exponent | None) -> str:
    """Write an exponent with its standard error."""
    if power is None:
        return "-"
    return f"{power.value:.2f}" + ("" if power.error is None else f" ± {power.error:.2f}")
