"""The numbers of a comparison without the runs behind them, as JSON has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnlab.analysis.report import to_plain
from attnlab.analysis.statistics import Difference

if TYPE_CHECKING:
    from attnlab.analysis.compare import Group, Panel


@dataclass(frozen=True)
class MetricSummary:
    """A metric over the seeds of a group: its mean and the 95 % interval."""

    mean: float | None
    """None where a value is no finite number."""
    low: float | None
    """The lower bound of the interval; None for fewer than three seeds."""
    high: float | None
    """The upper bound of the interval; None for fewer than three seeds."""


@dataclass(frozen=True)
class GroupSummary:
    """The numbers of a group. JSON has each of its keys beside these fields too."""

    label: str
    """Its values of the keys that distinguish the groups."""
    keys: Mapping[str, Any]
    """The config values that its runs share: those of `by`; by default variant, number of layers
    and what else distinguishes the groups."""
    n: int
    """The number of seeds."""
    seeds: Sequence[int]
    runs: Sequence[str]
    """The names of the runs."""
    parameters: int | float
    """The mean over its runs."""
    active_parameters: int | float
    """The parameters that one token uses, mean over its runs."""
    flops_per_token: int | float
    """FLOPs of a forward pass per token, mean over its runs."""
    seconds: int | float
    """How long training took over all attempts, mean over its runs; of the last attempt alone for
    runs that an older version resumed."""
    metrics: Mapping[str, MetricSummary]
    """The metrics that every run has measured."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name, with each of the keys at the root as well as in `keys`.

        A reader looks up a group's `variant` at the root; a program that does not know the keys
        iterates over `keys`.
        """
        fields = to_plain(self)
        return {"label": fields.pop("label"), **to_plain(self.keys), **fields}


@dataclass(frozen=True)
class DifferenceSummary:
    """A group minus the baseline, over the seeds that both have."""

    group: str
    """The label of the group."""
    keys: Mapping[str, Any]
    """The keys of the group."""
    n: int
    """The number of seeds that both have."""
    mean: float | None
    """None without such a seed."""
    low: float | None
    """The lower bound of the 95 % interval; None for a single pair."""
    high: float | None
    """The upper bound of the 95 % interval; None for a single pair."""
    p: float | None
    """The p value of the paired t-test, Holm-corrected over the panel."""


@dataclass(frozen=True)
class PanelSummary:
    """The numbers of the groups that may be compared with each other."""

    dataset: str
    panel_keys: Mapping[str, Any]
    """The config values that distinguish the panel from others of its dataset."""
    metric: str
    """The metric that is compared."""
    higher_is_better: bool
    baseline: Mapping[str, Any] | None
    """The keys of the baseline group; None where the panel does not have that group."""
    groups: Sequence[GroupSummary]
    differences: Sequence[DifferenceSummary]
    """Each other group minus the baseline; empty without a baseline."""
    notes: Sequence[str]
    """What a reader must know before making a claim."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name, with the groups as their `to_json` returns them."""
        return {**to_plain(self), "groups": [group.to_json() for group in self.groups]}


def summarize_panel(panel: "Panel") -> PanelSummary:
    """Return the numbers of a panel."""
    return PanelSummary(
        dataset=panel.dataset,
        panel_keys=panel.panel_keys,
        metric=panel.metric,
        higher_is_better=panel.higher_is_better,
        baseline=None if panel.baseline is None else panel.baseline.keys,
        groups=[summarize_group(group) for group in panel.groups],
        differences=[
            _summarize_difference(group, difference) for group, difference in panel.differences
        ],
        notes=panel.notes,
    )


def summarize_group(group: "Group") -> GroupSummary:
    """Return the numbers of a group."""
    interval_by_metric = {metric: group.over_seeds(metric) for metric in group.metrics}
    return GroupSummary(
        label=group.label,
        keys=group.keys,
        n=len(group.seeds),
        seeds=group.seeds,
        runs=[run.name for run in group.runs],
        parameters=group.mean("parameters"),
        active_parameters=group.mean("active_parameters"),
        flops_per_token=group.mean("flops_per_token"),
        seconds=group.mean("seconds"),
        metrics={
            metric: MetricSummary(interval.mean, interval.low, interval.high)
            for metric, interval in interval_by_metric.items()
        },
    )


def _summarize_difference(group: "Group", difference: Difference) -> DifferenceSummary:
    return DifferenceSummary(group.label, group.keys, *difference)
