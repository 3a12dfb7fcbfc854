"""The numbers of a comparison without the runs behind them, as JSON has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnlab.analysis.report import plain
from attnlab.analysis.statistics import Difference

if TYPE_CHECKING:
    from attnlab.analysis.compare import Group, Panel


@dataclass(frozen=True)
class MetricSummary:
    """A metric over the seeds of a group: its mean and the 95 % interval."""

    mean: float | None
    low: float | None
    """None for a single seed, as `high`."""
    high: float | None


@dataclass(frozen=True)
class GroupSummary:
    """The numbers of a group; costs are means over its runs."""

    label: str
    keys: Mapping[str, Any]
    n: int
    """The number of seeds."""
    seeds: Sequence[int]
    runs: Sequence[str]
    """The names of the runs."""
    parameters: int | float
    active_parameters: int | float
    flops_per_token: int | float
    seconds: int | float
    metrics: Mapping[str, MetricSummary]
    """The metrics that every run has measured."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name, with each of the keys at the root as well as in `keys`.

        A reader looks up a group's `variant` at the root; a program that does not know the keys
        iterates over `keys`.
        """
        label, *fields = plain(self).items()
        return dict([label, *plain(self.keys).items(), *fields])


@dataclass(frozen=True)
class DifferenceSummary:
    """A group minus the baseline, over the seeds that both have."""

    group: str
    """The label of the group."""
    keys: Mapping[str, Any]
    n: int
    """The number of pairs."""
    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    """The p value of the paired t-test, Holm-corrected over the panel."""


@dataclass(frozen=True)
class PanelSummary:
    """The numbers of the groups that may be compared with each other."""

    dataset: str
    panel_keys: Mapping[str, Any]
    """The config values that distinguish the panel from others of its dataset."""
    metric: str
    higher_is_better: bool
    baseline: Mapping[str, Any] | None
    """The keys of the baseline group; None where the panel does not have that group."""
    groups: Sequence[GroupSummary]
    differences: Sequence[DifferenceSummary]
    notes: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name, with the groups as their `to_json` returns them."""
        return {**plain(self), "groups": [group.to_json() for group in self.groups]}


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
    over_seeds = {metric: group.over_seeds(metric) for metric in group.metrics}
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
            for metric, interval in over_seeds.items()
        },
    )


def _summarize_difference(group: "Group", difference: Difference) -> DifferenceSummary:
    return DifferenceSummary(group.label, group.keys, *difference)
