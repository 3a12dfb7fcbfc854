"""What is measured of every head: of single runs, and of several seeds once heads are matched.

from pathlib import Path
from attnlab.analysis.head_report import head_report
from attnlab.run_record.record import Record

report = head_report([Record(path) for path in sorted(Path("runs").glob("mqar-multihead-2x64-*"))])
for layer in report.groups[0].layers:
    for head in layer.heads:
        print(layer.name, head.head, head.measures["previous"].mean, [r.role for r in head.roles])
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from attnlab.analysis.arms import Run, by_arm, flatten, nearest
from attnlab.analysis.fairness import require_once, require_same_data
from attnlab.analysis.findings import findings
from attnlab.analysis.head_drift import mean_drifts
from attnlab.analysis.head_matching import MatchedLayer, matched
from attnlab.analysis.head_roles import Role, roles, since
from attnlab.analysis.report import Report
from attnlab.analysis.select import Selection, of_one, of_records
from attnlab.analysis.statistics import Interval
from attnlab.errors import RequestError
from attnlab.layers import AttentionLayer
from attnlab.run_record.finding import NamedHead
from attnlab.run_record.head_scores import Course, Scores, head_scores
from attnlab.run_record.patterns import TABLE
from attnlab.run_record.record import Record

DRIFT = "drift"
"""A measure that is made of the recorded patterns: how far a head moved since the step before."""


@dataclass(frozen=True)
class NamedRole:
    """A name that a head has by a score above a threshold (`attnlab.analysis.head_roles`)."""

    role: str
    measure: str
    threshold: float
    source: str
    since: int | None = None
    """The first measured step from which on the score stays above it; None of a mean over seeds."""


@dataclass(frozen=True)
class HeadScores:
    """A head of a run, as it was last measured."""

    head: int
    """From 0, in its layer."""
    scores: Mapping[str, float | None]
    """By measure (`attnlab.interp.pattern_stats.measure`); None where no query could have it."""
    roles: Sequence[NamedRole]
    """The one of the highest score first."""


@dataclass(frozen=True, eq=False)
class LayerHeads:
    """A layer of a run."""

    layer: int
    """From 0, among the attention layers."""
    name: str
    """The path of the module."""
    heads: Sequence[HeadScores]
    course: Course | None = None
    """The measure that was asked for, at each step; None where none was, or the layer lacks it."""


@dataclass(frozen=True, eq=False)
class RunHeads:
    """A run by itself."""

    run: str
    step: int
    """The last that was measured."""
    measure: str | None
    """The measure of the courses, if one was asked for."""
    layers: Sequence[LayerHeads]
    findings: Mapping[str, Mapping[str, NamedHead]]
    """The heads that each evidence named, by what it calls them; none before the run is done."""


@dataclass(frozen=True)
class MatchedHead:
    """A head of several seeds."""

    head: int
    """Its number in the reference."""
    of: Sequence[int]
    """Its number in each run."""
    apart: float
    """The distance of its patterns to the reference's, mean over the other runs."""
    measures: Mapping[str, Interval]
    """Over seeds."""
    roles: Sequence[NamedRole]
    """By the means."""


@dataclass(frozen=True)
class MatchedLayerHeads:
    """A layer of several seeds."""

    layer: int
    name: str
    apart: float
    """Mean over the heads."""
    chance: float
    """Mean over all pairs, which a random matching has on average."""
    heads: Sequence[MatchedHead]


@dataclass(frozen=True)
class MatchedRuns:
    """Runs that differ in their seed alone, whose heads were matched before anything was averaged.

    `attnlab.analysis.head_matching` says how.
    """

    label: str
    runs: Sequence[str]
    seeds: Sequence[int]
    reference: str
    """The run whose heads give the numbers."""
    step: int
    """Of the patterns by which heads were matched."""
    measured: int
    """The step of the measures."""
    layers: Sequence[MatchedLayerHeads]


