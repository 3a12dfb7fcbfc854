"""The page: one self-contained HTML file that makes no network requests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any, NamedTuple

from attnlab.analysis.compare import Panel
from attnlab.analysis.findings import read_findings
from attnlab.analysis.left_out import abbreviate_names
from attnlab.analysis.table import (
    Column,
    comparison_columns,
    format_count,
    panel_legend,
    panel_title,
)
from attnlab.building import NO_USER_TARGETS, UserTargets, is_allowed, summarize_target
from attnlab.errors import RequestError
from attnlab.figures.attention_panels import draw_panel, role_colours
from attnlab.layers import Layer
from attnlab.report.arm_cards import ArmCard, SeedView, arm_cards
from attnlab.report.arm_styles import ArmStyle, arm_styles
from attnlab.report.evidence_curves import evidence_curves
from attnlab.report.frame import ServedFrame, render_page
from attnlab.report.learning_curves import learning_curves
from attnlab.report.probe_history import MOST_TOKENS, ProbeHistory, probe_histories
from attnlab.run_record.pattern_table import Pattern
from attnlab.run_record.record import Record

MOST_BYTES = 6_000_000
"""The largest size of a page's patterns; above it, the page has one seed for each arm."""


LEARNING = "How they learn"
CAUTION = (
    "Attention weights are not explanations: a weight says what a head draws on, not what the "
    "answer hangs on."
)
ONE_OF_MANY = (
    "A picture shows one head of one seed on one sentence; the numbers are means over n seeds."
)


class ChartGroup(NamedTuple):
    """Charts under one heading."""

    heading: str
    charts: Sequence[Any]


@dataclass(frozen=True)
class Section:
    """A section of the page: one panel, or one text."""

    name: str
    summary: str = ""
    cards: Sequence[ArmCard] = ()
    remarks: Sequence[str] = ()
    """Remarks that a reader of the cards must know."""
    caution: str = ""
    caption: str = ""
    table: Sequence[Column] = ()
    table_title: str = ""
    notes: Sequence[str] = ()
    arms: Sequence[ArmStyle] = ()
    """The styles of the table's rows, for the legend of the curves."""
    chart_groups: Sequence[ChartGroup] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    parallel: Mapping[str, Any] | None = None
    """The axes and arms of its parallel coordinates."""
    runs: Mapping[str, Mapping[int, str]] | None = None
    """The run of each arm and seed, on a page that a server sends."""

    @property
    def charts(self) -> list[Any]:
        """The charts of all groups in their order."""
        return [chart for group in self.chart_groups for chart in group.charts]

    @property
    def legend(self) -> list[ArmStyle]:
        """The styles of the arms, the highlighted ones first."""
        return sorted(self.arms, key=lambda style: style.colour is None)

    @property
    def num_hidden_cards(self) -> int:
        """The number of cards of arms that are not highlighted, which are drawn on request."""
        return sum(card.style.colour is None for card in self.cards)

    @property
    def is_shared(self) -> bool:
        """Whether some arms stay in the background, as there are too many to highlight."""
        return any(style.colour is None for style in self.arms)

    @property
    def roles(self) -> Mapping[str, str]:
        """The colour of each role of a token in the section's pictures."""
        return role_colours(
            history.view(0) for card in self.cards for history in card.seed_views[0].histories
        )


def report_page(
    panels: Sequence[Panel],
    records: Mapping[str, Record],
    footnotes: Sequence[str] = (),
    user_targets: UserTargets = NO_USER_TARGETS,
) -> str:
    """Return panels as an HTML page; `records` has the record of each of their runs by name.

    A dataset of the user's own is described by its class where `user_targets` names that.
    """
    sections = _limit_size([_build_section(panel, records, user_targets) for panel in panels])
    datasets = list(dict.fromkeys(panel.dataset for panel in panels))
    return render_sections(", ".join(datasets), sections, footnotes)


def curves_page(
    panels: Sequence[Panel], charts: Sequence[Any], footnotes: Sequence[str] = ()
) -> str:
    """Return a chart of curves for each panel as an HTML page."""
    sections = [
        Section(
            name=panel.dataset,
            arms=arm_styles(panel),
            chart_groups=[ChartGroup(LEARNING, [chart])],
            remarks=panel.notes,
            facts=_panel_facts(panel),
        )
        for panel, chart in zip(panels, charts, strict=True)
    ]
    datasets = list(dict.fromkeys(panel.dataset for panel in panels))
    return render_sections(", ".join(datasets), sections, footnotes)


