"""How the arms of a panel are told apart: one name, colour and dashes in all figures of a page."""

from collections.abc import Sequence
from typing import NamedTuple

from attnlab.analysis.arms import short_label
from attnlab.analysis.compare import Group, Panel
from attnlab.figures.base import HIGHLIGHTS
from attnlab.figures.curves import DASHES


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
    titles = [short_label({key: group.keys[key] for key in _keys(panel)}) for group in panel.groups]
    if len(titles) > len(HIGHLIGHTS):
        best = _best_groups(panel)
        return [
            ArmStyle(title, HIGHLIGHTS[best.index(place)] if place in best else None)
            for place, title in enumerate(titles)
        ]
    families = [repr(group.keys[_keys(panel)[0]]) for group in panel.groups]
    names = list(dict.fromkeys(families))
    places = [families[:at].count(family) for at, family in enumerate(families)]
    if max(places) >= len(DASHES) or len(names) == 1:
        names, families, places = titles, titles, [0] * len(titles)
    return [
        ArmStyle(title, HIGHLIGHTS[names.index(family)], place)
        for title, family, place in zip(titles, families, places, strict=True)
    ]


def _keys(panel: Panel) -> Sequence[str]:
    """Return the keys that name an arm; one arm alone is named by its variant."""
    first = panel.groups[0]
    varying = [
        key for key in panel.group_keys if any(g.keys[key] != first.keys[key] for g in panel.groups)
    ]
    return varying or list(panel.group_keys)


def _best_groups(panel: Panel) -> list[int]:
    """Return the places of the best groups by the panel's metric, the best first."""
    sign = -1 if panel.higher_is_better else 1

    def rank(place: int) -> float:
        group: Group = panel.groups[place]
        mean = group.over_seeds(panel.metric).mean
        assert mean is not None
        return sign * mean

    return sorted(range(len(panel.groups)), key=rank)[: len(HIGHLIGHTS)]