@dataclass(frozen=True)
class LeftOut:
    """A run that was asked for, and is not shown."""

    run: str
    why: str


@dataclass(frozen=True, eq=False)
class HeadReport(Report):
    """The heads of runs: each run by itself, and those that differ in their seed alone, matched."""

    runs: Sequence[RunHeads]
    groups: Sequence[MatchedRuns]
    left_out: Sequence[LeftOut]


@dataclass(frozen=True, eq=False)
class HeadCourses:
    """What was measured of the heads of one run, over its steps."""

    run: str
    step: int
    """The last that was measured."""
    layers: Scores


def head_report(runs: Selection | Sequence[Record], measure: str | None = None) -> HeadReport:
    """Return what is measured of the heads of some runs; with `measure`, its course in one run.

    Runs that differ in their seed alone become a group, as in `attnlab.analysis.compare`. A
    measure is one of `attnlab.interp.pattern_stats.measure` that was recorded, or "drift". Raises
    RequestError where no run has anything to show, where a group has a run twice or unequal data,
    and for a course of several runs or of what was not measured.
    """
    arms, left_out = _arms(runs, measure)
    if measure is not None:
        _only(arms, f"the course of {measure}")
    shown, groups, wrong = [], [], []
    for label, records in arms.items():
        try:
            if len(records) == 1:
                shown.append(_run(records[0], measure))
            else:
                groups.append(_group(label, records))
        except ValueError as error:
            if len(arms) == len(records) == 1:
                raise
            wrong.append(f"{label}: {error}")
            left_out += [LeftOut(record.name, str(error)) for record in records]
    if not shown and not groups:
        raise RequestError("\n  ".join(wrong))
    return HeadReport(shown, groups, left_out)


def head_courses(runs: Selection | Sequence[Record], measure: str | None = None) -> HeadCourses:
    """Return all that was recorded of the heads of one run over its steps, "drift" if asked for.

    Raises RequestError as `head_report` does.
    """
    arms, _ = _arms(runs, measure)
    record = _only(arms, "a picture of heads over training")
    scores = _courses(record, measure)
    return HeadCourses(record.name, _last_step(scores), scores)


def _arms(
    runs: Selection | Sequence[Record], measure: str | None
) -> tuple[dict[str, list[Record]], list[LeftOut]]:
    """Part records by all but their seed, without those that have nothing to show."""
    if not isinstance(runs, Selection):
        runs = of_one(runs[0]) if len(runs) == 1 else of_records(runs)
    lacking = {name: _lack(record, measure) for name, record in runs.records.items()}
    left_out = [LeftOut(left["run"], left["state"]) for left in runs.left_out]
    unmeasured = {name: why for name, why in lacking.items() if why is not None}
    if len(unmeasured) == len(lacking):
        raise RequestError("\n  ".join(f"{name} {why}" for name, why in unmeasured.items()))
    left_out += [LeftOut(name, why) for name, why in unmeasured.items()]
    measured = {name: record for name, record in runs.records.items() if name not in unmeasured}
    if not runs.results:
        return {name: [record] for name, record in measured.items()}, left_out
    finished = [Run(n, r, flatten(r)) for n, r in runs.results.items() if n in measured]
    arms = by_arm(finished)
    for label, arm in arms.items():
        require_once(label, arm)
        require_same_data(label, arm)
    return {label: [measured[run.name] for run in arm] for label, arm in arms.items()}, left_out


def _lack(record: Record, measure: str | None) -> str | None:
    """Say why a run has nothing measured of its heads, if it has nothing."""
    attends = bool(record.layers.attention)
    if record.rows("heads").num_rows or (measure == DRIFT and attends):
        return None
    callbacks = record.identity.get("callbacks") or {}
    every = (callbacks.get("clock") or {}).get("statistics_every")
    measuring = every is not None and callbacks.get("statistics") is not None
    recorded = record.rows(TABLE).num_rows > 0
    if not attends and (recorded or (measuring and record.result is not None)):
        return "has no attention heads"
    return (
        "recorded no measures of its heads; train with callbacks.clock.statistics_every=100 to "
        "have them every 100 steps"
    )


