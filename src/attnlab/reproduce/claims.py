"""A paper's claims as data: the measure of an arm, and the bound that it must satisfy.

A claim of `claims.yaml` gives one verdict for each of its arms:

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
    least of validation.loss              the lowest value of a table's column in training
    most of validation.accuracy
    steps until test.accuracy >= 0.98     the first step at which a column reaches a goal
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, NamedTuple

from attnlab.analysis.arms import suggest_key
from attnlab.analysis.statistics import Interval

ROUNDING = 1e-9
"""Numbers that differ by less than this count as equal: .9 - .6 is not exactly .3."""


class Value(NamedTuple):
    """A measured number, and whether the true one may be more or less (a bound)."""

    number: float
    more: bool = False
    less: bool = False

    def minus(self, subtrahend: "Value") -> "Value":
        return Value(
            self.number - subtrahend.number,
            self.more or subtrahend.less,
            self.less or subtrahend.more,
        )


class Exactly:
    """Every seed has exactly this number."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __str__(self) -> str:
        return f"= {decimal(self.value)} in every seed"

    def holds(self, values: Sequence[Value], estimate: Interval) -> bool:
        return all(value == Value(self.value) for value in values)


class AtLeast:
    """The mean, or every seed, is at least a number; the interval may have to exclude another."""

    def __init__(
        self, value: float, *, interval_excludes: float | None = None, in_every_seed: bool = False
    ) -> None:
        if interval_excludes is not None and interval_excludes > value:
            raise ValueError(f"interval_excludes: {interval_excludes} is above {value}")
        self.value, self.excludes, self.in_every_seed = value, interval_excludes, in_every_seed

    def __str__(self) -> str:
        return _describe_bound(
            f">= {decimal(self.value)}", self.in_every_seed, "above", self.excludes
        )

    def holds(self, values: Sequence[Value], estimate: Interval) -> bool:
        numbers = [value.number for value in values] if self.in_every_seed else [estimate.mean]
        return (
            all(number is not None and number >= self.value - ROUNDING for number in numbers)
            and (
                self.excludes is None or (estimate.low is not None and estimate.low > self.excludes)
            )
            and not any(value.less for value in values)
        )


class AtMost:
    """The mean, or every seed, is at most a number; the interval may have to exclude another."""

    def __init__(
        self, value: float, *, interval_excludes: float | None = None, in_every_seed: bool = False
    ) -> None:
        if interval_excludes is not None and interval_excludes < value:
            raise ValueError(f"interval_excludes: {interval_excludes} is below {value}")
        self.value, self.excludes, self.in_every_seed = value, interval_excludes, in_every_seed

    def __str__(self) -> str:
        return _describe_bound(
            f"<= {decimal(self.value)}", self.in_every_seed, "below", self.excludes
        )

    def holds(self, values: Sequence[Value], estimate: Interval) -> bool:
        numbers = [value.number for value in values] if self.in_every_seed else [estimate.mean]
        return (
            all(number is not None and number <= self.value + ROUNDING for number in numbers)
            and (
                self.excludes is None
                or (estimate.high is not None and estimate.high < self.excludes)
            )
            and not any(value.more for value in values)
        )