def attend_page(
    patterns: Sequence[Pattern],
    caption: str,
    name: str = "attention",
    query: int | None = None,
    opening_head: tuple[Layer | None, int | str] | None = None,
) -> str:
    """Return the patterns of one run on one text as an HTML page with a caption.

    The page opens at the position `query` (None: where the model answers), and at `opening_head`,
    a layer and the index of a head in it (None, or a head that is not shown: the first head of the
    last layer).
    """
    query_position = patterns[0].answer_position if query is None else query
    histories = probe_histories(
        [replace(pattern, answer_position=query_position) for pattern in patterns]
    )
    first_history = histories[0]
    opening_index = next(
        (
            head_index
            for head_index, (map_index, map_head) in enumerate(first_history.heads)
            if (first_history.maps[map_index].layer, map_head) == opening_head
        ),
        first_history.first_head_of_last_layer,
    )
    view = SeedView(name, 0, histories, opening_index)
    card = ArmCard(ArmStyle(name, "currentColor"), 1, "", (), (view,))
    caution = f"{CAUTION} This is one run on one text."
    return render_sections(
        name,
        [
            Section(
                name, cards=[card], remarks=_cut_remarks([card]), caption=caption, caution=caution
            )
        ],
        "",
    )


def panel_section(panel: Panel, user_targets: UserTargets = NO_USER_TARGETS) -> Section:
    """Return the section of a panel with its facts and its table, without pictures and charts."""
    return Section(
        name=panel.dataset,
        summary=_dataset_summary(panel, user_targets),
        table=comparison_columns(panel),
        table_title=panel_title(panel),
        notes=[panel_legend(panel), *panel.notes],
        arms=arm_styles(panel),
        facts=_panel_facts(panel),
    )


def _build_section(
    panel: Panel, records: Mapping[str, Record], user_targets: UserTargets
) -> Section:
    """Build the section of a panel: its cards, table and curves."""
    cards = arm_cards(panel, records)
    return replace(
        panel_section(panel, user_targets),
        cards=cards,
        remarks=_card_remarks(panel, cards) if cards else (),
        caution=_caution_text(panel, cards),
        chart_groups=_chart_groups(panel, records),
    )


def _chart_groups(panel: Panel, records: Mapping[str, Record]) -> list[ChartGroup]:
    """Return the charts of a panel under their headings; a heading without a chart is left out."""
    groups = [
        ChartGroup(LEARNING, learning_curves(panel, records)),
        ChartGroup("Where they succeed", [*evidence_curves(panel, legend=False).values()]),
    ]
    return [group for group in groups if group.charts]


def _panel_facts(panel: Panel) -> dict[str, str]:
    """Return the facts of a panel's runs for the page, by name."""
    results = [run.result for group in panel.groups for run in group.runs]

    def abbreviate(values: Any) -> str:
        return abbreviate_names(dict.fromkeys(str(value) for value in values if value))

    seeds = sorted({result.seed for result in results})
    start_days = sorted(result.started[:10] for result in results)
    checkouts = (result.git or {} for result in results)
    return {
        "arms": str(len(panel.groups)),
        "runs": str(len(results)),
        "seeds": ", ".join(map(str, seeds)),
        "budget": abbreviate(f"{format_count(result.budget_tokens)} tokens" for result in results),
        "data": abbreviate(result.data_hash[:10] for result in results),
        "trained": abbreviate((start_days[0], start_days[-1])).replace(", ", " to "),
        "attnlab": abbreviate(result.versions.get("attnlab") for result in results)
        or version("attnlab"),
        "commit": abbreviate(
            f"{checkout['commit'][:7]}{', changed' if checkout.get('dirty') else ''}"
            for checkout in checkouts
            if checkout.get("commit")
        ),
    }


def _limit_size(sections: Sequence[Section]) -> list[Section]:
    """Return the sections with one seed for each arm where all patterns exceed `MOST_BYTES`."""
    num_bytes = sum(
        history.size
        for section in sections
        for card in section.cards
        for view in card.seed_views
        for history in view.histories
    )
    if num_bytes <= MOST_BYTES:
        return list(sections)
    return [
        replace(
            section,
            cards=[replace(card, seed_views=card.seed_views[:1]) for card in section.cards],
            remarks=[*section.remarks, "The pictures are of one seed for each arm, the median."],
        )
        if any(len(card.seed_views) > 1 for card in section.cards)
        else section
        for section in sections
    ]


def _dataset_summary(panel: Panel, user_targets: UserTargets) -> str:
    """Return the first line of the docstring of the panel's dataset."""
    dataset = panel.groups[0].runs[0].result.identity.get("dataset") or {}
    name = dataset.get("_target_")
    if not is_allowed(name, "dataset", user_targets):
        return ""
    try:
        return summarize_target(name)
    except ValueError as error:
        raise RequestError(f"dataset: {error}") from error