def _only(arms: Mapping[str, Sequence[Record]], what: str) -> Record:
    """Return the one run that there is. Raises RequestError where there are more."""
    records = [record for arm in arms.values() for record in arm]
    if len(records) > 1:
        raise RequestError(f"{what} is of one run, and {len(records)} were named; name one of them")
    return records[0]


def _courses(record: Record, measure: str | None) -> Scores:
    scores = head_scores(record)
    if measure == DRIFT:
        try:
            moved = mean_drifts(record)
        except RequestError:
            raise
        except (LookupError, ValueError) as error:
            raise RequestError(str(error)) from error
        layers = dict.fromkeys([*scores, *moved])
        drifts = {layer: {DRIFT: moved[layer]} if layer in moved else {} for layer in layers}
        return {layer: {**scores.get(layer, {}), **drifts[layer]} for layer in layers}
    known = list(dict.fromkeys(name for measures in scores.values() for name in measures))
    if measure is not None and measure not in known:
        raise RequestError(f"there is no measure {measure!r}; {nearest(measure, [*known, DRIFT])}")
    return scores


def _run(record: Record, measure: str | None) -> RunHeads:
    courses = _courses(record, measure)
    named = {
        evidence: finding.heads
        for evidence, finding in findings(record.result, record.name).items()
    }
    layers = [_layer(layer, of_layer, measure) for layer, of_layer in courses.items()]
    return RunHeads(record.name, _last_step(courses), measure, layers, named)


def _layer(layer: AttentionLayer, courses: Mapping[str, Course], measure: str | None) -> LayerHeads:
    num_heads = next(iter(courses.values())).values.shape[1]
    measures = _measured(courses)
    last = {name: course.values[-1].tolist() for name, course in measures.items()}
    heads = []
    for head in range(num_heads):
        scores = {name: _finite(values[head]) for name, values in last.items()}
        names = [_named(role, since(role, measures[role.measure], head)) for role in roles(scores)]
        heads.append(HeadScores(head, scores, names))
    return LayerHeads(layer.index, layer.path, heads, courses.get(measure) if measure else None)


def _measured(courses: Mapping[str, Course]) -> dict[str, Course]:
    """Leave out what was not measured, but made of patterns."""
    return {name: course for name, course in courses.items() if name != DRIFT}


def _last_step(scores: Scores) -> int:
    measured = [course for of_layer in scores.values() for course in _measured(of_layer).values()]
    every = [course for of_layer in scores.values() for course in of_layer.values()]
    return max(int(course.steps[-1]) for course in measured or every)


def _group(label: str, records: Sequence[Record]) -> MatchedRuns:
    """Match the heads of seeds. Raises ValueError where they cannot be."""
    found = matched(records)
    return MatchedRuns(
        label,
        [record.name for record in records],
        [record.identity["seed"] for record in records],
        records[found.reference].name,
        found.step,
        found.measured,
        [_matched_layer(layer) for layer in found.layers],
    )


def _matched_layer(found: MatchedLayer) -> MatchedLayerHeads:
    heads = []
    for head, apart in enumerate(found.apart.tolist()):
        over_seeds = {name: intervals[head] for name, intervals in found.measures.items()}
        means = {name: interval.mean for name, interval in over_seeds.items()}
        names = [_named(role) for role in roles(means)]
        heads.append(MatchedHead(head, found.heads[:, head].tolist(), apart, over_seeds, names))
    apart = float(found.apart.mean())
    return MatchedLayerHeads(found.layer.index, found.layer.path, apart, found.chance, heads)


def _named(role: Role, since: int | None = None) -> NamedRole:
    return NamedRole(role.name, role.measure, role.threshold, role.source, since)


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
