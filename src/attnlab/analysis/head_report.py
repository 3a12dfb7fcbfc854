"""The measures of every head: for single runs, and over several seeds after matching their heads.

from pathlib import Path
from attnlab.analysis.head_report import head_report
from attnlab.run_record.record import Record

report = head_report([Record(path) for path in sorted(Path("runs").glob("mqar-multihead-2x64-*"))])
for layer in report.groups[0].layers:
    for head in layer.heads:
        print(layer.name, head.head, head.measures["previous"].mean, [r.role for r in head.roles])
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from attnlab.analysis.arms import FinishedRun, flatten, group_by_arm, nearest_key
from attnlab.analysis.fairness import require_once, require_same_data
from attnlab.analysis.find import find_records
from attnlab.analysis.findings import findings
from attnlab.analysis.head_drift import mean_drifts
from attnlab.analysis.head_matching import MatchedLayer, match_runs
from attnlab.analysis.head_roles import Role, role_since, roles
from attnlab.analysis.left_out import LeftOut
from attnlab.analysis.report import Report
from attnlab.analysis.run_list import Selection
from attnlab.analysis.select import select_record, select_records
from attnlab.analysis.statistics import Interval
from attnlab.errors import RequestError
from attnlab.layers import AttentionLayer
from attnlab.run_record.finding import NamedHead
from attnlab.run_record.head_scores import MeasureHistory, Scores, load_head_scores
from attnlab.run_record.pattern_table import TABLE
from attnlab.run_record.record import Record
from attnlab.run_record.run_ref import RunRef

DRIFT = "drift"
"""A measure computed from the recorded patterns: how far a head moved since the step before."""


@dataclass(frozen=True)
class NamedRole:
    """The name of a head with a score above a threshold (`attnlab.analysis.head_roles`)."""

    role: str
    measure: str
    threshold: float
    """A head has the role if its score is above it."""
    source: str
    """Where role and threshold come from."""
    since: int | None = None
    """The first measured step from which on the score stays above it; None for a mean of seeds."""


@dataclass(frozen=True)
class HeadScores:
    """A head of a run, as it was last measured."""

    head: int
    """From 0, in its layer."""
    scores: Mapping[str, float | None]
    """By measure (`interp.pattern_stats.measure_rows`); None where no query allows a score."""
    roles: Sequence[NamedRole]
    """The role with the highest score first."""


@dataclass(frozen=True, eq=False)
class LayerHeads:
    """A layer of a run."""

    layer: int | None
    """From 0, among the attention layers; None where a record of 0.1 does not number them."""
    name: str
    """The path of the module."""
    heads: Sequence[HeadScores]
    history: MeasureHistory | None = None
    """The requested measure at each step; None without a request, or where the layer lacks it."""


@dataclass(frozen=True, eq=False)
class RunHeads:
    """The heads of a single run."""

    run: str
    step: int
    """The last measured step."""
    measure: str | None
    """The measure of the histories; None where none was requested."""
    layers: Sequence[LayerHeads]
    findings: Mapping[str, Mapping[str, NamedHead]]
    """The heads that each evidence named, by its names; empty before the run is finished."""


@dataclass(frozen=True)
class MatchedHead:
    """A head that was matched over several seeds."""

    head: int
    """Its number in the reference."""
    of: Sequence[int]
    """Its number in each run."""
    apart: float
    """The distance of its patterns to the reference's, mean over the other runs."""
    measures: Mapping[str, Interval]
    """By measure, an interval over seeds."""
    roles: Sequence[NamedRole]
    """The roles of its mean scores."""


@dataclass(frozen=True)
class MatchedLayerHeads:
    """A layer whose heads were matched over several seeds."""

    layer: int | None
    """From 0, among the attention layers; None where a record of 0.1 does not number them."""
    name: str
    """The path of the module."""
    apart: float
    """The mean over the heads of their distance to the reference's."""
    chance: float
    """The mean distance of all pairs of heads, which a random matching has on average."""
    heads: Sequence[MatchedHead]


@dataclass(frozen=True)
class MatchedRuns:
    """Runs that differ only in their seed, with heads matched before anything was averaged.

    `attnlab.analysis.head_matching` describes the matching.
    """

    label: str
    runs: Sequence[str]
    seeds: Sequence[int]
    reference: str
    """The run whose numbering of heads is used."""
    step: int
    """The step of the patterns by which heads were matched."""
    measured: int
    """The step of the measures."""
    layers: Sequence[MatchedLayerHeads]


