"""The page: one HTML file that needs nothing else and asks nobody for anything."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from attnlab.analysis.compare import Panel
from attnlab.analysis.dataset_class import dataset_class
from attnlab.analysis.fairness import few
from attnlab.analysis.findings import findings
from attnlab.analysis.select import said_of
from attnlab.analysis.table import Column, columns, count, legend, title
from attnlab.figures.attention import panel, role_colours
from attnlab.report.arm_cards import ArmCard, ArmStyle, SeedView, arm_cards
from attnlab.report.evidence_curves import evidence_curves
from attnlab.report.learning_curves import learning_curves
from attnlab.report.probe_history import MOST_TOKENS, ProbeHistory, probe_histories
from attnlab.run_record.layers import Layer
from attnlab.run_record.patterns import Pattern
from attnlab.run_record.record import Record

ASSETS = Path(__file__).parent / "assets"
MOST_BYTES = 6_000_000
"""Patterns that a page carries; beyond that, those of one seed for each arm."""


CAUTION = (
    "Attention weights are not explanations: a weight says what a head draws on, not what the "
    "answer hangs on."
)
ONE_OF_MANY = (
    "A picture shows one head of one seed on one sentence; the numbers are means over n seeds."
)


@dataclass(frozen=True)
class Section:
    """What is shown of one panel, or of one text."""

    name: str
    summary: str = ""
    cards: Sequence[ArmCard] = ()
    remarks: Sequence[str] = ()
    """What a reader of the cards must know."""
    caution: str = ""
    caption: str = ""
    table: Sequence[Column] = ()
    table_title: str = ""
    notes: Sequence[str] = ()
    curves: Sequence[Any] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def roles(self) -> Mapping[str, str]:
        """The colour of each role that a token of its pictures has."""
        return role_colours(
            history.view(0) for card in self.cards for history in card.seeds[0].histories
        )


def page(
    panels: Sequence[Panel],
    records: Mapping[str, Record],
    left_out: Sequence[Mapping[str, str]] = (),
) -> str:
    """Write panels as a page; `records` has the record of each of their runs, by its name."""
    sections = _light([_section(panel, records) for panel in panels])
    datasets = list(dict.fromkeys(panel.dataset for panel in panels))
    return _render(", ".join(datasets), sections, said_of(left_out))


def attend_page(
    patterns: Sequence[Pattern],
    caption: str,
    name: str = "attention",
    query: int | None = None,
    opens: tuple[Layer | None, int | str] | None = None,
) -> str:
    """Write the patterns of one run on one text as a page, with what stands beside them.

    The page opens at `query`, a position (None: where the model answers), and at the head that
    `opens` names by its layer and its place there (None, or not shown: the first of the last
    layer).
    """
    at = patterns[0].asked_at if query is None else query
    histories = probe_histories([replace(pattern, asked_at=at) for pattern in patterns])
    history = histories[0]
    places = (
        place
        for place, (number, head) in enumerate(history.heads)
        if (history.maps[number].layer, head) == opens
    )
    view = SeedView(name, 0, histories, next(places, history.first_of_last_layer))
    card = ArmCard(ArmStyle(name, "", name, "currentColor"), 1, "", (), (view,))
    caution = f"{CAUTION} This is one run on one text."
    return _render(
        name,
        [Section(name, cards=[card], remarks=_cut([card]), caption=caption, caution=caution)],
        "",
    )


def _section(panel: Panel, records: Mapping[str, Record]) -> Section:
    cards = arm_cards(panel, records)
    return Section(
        name=panel.dataset,
        summary=_summary(panel),
        cards=cards,
        remarks=_remarks(panel, cards) if cards else (),
        caution=_caution(panel, cards),
        table=columns(panel),
        table_title=title(panel),
        notes=[legend(panel), *panel.notes],
        curves=[*learning_curves(panel, records), *evidence_curves(panel).values()],
        facts=_facts(panel),
    )


def _facts(panel: Panel) -> dict[str, str]:
    results = [run.result for group in panel.groups for run in group.runs]

    def each(values: Any) -> str:
        return few(dict.fromkeys(str(value) for value in values if value))

    seeds = sorted({result.seed for result in results})
    days = sorted(result.started[:10] for result in results)
    commits = (result.git or {} for result in results)
    return {
        "arms": str(len(panel.groups)),
        "runs": str(len(results)),
        "seeds": ", ".join(map(str, seeds)),
        "budget": each(f"{count(result.budget_tokens)} tokens" for result in results),
        "data": each(result.data_hash[:10] for result in results),
        "trained": each((days[0], days[-1])).replace(", ", " to "),
        "attnlab": each(result.versions.get("attnlab") for result in results) or version("attnlab"),
        "commit": each(
            f"{git['commit'][:7]}{', changed' if git.get('dirty') else ''}"
            for git in commits
            if git.get("commit")
        ),
    }


def _light(sections: Sequence[Section]) -> list[Section]:
    """Keep the patterns of one seed for each arm where those of all would be too much."""
    everything = [h for s in sections for c in s.cards for v in c.seeds for h in v.histories]
    if sum(history.size for history in everything) <= MOST_BYTES:
        return list(sections)
    return [
        replace(
            section,
            cards=[replace(card, seeds=card.seeds[:1]) for card in section.cards],
            remarks=[*section.remarks, "The pictures are of one seed for each arm."],
        )
        if any(len(card.seeds) > 1 for card in section.cards)
        else section
        for section in sections
    ]


def _summary(panel: Panel) -> str:
    """Return the first line of what the dataset says of itself."""
    kind = dataset_class(panel.groups[0].runs[0].result.identity)
    return (kind.__doc__ or "").partition("\n")[0] if kind else ""


def _remarks(panel: Panel, cards: Sequence[ArmCard]) -> list[str]:
    """Say what the pictures of a panel leave out, and how their heads were chosen."""
    remarks = []
    runs = [run for group in panel.groups for run in group.runs]
    if sum(len(card.seeds) for card in cards) < len(runs):
        remarks.append("Runs that recorded nothing, or other sentences, have no picture.")
    attending = [card.seeds[0] for card in cards if card.seeds[0].histories[0].has_attention]
    if attending and all(view.is_chosen for view in attending):
        remarks.append("Each card opens with the head that was chosen on validation data.")
    elif any(view.is_chosen for view in attending):
        remarks.append(
            "A card opens with the head that was chosen on validation data, where its map was "
            "recorded."
        )
    if any(history.crosses for card in cards for history in card.seeds[0].histories):
        remarks.append(
            "What a sequence pays to another one (an encoder's output, latents) is recorded, and "
            "not shown here: `attnlab attend RUN TEXT --layer LAYER` draws it."
        )
    return remarks + _cut(cards)


def _caution(panel: Panel, cards: Sequence[ArmCard]) -> str:
    said = "No edge was cut in these runs, so their pictures alone support no claim."
    if any(card.has_knock_out for card in cards):
        taken_away = dict.fromkeys(
            finding.presentation.taken_away
            for group in panel.groups
            for run in group.runs
            for finding in findings(run.result).values()
            if any(head.without for head in finding.heads.values())
        )
        what = " or ".join(filter(None, taken_away))
        said = f"So beside each picture stands what happens when {what}."
    return f"{CAUTION} {said} {ONE_OF_MANY}"


def _cut(cards: Sequence[ArmCard]) -> list[str]:
    if not any(history.cut for card in cards for history in card.seeds[0].histories):
        return []
    return [
        f"Of a longer sequence, the {MOST_TOKENS} tokens up to the one that the model answers from "
        "are shown; what the others get is missing from the picture."
    ]


def _render(heading: str, sections: Sequence[Section], left_out: str) -> str:
    pictures: dict[Any, Any] = {}
    for card in (card for section in sections for card in section.cards):
        for history in card.seeds[0].histories:
            if _content(history) not in pictures:
                view = history.view(card.seeds[0].place, title=history.probe)
                pictures[_content(history)] = panel(view).to_dict()
    scripts = [_library(), (ASSETS / "page.js").read_text("utf-8")]
    allowed = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        _environment()
        .get_template("page.html")
        .render(
            heading=heading,
            sections=sections,
            left_out=left_out,
            scripts=scripts,
            style=(ASSETS / "page.css").read_text("utf-8"),
            policy=f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
            "img-src data:; base-uri 'none'; form-action 'none'",
            data={
                "pictures": list(pictures.values()),
                "sections": [
                    {
                        "cards": [_packed(card, list(pictures)) for card in section.cards],
                        "curves": [chart.to_dict() for chart in section.curves],
                        "steps": _steps(section.cards),
                    }
                    for section in sections
                ],
            },
            steps=[_steps(section.cards) for section in sections],
        )
    )


def _packed(card: ArmCard, contents: Sequence[Any]) -> dict[str, Any]:
    return {
        "pictures": [contents.index(_content(history)) for history in card.seeds[0].histories],
        "seeds": [
            {"head": view.place, "histories": [history.packed() for history in view.histories]}
            for view in card.seeds
        ],
    }


def _content(history: ProbeHistory) -> tuple[Any, ...]:
    """Return what a picture shows but for the weights: histories that agree on it share one."""
    return history.probe, tuple(history.tokens), tuple(history.roles.items())


def _steps(cards: Sequence[ArmCard]) -> list[int]:
    histories = (history for card in cards for view in card.seeds for history in view.histories)
    return sorted({step for history in histories for step in history.steps})


@lru_cache
def _library() -> str:
    """Read Vega, Vega-Lite and Vega-Embed, which the figures are drawn with."""
    from vl_convert import javascript_bundle

    # Its stub asks for an argument that has a default.
    bundle = javascript_bundle()  # pyright: ignore[reportCallIssue]
    # Nothing in an inlined script may end it.
    assert "</script" not in bundle.lower() and "<!--" not in bundle  # noqa: PT018
    return bundle


@lru_cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(ASSETS, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
