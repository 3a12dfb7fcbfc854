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
    may_be_more: bool = False
    may_be_less: bool = False

    def subtract(self, subtrahend: "Value") -> "Value":
        """Return the difference; its bound is open where one of the two is."""
        return Value(
            self.number - subtrahend.number,
            self.may_be_more or subtrahend.may_be_less,
            self.may_be_less or subtrahend.may_be_more,
        )


class Exactly:
    """Every seed has exactly this number."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __str__(self) -> str:
        return f"= {format_decimal(self.value)} in every seed"

    def holds(self, values: Sequence[Value], estimate: Interval) -> bool:
        return all(value == Value(self.value) for value in values)


class AtLeast:
    """The mean, or every seed, is at least a number; the interval may have to exclude another."""

    def __init__(
        self, value: float, *, interval_excludes: float | None = None, in_every_seed: bool = False
    ) -> None:
        if interval_excludes is not None and interval_excludes > value:
            raise ValueError(f"interval_excludes: {interval_excludes} is above {value}")
        self.value, self.in_every_seed = value, in_every_seed
        self.excluded_value = interval_excludes

    def __str__(self) -> str:
        return _describe_bound(
            f">= {format_decimal(self.value)}", self.in_every_seed, "above", self.excluded_value
        )

    def holds(self, values: Sequence[Value], estimate: Interval) -> bool:
        numbers = [value.number for value in values] if self.in_every_seed else [estimate.mean]
        return (
            all(number is not None and number >= self.value - ROUNDING for number in numbers)
            and (
                self.excluded_value is None
                or (estimate.low is not None and estimate.low > self.excluded_value)
            )
            and not any(value.may_be_less for value in values)
        )


class AtMost:
    """The mean, or every seed, is at most a number; the interval may have to exclude another."""

    def __init__(
        self, value: float, *, interval_excludes: float | None = None, in_every_seed: bool = False
    ) -> None:
        if interval_excludes is not None and interval_excludes < value:
            raise ValueError(f"interval_excludes: {interval_excludes} is below {value}")
        self.value, self.in_every_seed = value, in_every_seed
        self.excluded_value = interval_excludes

    def __str__(self) -> str:
        return _describe_bound(
            f"<= {format_decimal(self.value)}", self.in_every_seed, "below", self.excluded_value
        )

    def holds(self, values: Sequence[Value], estimate: Interval) -> bool:
        numbers = [value.number for value in values] if self.in_every_seed else [estimate.mean]
        return (
            all(number is not None and number <= self.value + ROUNDING for number in numbers)
            and (
                self.excluded_value is None
                or (estimate.high is not None and estimate.high < self.excluded_value)
            )
            and not any(value.may_be_more for value in values)
        )


class Near:
    """The mean equals a published number, up to a tolerance."""

    def __init__(self, value: float, *, tolerance: float) -> None:
        if tolerance <= 0:
            raise ValueError(f"tolerance: {tolerance} must be above 0")
        self.value, self.tolerance = value, tolerance

    def __str__(self) -> str:
        return f"{format_decimal(self.value)}, give or take {format_decimal(self.tolerance)}"

    def holds(self, values: Sequence[Value], estimate: Interval) -> bool:
        return (
            estimate.mean is not None
            and abs(estimate.mean - self.value) <= self.tolerance + ROUNDING
            and not any(value.may_be_more or value.may_be_less for value in values)
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
    is_required: bool = True


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


def parse_claims(
    name: str, node: Any, arms: Sequence[str], location: str
) -> tuple[list[Claim], list[str]]:
    """Return the claims of one entry of claims.yaml, one for each arm, and all faults in it.

    `location` says in the faults where the entry stands.
    """
    if faults := entry_faults(node, ENTRIES, location):
        return [], faults
    subtrahend_arms = [node["minus"]] if "minus" in node else []
    terms = [_parse_term(text.strip()) for text in node["measure"].split(" - ")]
    faults = _arm_faults([*node["arms"], *subtrahend_arms], node["arms"], arms, location)
    if len(terms) > 2 or None in terms:
        faults.append(
            f"{location}.measure: {node['measure']!r} is no METRIC, `least of TABLE.COLUMN`, `most "
            "of TABLE.COLUMN`, `steps until TABLE.COLUMN >= NUMBER` or difference of two of them"
        )
    faults += _bound_faults(node, location)
    if faults:
        return [], faults
    try:
        bound = _build_bound(node)
    except ValueError as error:
        return [], [f"{location}.{error}"]
    claims = [
        Claim(
            name=f"{name}/{arm}",
            says=node["says"],
            theirs=node["theirs"],
            source=node["source"],
            arms=(arm, *subtrahend_arms),
            measure=node["measure"],
            terms=tuple(term for term in terms if term is not None),
            bound=bound,
        )
        for arm in node["arms"]
    ]
    return claims, []


def _arm_faults(
    claim_arms: Sequence[str], judged_arms: Sequence[str], arms: Sequence[str], location: str
) -> list[str]:
    """Return the faults in the arms of a claim, which are some of the recipe's `arms`.

    Those that are judged come first among `claim_arms`, then the one that is subtracted.
    """
    faults = [
        f"{location}: the recipe has no arm `{arm}`; {suggest_key(arm, arms)}"
        for arm in claim_arms
        if arm not in arms
    ]
    if len(set(claim_arms)) < len(claim_arms) or not judged_arms:
        faults.append(
            f"{location}.arms: expected different arms, got {', '.join(claim_arms) or 'none'}"
        )
    return faults


def entry_faults(node: Any, entries: Mapping[str, Entry], location: str) -> list[str]:
    """Return a fault for each key of a YAML node that is unknown, missing or of another kind."""
    if not isinstance(node, dict):
        return [f"{location}: expected {', '.join(entries)}; got {node!r}"]
    faults = [
        f"{location}: no entry `{key}` here; {suggest_key(str(key), entries)}"
        for key in node
        if key not in entries
    ]
    faults += [
        f"{location}: `{key}` is missing"
        for key, entry in entries.items()
        if entry.is_required and key not in node
    ]
    for key in node.keys() & entries.keys():
        if not _has_kind(entries[key].kind, node[key]):
            faults.append(f"{location}.{key}: expected a {entries[key].kind}, got {node[key]!r}")
    return faults


def format_decimal(number: float) -> str:
    """Return a number as it is printed in a paper: `.98`."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{number:g}")


