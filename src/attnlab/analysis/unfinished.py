"""Runs without a result beside a comparison: those that train, failed or were stopped.

They are in no mean and no test; a figure may draw what they recorded so far beside their arm.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attnlab.analysis.arms import format_value
from attnlab.analysis.compare import Group, Panel
from attnlab.run_record.record import Record

NOT_IN_CONFIG = ("seed", "network_depth")
"""What distinguishes runs of an arm, and what only a result states."""


@dataclass(frozen=True)
class UnfinishedRun:
    """A run without a result whose rows can be read."""

    name: str
    state: str
    config: Mapping[str, Any]
    """By dotted keys, with the seed."""
    record: Record


def belongs_to(run: UnfinishedRun, panel: Panel) -> bool:
    """Return whether a run has the dataset, and the budget and data, of a panel's runs."""
    return run.config.get("dataset") == panel.dataset and all(
        run.config.get(key) == value for key, value in panel.panel_keys.items()
    )


def find_group(run: UnfinishedRun, panel: Panel) -> Group | None:
    """Return the group that a run would be in if it were finished; None for an arm of its own.

    Each value of its config is one that some run of the group has, so that a run with a value that
    no finished run has is not taken for a seed of another arm.
    """
    for group in panel.groups:
        same_keys = all(
            run.config.get(key) == value
            for key, value in group.keys.items()
            if key not in NOT_IN_CONFIG
        )
        if same_keys and not _has_other_values(run.config, group):
            return group
    return None


def _has_other_values(config: Mapping[str, Any], group: Group) -> bool:
    for key in dict.fromkeys([*config, *group.runs[0].config]):
        values = {format_value(member.config.get(key)) for member in group.runs}
        if key not in NOT_IN_CONFIG and format_value(config.get(key)) not in values:
            return True
    return False
