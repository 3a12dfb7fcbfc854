"""The heads of one arm: a measure over all steps, and the heads that evidence named.

An arm is runs that differ only in their seed. Its heads are matched as `head_report` matches them,
so that the last step of a history has the numbers of that report.

from attnlab.analysis.head_arm import arm_heads, arms_with_heads

arms, left_out = arms_with_heads(selection)
heads = arm_heads(*arms.popitem(), selection, "previous")
for head in heads.heads:
    print(head.name, {step: interval.mean for step, interval in head.history.items()})
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from attnlab.analysis.emergence import heads_since
from attnlab.analysis.findings import read_findings
from attnlab.analysis.head_report import (
    DRIFT,
    HeadReport,
    head_report,
    load_measures,
    measured_records_by_arm,
)
from attnlab.analysis.left_out import LeftOut
from attnlab.analysis.report import IN_PYTHON, Report
from attnlab.analysis.run_list import Selection
from attnlab.analysis.statistics import Interval, estimate, t_interval
from attnlab.layers import HeadRef
from attnlab.run_record.bounds import SHARE, metric_bounds
from attnlab.run_record.finding import NamedHead
from attnlab.run_record.head_scores import MeasureHistory
from attnlab.run_record.record import Record
from attnlab.run_record.result import RunResult


@dataclass(frozen=True)
class HeadHistory:
    """A measure of one head over training, mean over the runs of its arm."""

    layer: int | None
    """From 0, among the attention layers; None where a record of 0.1 does not number them."""
    path: str
    """The path of its layer."""
    head: int
    """Its number in the reference."""
    of: Sequence[int]
    """Its number in each run."""
    history: Mapping[int, Interval]
    """By step, for the steps at which all runs measured."""

    @property
    def name(self) -> str:
        """Its name, as in L1H2."""
        return f"{self.path} {self.head}" if self.layer is None else f"L{self.layer}H{self.head}"


@dataclass(frozen=True)
class NamedHeadOfArm:
    """A head that an evidence named in each run of an arm, and what was left without it."""

    evidence: str
    name: str
    """Its name in the evidence."""
    role: str
    heads: Mapping[str, HeadRef]
    """By run, under the numbers of that run."""
    weight: Interval
    """The attention that it pays where its role says, over seeds."""
    without: Mapping[str, Interval]
    """The accuracy of answers after each ablation, over seeds."""
    since: Mapping[str, int | None]
    """By run that measured it in training: the step from which on evidence names this head."""


@dataclass(frozen=True, eq=False)
class ArmHeads(Report):
    """The heads of one arm."""

    label: str
    runs: Sequence[str]
    seeds: Sequence[int]
    reference: str
    """The run whose numbering of heads is used."""
    measures: Sequence[str]
    """The recorded measures."""
    measure: str
    """The measure of the histories."""
    heads: Sequence[HeadHistory]
    named: Sequence[NamedHeadOfArm]
    headline: str | None
    """The main metric; None before a run is finished."""
    whole: Interval | None
    """The main metric of the whole models, over seeds."""
    report: HeadReport = field(metadata=IN_PYTHON)
    """The measures of the last step and the roles, as `attnlab heads` prints them."""


def arms_with_heads(selection: Selection) -> tuple[dict[str, list[str]], list[LeftOut]]:
    """Return the names of the runs of each arm that measured its heads, and the runs left out.

    Raises RequestError where no run has measures.
    """
    records_by_arm, left_out = measured_records_by_arm(selection, None)
    name_by_path = {record.path: name for name, record in selection.records.items()}
    return {
        label: [name_by_path[record.path] for record in records]
        for label, records in records_by_arm.items()
    }, left_out


def arm_heads(label: str, runs: Sequence[str], selection: Selection, measure: str = "") -> ArmHeads:
    """Return the heads of an arm; without a `measure`, the history of the first recorded one.

    Raises RequestError where the heads of several runs cannot be matched, and for a measure that
    was not recorded.
    """
    records = {name: selection.records[name] for name in runs}
    results = {name: selection.results[name] for name in runs if name in selection.results}
    report = head_report(Selection(records, results, []))
    wanted = [measure] if measure else []
    scores_of_runs = [load_measures(record, *wanted or [None]) for record in records.values()]
    measures = list(
        dict.fromkeys(
            name for histories in scores_of_runs[0].values() for name in histories if name != DRIFT
        )
    )
    measure = measure or measures[0]
    histories_by_path = [
        {
            layer.path: histories[measure]
            for layer, histories in scores.items()
            if measure in histories
        }
        for scores in scores_of_runs
    ]
    group = next(iter(report.groups), None)
    layers: Sequence[Any] = group.layers if group else report.runs[0].layers
    heads = [
        HeadHistory(
            *(layer.layer, layer.name, head.head, of),
            history=_head_history([by_path[layer.name] for by_path in histories_by_path], of),
        )
        for layer in layers
        if all(layer.name in by_path for by_path in histories_by_path)
        for head in layer.heads
        for of in [head.of if group else [head.head]]
    ]
    return ArmHeads(
        label=label,
        runs=list(runs),
        seeds=[record.identity["seed"] for record in records.values()],
        reference=group.reference if group else runs[0],
        measures=[*measures, DRIFT],
        measure=measure,
        heads=heads,
        named=_named_heads(records, results),
        headline=next((result.headline for result in results.values()), None),
        whole=_whole(list(results.values())),
        report=report,
    )


def _head_history(histories: Sequence[MeasureHistory], heads: Sequence[int]) -> dict[int, Interval]:
    """Return a measure of one matched head by step; `heads` is its number in each run."""
    value_by_step_of_runs = [
        dict(zip(history.steps.tolist(), history.values[:, head].tolist(), strict=True))
        for history, head in zip(histories, heads, strict=True)
    ]
    common_steps = set.intersection(*map(set, value_by_step_of_runs))
    return {
        step: t_interval([value_by_step[step] for value_by_step in value_by_step_of_runs])
        for step in sorted(common_steps)
    }


def _named_heads(
    records: Mapping[str, Record], results: Mapping[str, RunResult]
) -> list[NamedHeadOfArm]:
    """Return the heads that the evidence of all runs named."""
    since_by_run = {run: heads_since(record) for run, record in records.items()}
    heads_by_name: dict[tuple[str, str], dict[str, NamedHead]] = {}
    for run, result in results.items():
        for evidence, finding in read_findings(result, run).items():
            for name, named_head in finding.heads.items():
                heads_by_name.setdefault((evidence, name), {})[run] = named_head
    named_heads = []
    for (evidence, name), head_by_run in heads_by_name.items():
        removed_parts = dict.fromkeys(
            part for named_head in head_by_run.values() for part in named_head.without
        )
        named_heads.append(
            NamedHeadOfArm(
                evidence=evidence,
                name=name,
                role=next(iter(head_by_run.values())).role,
                heads={run: named_head.head for run, named_head in head_by_run.items()},
                weight=estimate([named_head.weight for named_head in head_by_run.values()], SHARE),
                without={
                    part: estimate(
                        [
                            head.without[part]
                            for head in head_by_run.values()
                            if part in head.without
                        ],
                        SHARE,
                    )
                    for part in removed_parts
                },
                since={
                    run: since[evidence][name]
                    for run, since in since_by_run.items()
                    if name in since.get(evidence, {})
                },
            )
        )
    return named_heads


def _whole(results: Sequence[RunResult]) -> Interval | None:
    """Return the main metric of some runs over seeds."""
    if not results:
        return None
    headline = results[0].headline
    values = [result.metrics[headline] for result in results if headline in result.metrics]
    return estimate(values, metric_bounds(headline, results[0].bounds))
