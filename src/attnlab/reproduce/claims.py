"""What a paper claims, as data: which measure of which arm must come out how.

A claim of `claims.yaml` stands for one verdict in each of its arms:

    NAME:
      says: one sentence
      theirs: what the paper has
      source: where the paper has it
      arms: [ARM, ...]
      minus: ARM                  # optional: the arms minus this one, paired by seed
      measure: MEASURE
      KIND: NUMBER                # exactly, at_least, at_most or near, and its options

MEASURE is one of these, or the difference of two (`A - B`):

    test/accuracy                         a metric of a finished run
    least of validation.loss              the best value of a table's column on the way
    most of validation.accuracy
    steps until test.accuracy >= 0.98     the step at which a column first gets somewhere
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, NamedTuple

from attnlab.analysis.arms import nearest
from attnlab.analysis.statistics import Interval

ROUNDING = 1e-9
"""Two decimal numbers closer than this are equal: .9 - .6 is not quite .3."""


class Value(NamedTuple):
    """What a run measured, and whether the truth may be more or less than that."""

    number: float
    more: bool = False
    less: bool = False

    def minus(self, other: "Value") -> "Value":
        return Value(self.number - other.number, self.more or other.less, self.less or other.more)


class Exactly:
    """Every seed gives this very number."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __str__(self) -> str:
        return f"= {decimal(self.value)} in every seed"

    def holds(self, values: Sequence[Value], ours: Interval) -> bool:
        return all(value == Value(self.value) for value in values)


class AtLeast:
    """The mean, or every seed, reaches a number; its interval may have to lie above another."""

    def __init__(
        self, value: float, *, interval_excludes: float | None = None, in_every_seed: bool = False
    ) -> None:
        if interval_excludes is not None and interval_excludes > value:
            raise ValueError(f"interval_excludes: {interval_excludes} is above {value}")
        self.value, self.excludes, self.in_every_seed = value, interval_excludes, in_every_seed

    def __str__(self) -> str:
        return _said(f">= {decimal(self.value)}", self.in_every_seed, "above", self.excludes)

    def holds(self, values: Sequence[Value], ours: Interval) -> bool:
        judged = [value.number for value in values] if self.in_every_seed else [ours.mean]
        return (
            all(number is not None and number >= self.value - ROUNDING for number in judged)
            and (self.excludes is None or (ours.low is not None and ours.low > self.excludes))
            and not any(value.less for value in values)
        )


class AtMost:
    """The mean, or every seed, stays below a number; its interval may have to lie below another."""

    def __init__(
        self, value: float, *, interval_excludes: float | None = None, in_every_seed: bool = False
    ) -> None:
        if interval_excludes is not None and interval_excludes < value:
            raise ValueError(f"interval_excludes: {interval_excludes} is below {value}")
        self.value, self.excludes, self.in_every_seed = value, interval_excludes, in_every_seed

    def __str__(self) -> str:
        return _said(f"<= {decimal(self.value)}", self.in_every_seed, "below", self.excludes)

    def holds(self, values: Sequence[Value], ours: Interval) -> bool:
        judged = [value.number for value in values] if self.in_every_seed else [ours.mean]
        return (
            all(number is not None and number <= self.value + ROUNDING for number in judged)
            and (self.excludes is None or (ours.high is not None and ours.high < self.excludes))
            and not any(value.more for value in values)
        )


class Near:
    """The mean is a published number, up to a tolerance."""

    def __init__(self, value: float, *, tolerance: float) -> None:
        if tolerance <= 0:
            raise ValueError(f"tolerance: {tolerance} must be above 0")
        self.value, self.tolerance = value, tolerance

    def __str__(self) -> str:
        return f"{decimal(self.value)}, give or take {decimal(self.tolerance)}"

    def holds(self, values: Sequence[Value], ours: Interval) -> bool:
        return (
            ours.mean is not None
            and abs(ours.mean - self.value) <= self.tolerance + ROUNDING
            and not any(value.more or value.less for value in values)
        )


Bound = Exactly | AtLeast | AtMost | Near
KINDS: dict[str, type[Bound]] = {
    "exactly": Exactly,
    "at_least": AtLeast,
    "at_most": AtMost,
    "near": Near,
}


class Steps(NamedTuple):
    """The first step at which a column of a run's table has got somewhere."""

    table: str
    column: str
    upward: bool
    goal: float


class Best(NamedTuple):
    """The least or the most that a column of a run's table has had."""

    table: str
    column: str
    upward: bool


Term = str | Steps | Best
"""A metric by its name, or what is read from a table."""


@dataclass(frozen=True)
class Claim:
    """One line of the verdicts: what an arm's measure must be."""

    name: str
    says: str
    theirs: str
    source: str
    arms: tuple[str, ...]
    """One arm, or two whose difference is meant."""
    measure: str
    terms: tuple[Term, ...]
    """One term, or two whose difference is meant."""
    bound: Bound