@dataclass(frozen=True, eq=False)
class HeadReport(Report):
    """The heads of single runs, and the matched heads of runs that differ only in their seed."""

    runs: Sequence[RunHeads]
    groups: Sequence[MatchedRuns]
    left_out: Sequence[LeftOut]


@dataclass(frozen=True, eq=False)
class HeadHistories:
    """The measures of the heads of one run over its steps."""

    run: str
    step: int
    """The last measured step."""
    layers: Scores


def head_report(
    runs: Selection | RunRef | Iterable[RunRef], measure: str | None = None
) -> HeadReport:
    """Return the measures of the heads of some runs; with `measure`, its history in one run.

    `runs` is a selection, or anything that names runs (`attnlab.analysis.find.find_records`).
    Runs that differ only in their seed become a group, as in `attnlab.analysis.compare`. A measure
    is one of `attnlab.interp.pattern_stats.measure_rows` that was recorded, or "drift". Raises
    RequestError where no run has measures, where a group has a run twice or unequal data, and for a
    history of several runs or of a measure that was not recorded.
    """
    arms, left_out = _measured_arms(runs, measure)
    if measure is not None:
        _require_single(arms, f"the history of {measure}")
    run_reports, group_reports, faults = [], [], []
    for label, records in arms.items():
        try:
            if len(records) == 1:
                run_reports.append(_report_run(records[0], measure))
            else:
                group_reports.append(_report_group(label, records))
        except ValueError as error:
            if len(arms) == len(records) == 1:
                raise
            faults.append(f"{label}: {error}")
            left_out += [LeftOut(record.name, record.state, str(error)) for record in records]
    if not run_reports and not group_reports:
        raise RequestError("\n  ".join(faults))
    return HeadReport(run_reports, group_reports, left_out)


def head_histories(
    runs: Selection | RunRef | Iterable[RunRef], measure: str | None = None
) -> HeadHistories:
    """Return all recorded measures of one run over its steps, with `measure` "drift" the drift too.

    Raises RequestError as `head_report` does.
    """
    arms, _ = _measured_arms(runs, measure)
    record = _require_single(arms, "a picture of heads over training")
    histories = _load_histories(record, measure)
    return HeadHistories(record.name, _last_step(histories), histories)


def _measured_arms(
    runs: Selection | RunRef | Iterable[RunRef], measure: str | None
) -> tuple[dict[str, list[Record]], list[LeftOut]]:
    """Return the records by arm, and the runs left out because they have no measures of heads.

    Raises RequestError where no run has measures, or where an arm has a run twice or unequal data.
    """
    if not isinstance(runs, Selection):
        records = find_records(runs)
        runs = select_record(records[0]) if len(records) == 1 else select_records(records)
    reason_by_name = {
        name: _reason_unmeasured(record, measure) for name, record in runs.records.items()
    }
    unmeasured_reasons = {
        name: reason for name, reason in reason_by_name.items() if reason is not None
    }
    if len(unmeasured_reasons) == len(reason_by_name):
        raise RequestError(
            "\n  ".join(f"{name} {reason}" for name, reason in unmeasured_reasons.items())
        )
    left_out = [
        *runs.left_out,
        *(
            LeftOut(name, runs.records[name].state, reason)
            for name, reason in unmeasured_reasons.items()
        ),
    ]
    measured_records = {
        name: record for name, record in runs.records.items() if name not in unmeasured_reasons
    }
    if not runs.results:
        return {name: [record] for name, record in measured_records.items()}, left_out
    finished_runs = [
        FinishedRun(name, result, flatten(result))
        for name, result in runs.results.items()
        if name in measured_records
    ]
    arms = group_by_arm(finished_runs)
    for label, arm in arms.items():
        require_once(label, arm)
        require_same_data(label, arm)
    return {
        label: [measured_records[run.name] for run in arm] for label, arm in arms.items()
    }, left_out


def _reason_unmeasured(record: Record, measure: str | None) -> str | None:
    """Return the reason why a run has no measures of its heads; None where it has some."""
    attends = bool(record.layers.attention)
    if record.rows("heads").num_rows or (measure == DRIFT and attends):
        return None
    callbacks = record.identity.get("callbacks") or {}
    statistics_every = (callbacks.get("cadence") or {}).get("statistics_every")
    measures_heads = statistics_every is not None and callbacks.get("statistics") is not None
    has_patterns = record.rows(TABLE).num_rows > 0
    if not attends and (has_patterns or (measures_heads and record.result is not None)):
        return "has no attention heads"
    return (
        "recorded no measures of its heads; train with callbacks.cadence.statistics_every=100 to "
        "have them every 100 steps"
    )