def _card_remarks(panel: Panel, cards: Sequence[ArmCard]) -> list[str]:
    """Return remarks on what the pictures leave out, and on how their heads were chosen."""
    remarks = []
    runs = [run for group in panel.groups for run in group.runs]
    if sum(len(card.seed_views) for card in cards) < len(runs):
        remarks.append("Runs that recorded nothing, or other sentences, have no picture.")
    attending_views = [
        card.seed_views[0] for card in cards if card.seed_views[0].histories[0].has_attention
    ]
    if attending_views and all(view.is_chosen for view in attending_views):
        remarks.append("Each card opens with the head that was chosen on validation data.")
    elif any(view.is_chosen for view in attending_views):
        remarks.append(
            "A card opens with the head that was chosen on validation data, where its map was "
            "recorded."
        )
    if any(
        history.hides_cross_attention for card in cards for history in card.seed_views[0].histories
    ):
        remarks.append(
            "What a sequence pays to another one (an encoder's output, latents) is recorded, and "
            "not shown here: `attnlab attend RUN TEXT --layer LAYER` draws it."
        )
    return remarks + _cut_remarks(cards)


def _caution_text(panel: Panel, cards: Sequence[ArmCard]) -> str:
    """Return the caution for a panel, with the interventions that its evidence made."""
    evidence_sentence = "No edge was cut in these runs, so their pictures alone support no claim."
    if any(card.has_knock_out for card in cards):
        removals = dict.fromkeys(
            finding.presentation.taken_away
            for group in panel.groups
            for run in group.runs
            for finding in read_findings(run.result).values()
            if any(head.without for head in finding.heads.values())
        )
        removed = " or ".join(filter(None, removals))
        evidence_sentence = f"So beside each picture stands what happens when {removed}."
    return f"{CAUTION} {evidence_sentence} {ONE_OF_MANY}"


def _cut_remarks(cards: Sequence[ArmCard]) -> list[str]:
    """Return a remark where sequences were cut, else nothing."""
    if not any(history.cut for card in cards for history in card.seed_views[0].histories):
        return []
    return [
        f"Of a longer sequence, the {MOST_TOKENS} tokens up to the one that the model answers from "
        "are shown; what the others get is missing from the picture."
    ]


def render_sections(
    heading: str,
    sections: Sequence[Section],
    footnotes: Sequence[str],
    served: ServedFrame | None = None,
    template: str = "sections.html",
    **values: Any,
) -> str:
    """Return the HTML of a page with some sections; `values` is what its template shows beside."""
    picture_by_content = _draw_pictures([card for section in sections for card in section.cards])
    return render_page(
        template,
        heading,
        "sections",
        {
            "pictures": list(picture_by_content.values()),
            "sections": [
                {
                    "cards": [_card_data(card, list(picture_by_content)) for card in section.cards],
                    "charts": [chart.to_dict() for chart in section.charts],
                    "parallel": section.parallel,
                    "runs": section.runs,
                    "steps": _recorded_steps(section.cards),
                }
                for section in sections
            ],
        },
        has_charts=True,
        served=served,
        sections=sections,
        footnotes=footnotes,
        steps=[_recorded_steps(section.cards) for section in sections],
        **values,
    )


def _draw_pictures(cards: Sequence[ArmCard]) -> dict[Any, Any]:
    """Draw each picture of the seeds shown first once, by its content."""
    picture_by_content: dict[Any, Any] = {}
    for card in cards:
        shown_seed = card.seed_views[0]
        for history in shown_seed.histories:
            content = _picture_content(history)
            if content not in picture_by_content:
                view = history.view(shown_seed.head_index, title=history.probe)
                picture_by_content[content] = draw_panel(view).to_dict()
    return picture_by_content


def _card_data(card: ArmCard, picture_contents: Sequence[Any]) -> dict[str, Any]:
    """Return a card as the page's script reads it; `picture_contents` orders the pictures."""
    return {
        "pictures": [
            picture_contents.index(_picture_content(history))
            for history in card.seed_views[0].histories
        ],
        "seeds": [
            {
                "head": view.head_index,
                "histories": [history.page_data() for history in view.histories],
            }
            for view in card.seed_views
        ],
    }


def _picture_content(history: ProbeHistory) -> tuple[Any, ...]:
    """Return the content of a picture without the weights; equal histories share a picture."""
    return history.probe, tuple(history.tokens), tuple(history.roles.items())


def _recorded_steps(cards: Sequence[ArmCard]) -> list[int]:
    """Return all steps that the histories of some cards have."""
    histories = (
        history for card in cards for view in card.seed_views for history in view.histories
    )
    return sorted({step for history in histories for step in history.steps})
