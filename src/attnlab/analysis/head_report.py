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

from attnlab.analysis.arms import FinishedRun, flatten_config, group_by_arm, suggest_key
from attnlab.analysis.emergence import heads_since
from attnlab.analysis.fairness import require_distinct_runs, require_same_data
from attnlab.analysis.find import find_records
from attnlab.analysis.findings import read_findings
from attnlab.analysis.head_drift import compute_mean_drifts
from attnlab.analysis.head_matching import MatchedLayer, match_runs
from attnlab.analysis.head_roles import Role, assign_roles, first_role_step
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
    since: Mapping[str, Mapping[str, int | None]]
    """For each of them, the first measured step from which on the evidence names this head with
    more than half of its last weight; empty where it was measured at the end alone."""


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
    since: Mapping[str, Mapping[str, Sequence[int | None]]]
    """Since when evidence names its heads, as for one run: a step for each run that measured it."""


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
    records_by_arm, left_out = measured_records_by_arm(runs, measure)
    if measure is not None:
        _require_single_run(records_by_arm, f"the history of {measure}")
    run_reports, group_reports, faults = [], [], []
    for label, records in records_by_arm.items():
        try:
            if len(records) == 1:
                run_reports.append(_report_run(records[0], measure))
            else:
                group_reports.append(_report_group(label, records))
        except ValueError as error:
            if len(records_by_arm) == len(records) == 1:
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
    records_by_arm, _ = measured_records_by_arm(runs, measure)
    record = _require_single_run(records_by_arm, "a picture of heads over training")
    histories = load_measures(record, measure)
    return HeadHistories(record.name, _last_step(histories), histories)


def measured_records_by_arm(
    runs: Selection | RunRef | Iterable[RunRef], measure: str | None
) -> tuple[dict[str, list[Record]], list[LeftOut]]:
    """Return the records by arm, and the runs left out because they have no measures of heads.

    Raises RequestError where no run has measures, or where an arm has a run twice or unequal data.
    """
    selection = runs if isinstance(runs, Selection) else _select_runs(runs)
    reasons = {
        name: _reason_unmeasured(record, measure) for name, record in selection.records.items()
    }
    reason_by_unmeasured_run = {
        name: reason for name, reason in reasons.items() if reason is not None
    }
    if len(reason_by_unmeasured_run) == len(selection.records):
        raise RequestError(
            "\n  ".join(f"{name} {reason}" for name, reason in reason_by_unmeasured_run.items())
        )
    left_out = [
        *selection.left_out,
        *(
            LeftOut(name, selection.records[name].state, reason)
            for name, reason in reason_by_unmeasured_run.items()
        ),
    ]
    measured_records = {
        name: record
        for name, record in selection.records.items()
        if name not in reason_by_unmeasured_run
    }
    if not selection.results:
        return {name: [record] for name, record in measured_records.items()}, left_out
    finished_runs = [
        FinishedRun(name, result, flatten_config(result))
        for name, result in selection.results.items()
        if name in measured_records
    ]
    runs_by_arm = group_by_arm(finished_runs)
    for label, arm_runs in runs_by_arm.items():
        require_distinct_runs(label, arm_runs)
        require_same_data(label, arm_runs)
    records_by_arm = {
        label: [measured_records[run.name] for run in arm_runs]
        for label, arm_runs in runs_by_arm.items()
    }
    return records_by_arm, left_out


def _select_runs(references: RunRef | Iterable[RunRef]) -> Selection:
    """Select the referenced runs; a single run may be unfinished."""
    records = find_records(references)
    return select_record(records[0]) if len(records) == 1 else select_records(records)


def _reason_unmeasured(record: Record, measure: str | None) -> str | None:
    """Return the reason why a run has no measures of its heads; None where it has some."""
    has_attention = bool(record.layers.attention)
    if record.rows("heads").num_rows or (measure == DRIFT and has_attention):
        return None
    callbacks = record.identity.get("callbacks") or {}
    statistics_every = (callbacks.get("cadence") or {}).get("statistics_every")
    measures_heads = statistics_every is not None and callbacks.get("statistics") is not None
    has_patterns = record.rows(TABLE).num_rows > 0
    if not has_attention and (has_patterns or (measures_heads and record.result is not None)):
        return "has no attention heads"
    return (
        "recorded no measures of its heads; train with callbacks.cadence.statistics_every=100 to "
        "have them every 100 steps"
    )