def _require_single(arms: Mapping[str, Sequence[Record]], subject: str) -> Record:
    """Return the only run. Raises RequestError where there are several."""
    records = [record for arm in arms.values() for record in arm]
    if len(records) > 1:
        raise RequestError(
            f"{subject} is of one run, and {len(records)} were named; name one of them"
        )
    return records[0]


def _load_histories(record: Record, measure: str | None) -> Scores:
    """Return the measures of a run over its steps, with the drift where it is requested.

    Raises RequestError for a measure that was not recorded.
    """
    scores = load_head_scores(record)
    if measure == DRIFT:
        try:
            drift_histories = mean_drifts(record)
        except RequestError:
            raise
        except (LookupError, ValueError) as error:
            raise RequestError(str(error)) from error
        all_layers = dict.fromkeys([*scores, *drift_histories])
        drift_by_layer = {
            layer: {DRIFT: drift_histories[layer]} if layer in drift_histories else {}
            for layer in all_layers
        }
        return {layer: {**scores.get(layer, {}), **drift_by_layer[layer]} for layer in all_layers}
    measure_names = list(dict.fromkeys(name for measures in scores.values() for name in measures))
    if measure is not None and measure not in measure_names:
        raise RequestError(
            f"there is no measure {measure!r}; {nearest_key(measure, [*measure_names, DRIFT])}"
        )
    return scores


def _report_run(record: Record, measure: str | None) -> RunHeads:
    histories = _load_histories(record, measure)
    heads_by_evidence = {
        evidence: finding.heads
        for evidence, finding in findings(record.result, record.name).items()
    }
    layers = [
        _report_layer(layer, layer_histories, measure)
        for layer, layer_histories in histories.items()
    ]
    return RunHeads(record.name, _last_step(histories), measure, layers, heads_by_evidence)


def _report_layer(
    layer: AttentionLayer, histories: Mapping[str, MeasureHistory], measure: str | None
) -> LayerHeads:
    num_heads = next(iter(histories.values())).values.shape[1]
    measures = _without_drift(histories)
    last_values = {name: history.values[-1].tolist() for name, history in measures.items()}
    heads = []
    for head in range(num_heads):
        scores = {name: _finite_or_none(values[head]) for name, values in last_values.items()}
        named_roles = [
            _named_role(role, role_since(role, measures[role.measure], head))
            for role in roles(scores)
        ]
        heads.append(HeadScores(head, scores, named_roles))
    return LayerHeads(layer.number, layer.path, heads, histories.get(measure) if measure else None)


def _without_drift(histories: Mapping[str, MeasureHistory]) -> dict[str, MeasureHistory]:
    """Return the measured histories, without the drift that is computed from patterns."""
    return {name: history for name, history in histories.items() if name != DRIFT}


def _last_step(scores: Scores) -> int:
    """Return the last measured step; where only the drift is known, its last step."""
    measured_histories = [
        history
        for layer_histories in scores.values()
        for history in _without_drift(layer_histories).values()
    ]
    all_histories = [
        history for layer_histories in scores.values() for history in layer_histories.values()
    ]
    return max(int(history.steps[-1]) for history in measured_histories or all_histories)


def _report_group(label: str, records: Sequence[Record]) -> MatchedRuns:
    """Match the heads of runs of several seeds. Raises ValueError where they cannot be matched."""
    matched_runs = match_runs(records)
    return MatchedRuns(
        label,
        [record.name for record in records],
        [record.identity["seed"] for record in records],
        records[matched_runs.reference].name,
        matched_runs.step,
        matched_runs.measured,
        [_report_matched_layer(layer) for layer in matched_runs.layers],
    )


def _report_matched_layer(matched_layer: MatchedLayer) -> MatchedLayerHeads:
    heads = []
    for head, distance in enumerate(matched_layer.apart.tolist()):
        over_seeds = {name: intervals[head] for name, intervals in matched_layer.measures.items()}
        mean_scores = {name: interval.mean for name, interval in over_seeds.items()}
        named_roles = [_named_role(role) for role in roles(mean_scores)]
        heads.append(
            MatchedHead(
                head, matched_layer.heads[:, head].tolist(), distance, over_seeds, named_roles
            )
        )
    distance = float(matched_layer.apart.mean())
    return MatchedLayerHeads(
        matched_layer.layer.number, matched_layer.layer.path, distance, matched_layer.chance, heads
    )


def _named_role(role: Role, since: int | None = None) -> NamedRole:
    return NamedRole(role.name, role.measure, role.threshold, role.source, since)


def _finite_or_none(value: float) -> float | None:
    return value if isfinite(value) else None
