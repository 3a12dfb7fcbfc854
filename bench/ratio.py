"""Arms that took turns as a table: the time of each, and its ratio to some of them."""

import statistics
from collections.abc import Iterator, Mapping, Sequence

Times = Mapping[str, Sequence[float]]
"""Seconds that each arm took for a call, round by round."""


def table(title: str, said: str, times: Times, columns: Mapping[str, str]) -> Iterator[str]:
    """Give the lines of a Markdown table; `columns` says which arm each header divides by."""
    yield from ("", f"### {title[0].upper()}{title[1:]}", "", said, "")
    yield f"| arm | ms | {' | '.join(columns)} |"
    yield "|---" * (2 + len(columns)) + "|"
    for arm, seconds in times.items():
        ratios = [f"{ratio(times, arm, base):.3f}" for base in columns.values()]
        yield f"| {arm} | {1000 * statistics.median(seconds):.2f} | {' | '.join(ratios)} |"


def ratio(times: Times, arm: str, base: str) -> float:
    """Give the median over rounds of the arm's time over the base's."""
    pairs = zip(times[arm], times[base], strict=True)
    return statistics.median(ours / theirs for ours, theirs in pairs)