def _require_single_run(records_by_arm: Mapping[str, Sequence[Record]], subject: str) -> Record:
    """Return the only run. Raises RequestError where there are several."""
    records = [record for arm_records in records_by_arm.values() for record in arm_records]
    if len(records) > 1:
        raise RequestError(
            f"{subject} is of one run, and {len(records)} were named; name one of them"
        )
    return records[0]


def load_measures(record: Record, measure: str | None) -> Scores:
    """Return the measures of a run over its steps, with the drift where it is requested.

    Raises RequestError for a measure that was not recorded.
    """
    scores = load_head_scores(record)
    if measure == DRIFT:
        try:
            drift_histories = compute_mean_drifts(record)
        except RequestError:
            raise
        except (LookupError, ValueError) as error:
            raise RequestError(str(error)) from error
        scores_with_drift = {layer: dict(histories) for layer, histories in scores.items()}
        for layer, drift_history in drift_histories.items():
            scores_with_drift.setdefault(layer, {})[DRIFT] = drift_history
        return scores_with_drift
    measure_names = list(dict.fromkeys(name for histories in scores.values() for name in histories))
    if measure is not None and measure not in measure_names:
        raise RequestError(
            f"there is no measure {measure!r}; {suggest_key(measure, [*measure_names, DRIFT])}"
        )
    return scores


def _report_run(record: Record, measure: str | None) -> RunHeads:
    """Return the heads of a run, with the history of a measure where it is requested."""
    histories = load_measures(record, measure)
    heads_by_evidence = {
        evidence: finding.heads
        for evidence, finding in read_findings(record.result, record.name).items()
    }
    layers = [
        _report_layer(layer, layer_histories, measure)
        for layer, layer_histories in histories.items()
    ]
    return RunHeads(
        run=record.name,
        step=_last_step(histories),
        measure=measure,
        layers=layers,
        findings=heads_by_evidence,
        since=heads_since(record),
    )


def _report_layer(
    layer: AttentionLayer, histories: Mapping[str, MeasureHistory], measure: str | None
) -> LayerHeads:
    """Return the heads of a layer as they were last measured, and the requested history."""
    num_heads = next(iter(histories.values())).values.shape[1]
    measured_histories = _without_drift(histories)
    last_values = {
        name: history.values[-1].tolist() for name, history in measured_histories.items()
    }
    heads = []
    for head in range(num_heads):
        scores = {name: _finite_or_none(values[head]) for name, values in last_values.items()}
        named_roles = [
            _named_role(role, first_role_step(role, measured_histories[role.measure], head))
            for role in assign_roles(scores)
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
        matched_runs.measured_step,
        [_report_matched_layer(layer) for layer in matched_runs.layers],
        _since_by_run(records),
    )


def _since_by_run(records: Sequence[Record]) -> dict[str, dict[str, list[int | None]]]:
    """Return the step since when each named head does its work, for each run that measured it."""
    steps: dict[str, dict[str, list[int | None]]] = {}
    for record in records:
        for evidence, step_by_head in heads_since(record).items():
            for name, step in step_by_head.items():
                steps.setdefault(evidence, {}).setdefault(name, []).append(step)
    return steps


def _report_matched_layer(matched_layer: MatchedLayer) -> MatchedLayerHeads:
    """Return the matched heads of a layer, with the roles of their mean scores."""
    heads = []
    for head, distance in enumerate(matched_layer.distances.tolist()):
        interval_by_measure = {
            measure: intervals[head] for measure, intervals in matched_layer.measures.items()
        }
        mean_scores = {measure: interval.mean for measure, interval in interval_by_measure.items()}
        named_roles = [_named_role(role) for role in assign_roles(mean_scores)]
        heads.append(
            MatchedHead(
                head,
                of=matched_layer.heads[:, head].tolist(),
                apart=distance,
                measures=interval_by_measure,
                roles=named_roles,
            )
        )
    return MatchedLayerHeads(
        layer=matched_layer.layer.number,
        name=matched_layer.layer.path,
        apart=float(matched_layer.distances.mean()),
        chance=matched_layer.chance,
        heads=heads,
    )


def _named_role(role: Role, since: int | None = None) -> NamedRole:
    return NamedRole(role.name, role.measure, role.threshold, role.source, since)


def _finite_or_none(value: float) -> float | None:
    return value if isfinite(value) else None
