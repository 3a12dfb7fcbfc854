"""One card for each arm: its pictures, and the numbers without which they say too little."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from attnlab.analysis.arms import Run, shown
from attnlab.analysis.compare import Group, Panel
from attnlab.analysis.dataset_class import dataset_class
from attnlab.analysis.findings import findings
from attnlab.analysis.table import Cell, count, with_interval
from attnlab.figures import attention
from attnlab.figures.base import colours
from attnlab.report.probe_history import PROBES, ProbeHistory, probe_histories
from attnlab.run_record.finding import Finding
from attnlab.run_record.patterns import Pattern, probes, recorded
from attnlab.run_record.record import Record


class ArmStyle(NamedTuple):
    """How an arm is called and drawn, in every figure the same."""

    name: str
    """What has a colour: the variant, or the whole label where that is not enough."""
    depth: str
    title: str
    colour: str


class Measure(NamedTuple):
    """A number of a card, or why there is none."""

    name: str
    value: Cell
    why_not: str = ""


@dataclass(frozen=True)
class SeedView:
    """What one seed recorded, and the head that was chosen for it."""

    run: str
    seed: int
    histories: Sequence[ProbeHistory]
    place: int
    """The head at which the picture opens, among those of the first history."""
    is_chosen: bool = False
    """Whether that is the head that evidence chose on validation data."""


@dataclass(frozen=True)
class ArmCard:
    """An arm with its pictures."""

    style: ArmStyle
    n: int
    size: str
    """Its parameters, with a unit."""
    measures: Sequence[Measure]
    seeds: Sequence[SeedView]
    has_knock_out: bool = False
    """Whether a number says what is left of the answers without what a picture shows."""


def arm_styles(panel: Panel) -> list[ArmStyle]:
    """Name and colour each group."""
    named = [(_variant_and_depth(group), group) for group in panel.groups]
    known = [
        (name, ", ".join([depth, *_apart(group, [g for n, g in named if n == (name, depth)])]))
        for (name, depth), group in named
    ]
    palette = colours([name for name, _ in known])
    return [ArmStyle(n, d, ", ".join(filter(None, (n, d))), palette[n]) for n, d in known]


def arm_cards(panel: Panel, records: Mapping[str, Record]) -> list[ArmCard]:
    """Make a card of each group that has recorded patterns."""
    cards = []
    for group, style in zip(panel.groups, arm_styles(panel), strict=True):
        runs = sorted(group.runs, key=lambda run: run.result.seed)
        by_run = {run.name: findings(run.result) for run in runs}
        views = [v for run in runs if (v := _view(run, records[run.name], by_run[run.name]))]
        if views:
            has_attention = any(history.has_attention for history in views[0].histories)
            found = by_run[views[0].run]
            cards.append(
                ArmCard(
                    style,
                    len(group.seeds),
                    count(group.mean("parameters")),
                    measures(group, panel.metric, found, has_attention),
                    _alike(views),
                    any(head.without for f in found.values() for head in f.heads.values()),
                )
            )
    return cards


def measures(
    group: Group, metric: str, found: Mapping[str, Finding], has_attention: bool
) -> list[Measure]:
    """List what a group's runs have measured: the main number, what evidence says, the others.

    `found` is what evidence found in one of the runs: it says which numbers are shown, and how.
    """
    existing = group.metrics
    listed = [Measure(_plain(metric), with_interval(group.over_seeds(metric)))]
    for name, finding in found.items():
        for label in finding.presentation.labels:
            key = f"{name}/{label.number}"
            if key in existing:
                listed.append(Measure(label.text, with_interval(group.over_seeds(key))))
            elif label.needs_attention and not has_attention:
                listed.append(Measure(label.text, Cell("-"), "no attention"))
    others = [key for key in existing if key.startswith("test/") and key != metric]
    return listed + [Measure(_plain(k), with_interval(group.over_seeds(k))) for k in others]


def figure(cards: Sequence[ArmCard], columns: int = 2, most: int = 4) -> Any:
    """Draw the cards for print: the first seed's chosen head after the last step, with numbers."""
    arms = []
    for card in cards:
        view = card.seeds[0]
        lines = [f"{m.name} {m.value.joined()}" for m in card.measures if not m.why_not][:most]
        if any(measure.why_not for measure in card.measures):
            lines.append("no attention to cut")
        lines.append(f"shown: {view.histories[0].head_name(view.place)}, seed {view.seed}")
        views = [history.view(view.place, title=history.probe) for history in view.histories]
        arms.append(attention.Arm(f"{card.style.title} (n = {card.n})", lines, views))
    return attention.rows(arms, columns)


def _view(run: Run, record: Record, found: Mapping[str, Finding]) -> SeedView | None:
    histories = probe_histories(_with_roles(recorded(record, probe=probes(record)[:PROBES]), run))
    if not histories:
        return None
    named = [
        finding.heads[name].head
        for finding in found.values()
        for name in finding.presentation.opens_at
        if name in finding.heads
    ]
    opens_at = histories[0].place_of(next(iter(named), None))
    place = histories[0].first_of_last_layer if opens_at is None else opens_at
    return SeedView(run.name, run.result.seed, histories, place, opens_at is not None)


def _with_roles(patterns: Sequence[Pattern], run: Run) -> list[Pattern]:
    """Give patterns of attnlab 0.1, which recorded no roles of tokens, those of the data."""
    kind = None if any(p.roles for p in patterns) else dataset_class(run.result.identity)
    if kind is None:
        return list(patterns)
    return [replace(pattern, roles=kind.token_roles(pattern.tokens)) for pattern in patterns]


def _alike(views: Sequence[SeedView]) -> list[SeedView]:
    """Keep the seeds that saw the sequences of the first with as many heads: they share a card."""

    def content(view: SeedView) -> Any:
        return [(h.probe, list(h.tokens), h.asked_at, h.heads) for h in view.histories]

    return [view for view in views if content(view) == content(views[0])]


def _variant_and_depth(group: Group) -> tuple[str, str]:
    known = {(run.result.variant, run.result.num_layers) for run in group.runs}
    if len(known) > 1:
        return group.label, ""
    variant, layers = known.pop()
    return variant, f"{layers} layer{'s' if layers != 1 else ''}"


def _apart(group: Group, alike: Sequence[Group]) -> list[str]:
    """Name the first keys that tell a group from others of its variant and depth."""
    keys: list[str] = []
    for key in group.keys:
        if len({repr(g.keys[key]) for g in alike}) > 1:
            keys.append(key)
        if len({repr([g.keys[k] for k in keys]) for g in alike}) == len(alike):
            break
    return [f"{key.rpartition('.')[2]}={shown(group.keys[key])}" for key in keys]


def _plain(metric: str) -> str:
    return metric.replace("/", " ").replace("_", " ")