class Near:
    """The mean equals a published number, up to a tolerance."""

    def __init__(self, value: float, *, tolerance: float) -> None:
        if tolerance <= 0:
            raise ValueError(f"tolerance: {tolerance} must be above 0")
        self.value, self.tolerance = value, tolerance

    def __str__(self) -> str:
        return f"{decimal(self.value)}, give or take {decimal(self.tolerance)}"

    def holds(self, values: Sequence[Value], estimate: Interval) -> bool:
        return (
            estimate.mean is not None
            and abs(estimate.mean - self.value) <= self.tolerance + ROUNDING
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
    """The first step at which a column of a run's table reaches `goal`."""

    table: str
    column: str
    upward: bool
    goal: float


class Best(NamedTuple):
    """The lowest or (`upward`) the highest value in a column of a run's table."""

    table: str
    column: str
    upward: bool


Term = str | Steps | Best
"""A metric by its name, or a number that is computed from a table."""


@dataclass(frozen=True)
class Claim:
    """One row of the verdicts: an arm's measure, and the bound that it must satisfy."""

    name: str
    says: str
    theirs: str
    source: str
    arms: tuple[str, ...]
    """One arm, or two arms whose difference is judged."""
    measure: str
    terms: tuple[Term, ...]
    """One term, or two terms whose difference is judged."""
    bound: Bound


class Entry(NamedTuple):
    """A key of a YAML: the kind of its value, and whether it is required."""

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
    """Return the claims of one entry of claims.yaml, one for each arm, and all faults in it."""
    if faults := entry_faults(node, ENTRIES, where):
        return [], faults
    used_arms = [*node["arms"], *([node["minus"]] if "minus" in node else [])]
    faults += [
        f"{where}: the recipe has no arm `{arm}`; {suggest_key(arm, arms)}"
        for arm in used_arms
        if arm not in arms
    ]
    if len(set(used_arms)) < len(used_arms) or not node["arms"]:
        faults.append(
            f"{where}.arms: expected different arms, got {', '.join(used_arms) or 'none'}"
        )
    terms = tuple(_parse_term(text.strip()) for text in node["measure"].split(" - "))
    if len(terms) > 2 or None in terms:
        faults.append(
            f"{where}.measure: {node['measure']!r} is no METRIC, `least of TABLE.COLUMN`, `most "
            "of TABLE.COLUMN`, `steps until TABLE.COLUMN >= NUMBER` or difference of two of them"
        )
    bound = _parse_bound(node, where, faults)
    if faults or bound is None:
        return [], faults
    claims = [
        Claim(
            name=f"{name}/{arm}",
            says=node["says"],
            theirs=node["theirs"],
            source=node["source"],
            arms=(arm, *used_arms[len(node["arms"]) :]),
            measure=node["measure"],
            terms=tuple(term for term in terms if term is not None),
            bound=bound,
        )
        for arm in node["arms"]
    ]
    return claims, []


def entry_faults(node: Any, entries: Mapping[str, Entry], where: str) -> list[str]:
    """Return a fault for each key of a YAML node that is unknown, missing or of another kind."""
    if not isinstance(node, dict):
        return [f"{where}: expected {', '.join(entries)}; got {node!r}"]
    faults = [
        f"{where}: no entry `{key}` here; {suggest_key(str(key), entries)}"
        for key in node
        if key not in entries
    ]
    faults += [
        f"{where}: `{key}` is missing"
        for key, entry in entries.items()
        if entry.needed and key not in node
    ]
    for key in node.keys() & entries.keys():
        if not _is_of_kind(entries[key].kind, node[key]):
            faults.append(f"{where}.{key}: expected a {entries[key].kind}, got {node[key]!r}")
    return faults


def decimal(number: float) -> str:
    """Return a number as it is printed in a paper: `.98`."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{number:g}")


def _describe_bound(bound: str, in_every_seed: bool, side: str, excludes: float | None) -> str:
    in_seeds = " in every seed" if in_every_seed else ""
    return bound + in_seeds + ("" if excludes is None else f", interval {side} {decimal(excludes)}")


def _is_of_kind(kind: str, value: Any) -> bool:
    if kind == "list of texts":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if isinstance(value, bool):
        return kind == "truth"
    types = {"text": str, "number": (int, float), "whole number": int, "map of lists": dict}
    return kind in types and isinstance(value, types[kind])


def _parse_term(text: str) -> Term | None:
    if match := re.fullmatch(r"steps until (\w+)\.(\S+) (>=|<=) (-?[\d.]+(?:e-?\d+)?)", text):
        return Steps(match[1], match[2], match[3] == ">=", float(match[4]))
    if match := re.fullmatch(r"(least|most) of (\w+)\.(\S+)", text):
        return Best(match[2], match[3], match[1] == "most")
    return text if re.fullmatch(r"\S+", text) else None


def _parse_bound(node: Mapping[str, Any], where: str, faults: list[str]) -> Bound | None:
    stated_kinds = [kind for kind in KINDS if kind in node]
    if len(stated_kinds) != 1:
        faults.append(
            f"{where}: expected one of {', '.join(KINDS)}; "
            f"got {' and '.join(stated_kinds) or 'none'}"
        )
        return None
    bound_class = KINDS[stated_kinds[0]]
    knobs = set(signature(bound_class).parameters) - {"value"}
    options = {key: node[key] for key in OPTIONS if key in node}
    faults += [
        f"{where}.{key}: `{stated_kinds[0]}` takes none" for key in options if key not in knobs
    ]
    if "tolerance" in knobs and "tolerance" not in options:
        faults.append(f"{where}: `{stated_kinds[0]}` needs a `tolerance`")
    if faults:
        return None
    numbers = {
        key: value if isinstance(value, bool) else float(value) for key, value in options.items()
    }
    try:
        return bound_class(float(node[stated_kinds[0]]), **numbers)  # pyright: ignore[reportArgumentType]
    except ValueError as error:
        faults.append(f"{where}.{error}")
        return None