class Entry(NamedTuple):
    """A key that may stand in a YAML: what it holds, and whether it must be there."""

    kind: str
    needed: bool = True


OPTIONS = {
    "interval_excludes": Entry("number", False),
    "in_every_seed": Entry("truth", False),
    "tolerance": Entry("number", False),
}
ENTRIES = {
    "says": Entry("text"),
    "theirs": Entry("text"),
    "source": Entry("text"),
    "arms": Entry("list of texts"),
    "minus": Entry("text", False),
    "measure": Entry("text"),
    **{kind: Entry("number", False) for kind in KINDS},
    **OPTIONS,
}


def parse(name: str, node: Any, arms: Sequence[str], where: str) -> tuple[list[Claim], list[str]]:
    """Read one claim, which makes a Claim for each of its arms; gives them and all faults."""
    if faults := entry_faults(node, ENTRIES, where):
        return [], faults
    named = [*node["arms"], *([node["minus"]] if "minus" in node else [])]
    faults += [
        f"{where}: the recipe has no arm `{arm}`; {nearest(arm, arms)}"
        for arm in named
        if arm not in arms
    ]
    if len(set(named)) < len(named) or not node["arms"]:
        faults.append(f"{where}.arms: expected different arms, got {', '.join(named) or 'none'}")
    terms = tuple(_term(text.strip()) for text in node["measure"].split(" - "))
    if len(terms) > 2 or None in terms:
        faults.append(
            f"{where}.measure: {node['measure']!r} is no METRIC, `least of TABLE.COLUMN`, `most "
            "of TABLE.COLUMN`, `steps until TABLE.COLUMN >= NUMBER` or difference of two of them"
        )
    bound = _bound(node, where, faults)
    if faults or bound is None:
        return [], faults
    claims = [
        Claim(
            name=f"{name}/{arm}",
            says=node["says"],
            theirs=node["theirs"],
            source=node["source"],
            arms=(arm, *named[len(node["arms"]) :]),
            measure=node["measure"],
            terms=tuple(term for term in terms if term is not None),
            bound=bound,
        )
        for arm in node["arms"]
    ]
    return claims, []


def entry_faults(node: Any, entries: Mapping[str, Entry], where: str) -> list[str]:
    """Hold what a YAML says at `where` against the entries that it may have."""
    if not isinstance(node, dict):
        return [f"{where}: expected {', '.join(entries)}; got {node!r}"]
    faults = [
        f"{where}: no entry `{key}` here; {nearest(str(key), entries)}"
        for key in node
        if key not in entries
    ]
    faults += [
        f"{where}: `{k}` is missing" for k, e in entries.items() if e.needed and k not in node
    ]
    for key in node.keys() & entries.keys():
        if not _is(entries[key].kind, node[key]):
            faults.append(f"{where}.{key}: expected a {entries[key].kind}, got {node[key]!r}")
    return faults


def decimal(number: float) -> str:
    """Write a number as it stands in a paper: `.98`."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{number:g}")


def _said(bound: str, in_every_seed: bool, side: str, excludes: float | None) -> str:
    seeds = " in every seed" if in_every_seed else ""
    return bound + seeds + ("" if excludes is None else f", interval {side} {decimal(excludes)}")


def _is(kind: str, value: Any) -> bool:
    if kind == "list of texts":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if isinstance(value, bool):
        return kind == "truth"
    types = {"text": str, "number": (int, float), "whole number": int, "map of lists": dict}
    return kind in types and isinstance(value, types[kind])


def _term(text: str) -> Term | None:
    if steps := re.fullmatch(r"steps until (\w+)\.(\S+) (>=|<=) (-?[\d.]+(?:e-?\d+)?)", text):
        return Steps(steps[1], steps[2], steps[3] == ">=", float(steps[4]))
    if best := re.fullmatch(r"(least|most) of (\w+)\.(\S+)", text):
        return Best(best[2], best[3], best[1] == "most")
    return text if re.fullmatch(r"\S+", text) else None


def _bound(node: Mapping[str, Any], where: str, faults: list[str]) -> Bound | None:
    kinds = [kind for kind in KINDS if kind in node]
    if len(kinds) != 1:
        faults.append(
            f"{where}: expected one of {', '.join(KINDS)}; got {' and '.join(kinds) or 'none'}"
        )
        return None
    kind = KINDS[kinds[0]]
    knobs = set(signature(kind).parameters) - {"value"}
    given = {key: node[key] for key in OPTIONS if key in node}
    faults += [f"{where}.{key}: `{kinds[0]}` takes none" for key in given if key not in knobs]
    if "tolerance" in knobs and "tolerance" not in given:
        faults.append(f"{where}: `{kinds[0]}` needs a `tolerance`")
    if faults:
        return None
    numbers = {k: v if isinstance(v, bool) else float(v) for k, v in given.items()}
    try:
        return kind(float(node[kinds[0]]), **numbers)  # pyright: ignore[reportArgumentType]
    except ValueError as error:
        faults.append(f"{where}.{error}")
        return None
