"""How the arms of a panel are told apart: one name, colour and dashes in all figures of a page."""

from collections.abc import Sequence
from typing import NamedTuple

from attnlab.analysis.arms import short_label
from attnlab.analysis.compare import Group, Panel
from attnlab.figures.base import DASHES, HIGHLIGHTS


class ArmStyle(NamedTuple):
    """The name and the look of an arm, the same in every figure."""

    title: str
    """What distinguishes the arm from the others."""
    colour: str | None
    """None for an arm that stays in the background."""
    dash: int = 0


def arm_styles(panel: Panel) -> list[ArmStyle]:
    """Return the style of each group: at most eight are highlighted, the best by the main metric.

    Of few arms, those with the same value of the first distinguishing key share a colour, and
    differ in their dashes.
    """
    keys = _naming_keys(panel)
    titles = [short_label({key: group.keys[key] for key in keys}) for group in panel.groups]
    if len(titles) > len(HIGHLIGHTS):
        best_groups = _best_groups(panel)
        return [
            ArmStyle(title, HIGHLIGHTS[best_groups.index(index)] if index in best_groups else None)
            for index, title in enumerate(titles)
        ]
    # A family of arms, which share a colour, has one value of the first key.
    families = [repr(group.keys[keys[0]]) for group in panel.groups]
    dashes = [families[:index].count(family) for index, family in enumerate(families)]
    distinct_families = list(dict.fromkeys(families))
    if max(dashes) >= len(DASHES) or len(distinct_families) == 1:
        families, distinct_families, dashes = titles, titles, [0] * len(titles)
    return [
        ArmStyle(title, HIGHLIGHTS[distinct_families.index(family)], dash)
        for title, family, dash in zip(titles, families, dashes, strict=True)
    ]


def _naming_keys(panel: Panel) -> Sequence[str]:
    """Return the keys that name an arm; one arm alone is named by its variant."""
    first_keys = panel.groups[0].keys
    varying_keys = [
        key
        for key in panel.group_keys
        if any(group.keys[key] != first_keys[key] for group in panel.groups)
    ]
    return varying_keys or list(panel.group_keys)


def _best_groups(panel: Panel) -> list[int]:
    """Return the indices of the best groups by the panel's metric, the best first."""
    sign = -1 if panel.higher_is_better else 1

    def sort_key(index: int) -> float:
        group: Group = panel.groups[index]
        mean = group.over_seeds(panel.metric).mean
        assert mean is not None
        return sign * mean

    return sorted(range(len(panel.groups)), key=sort_key)[: len(HIGHLIGHTS)]