def _describe_bound(
    bound: str, in_every_seed: bool, side: str, excluded_value: float | None
) -> str:
    seeds_phrase = " in every seed" if in_every_seed else ""
    if excluded_value is None:
        return bound + seeds_phrase
    return f"{bound}{seeds_phrase}, interval {side} {format_decimal(excluded_value)}"


def _has_kind(kind: str, value: Any) -> bool:
    if kind == "list of texts":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if isinstance(value, bool):
        return kind == "truth"
    types = {"text": str, "number": (int, float), "whole number": int, "map of lists": dict}
    return kind in types and isinstance(value, types[kind])


def _parse_term(text: str) -> Term | None:
    """Return what a MEASURE without a difference names; None for a text that names nothing."""
    if match := re.fullmatch(r"steps until (\w+)\.(\S+) (>=|<=) (-?[\d.]+(?:e-?\d+)?)", text):
        table, column, comparison, goal = match.groups()
        return Steps(table, column, comparison == ">=", float(goal))
    if match := re.fullmatch(r"(least|most) of (\w+)\.(\S+)", text):
        extreme, table, column = match.groups()
        return Best(table, column, extreme == "most")
    return text if re.fullmatch(r"\S+", text) else None


def _bound_faults(node: Mapping[str, Any], location: str) -> list[str]:
    """Return the faults in the kind and the options of the bound that a claim states."""
    stated_kinds = [kind for kind in KINDS if kind in node]
    if len(stated_kinds) != 1:
        return [
            f"{location}: expected one of {', '.join(KINDS)}; "
            f"got {' and '.join(stated_kinds) or 'none'}"
        ]
    (kind,) = stated_kinds
    knobs = set(signature(KINDS[kind]).parameters) - {"value"}
    options = [key for key in OPTIONS if key in node]
    faults = [f"{location}.{key}: `{kind}` takes none" for key in options if key not in knobs]
    if "tolerance" in knobs and "tolerance" not in options:
        faults.append(f"{location}: `{kind}` needs a `tolerance`")
    return faults


def _build_bound(node: Mapping[str, Any]) -> Bound:
    """Build the bound that a claim states. Raises ValueError for options that do not fit it."""
    (kind,) = [kind for kind in KINDS if kind in node]
    options = {
        key: node[key] if isinstance(node[key], bool) else float(node[key])
        for key in OPTIONS
        if key in node
    }
    return KINDS[kind](float(node[kind]), **options)  # pyright: ignore[reportArgumentType]
