"""The served page of influence: from how far back models of any kind read, on the same axes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from attnlab.analysis.influence_report import ArmInfluence, InfluenceReport, SourceShares
from attnlab.analysis.statistics import ENOUGH_SEEDS, describe_method
from attnlab.figures.base import DASHES, HIGHLIGHTS, MOST_BANDS
from attnlab.figures.distance import DistanceLine, draw_distance
from attnlab.report.page import ChartGroup
from attnlab.report.record_page import (
    Choice,
    DataCell,
    DataTable,
    RecordPage,
    RecordSection,
    command,
    describe_left_out,
    describe_seeds,
    interval_data_cell,
    short_titles,
)
from attnlab.report.view import PageView
from attnlab.run_record.bounds import SHARE

MOST_ARMS = 12
"""The number of arms whose layers are drawn."""


@dataclass(frozen=True)
class InfluenceView(PageView):
    """Whose influence is shown, as the address of the page says it."""

    PATH: ClassVar[str] = "/influence"
    where: str = ""
    run: tuple[str, ...] = ()
    dataset: str = ""
    """Empty for the first."""
    step: str = ""
    """Empty for the last that all runs recorded."""


def influence_page(
    report: InfluenceReport, datasets: Sequence[str], view: InfluenceView
) -> RecordPage:
    """Return the page of what the runs of one dataset read; `datasets` are all to choose from."""
    step_texts = {str(step): f"{step:,}" for step in report.steps}
    return RecordPage(
        "Influence",
        [*_sections(report)],
        [
            Choice("dataset", "dataset", report.dataset, {name: name for name in datasets}),
            Choice("step", "after step", str(report.step), step_texts),
        ],
        lead=(
            "From how far back a model reads, whatever it is made of: attention, an LSTM or a "
            "linear mixer. Every model has the influence of each token on its answer; layers with "
            "attention or with a linear mixer also say what they read themselves."
        ),
        notes=describe_left_out(report.left_out),
        report=report,
    )


def _sections(report: InfluenceReport) -> Iterator[RecordSection]:
    """Yield the section of the influence on the answer, then those of layers and of gates."""
    titles = short_titles([arm.label for arm in report.arms], with_dataset=False)
    arms = [arm for arm in report.arms if arm.influence is not None]
    if arms:
        yield RecordSection(
            "What the answer hangs on",
            lead=f"{report.dataset}, after step {report.step:,}, "
            f"{len(report.probes)} recorded sequences.",
            chart_groups=[ChartGroup("", [influence_chart(report)])],
            tables=[
                DataTable(
                    "In numbers",
                    ["arm", "n", *(f"{bin_.name}" for bin_ in report.bins)],
                    [
                        [
                            DataCell(titles[arm.label]),
                            DataCell(str(len(arm.seeds))),
                            *(interval_data_cell(share) for share in arm.influence.shares),
                        ]
                        for arm in arms
                        if arm.influence is not None
                    ],
                    [
                        "Columns: tokens back from the answering position, 0 is itself. Influence "
                        "is gradient x input, as a share of that of all tokens; it is a "
                        "first-order measure and proves no cause."
                    ],
                )
            ],
        )
    layered = [arm for arm in report.arms if arm.layers]
    if layered:
        yield RecordSection(
            "What each layer reads",
            lead=(
                "Attention weights, or the mixing matrix of a linear mixer, on the same sequences."
            ),
            chart_groups=[
                ChartGroup(
                    "", [layer_chart(report, arm, titles[arm.label]) for arm in layered[:MOST_ARMS]]
                )
            ],
            notes=_layer_notes(report, layered, titles),
        )
    yield from _gate_section(report, titles)


def influence_chart(report: InfluenceReport) -> Any:
    """Draw the influence on the answer of each arm over the distance."""
    titles = short_titles([arm.label for arm in report.arms], with_dataset=False)
    arms = [arm for arm in report.arms if arm.influence is not None]
    lines = [
        DistanceLine(titles[arm.label], *_style(index), _points(arm.influence))
        for index, arm in enumerate(arms)
        if arm.influence is not None
    ]
    return draw_distance(
        lines,
        [bin_.name for bin_ in report.bins],
        report.equal,
        "influence of each token on the answer",
        [*_caption(report, arms), "dotted: if every token that is read counted alike"],
    )


def layer_chart(report: InfluenceReport, arm: ArmInfluence, title: str) -> Any:
    """Draw what each layer of an arm reads from each distance."""
    lines = [
        DistanceLine(f"{source.name} ({source.kind})", *_style(index), _points(source))
        for index, source in enumerate(arm.layers)
    ]
    return draw_distance(
        lines,
        [bin_.name for bin_ in report.bins],
        None,
        title,
        [*_caption(report, [arm]), "mean over heads and the later half of the queries"],
    )


def _caption(report: InfluenceReport, arms: Sequence[ArmInfluence]) -> list[str]:
    """Return the lines of a caption: the seeds, the interval, the sequences."""
    seeds = {tuple(arm.seeds) for arm in arms}
    counts = sorted({len(arm.seeds) for arm in arms})
    if len(seeds) == 1:
        count = f"mean over {describe_seeds(arms[0].seeds)}"
    else:
        count = (
            f"mean over n = {' to '.join(map(str, dict.fromkeys([counts[0], counts[-1]])))} seeds"
        )
    has_interval = counts[-1] >= ENOUGH_SEEDS
    num_lines = max(len(arms), max(len(arm.layers) for arm in arms) if len(arms) == 1 else 0)
    if not has_interval:
        interval = f"no interval: it needs {ENOUGH_SEEDS} seeds"
    elif num_lines > MOST_BANDS:
        interval = f"interval in the tooltip: {describe_method(SHARE)}"
    else:
        interval = f"band: {describe_method(SHARE)}"
    return [f"{count}; {len(report.probes)} sequences", interval]


def _points(source: SourceShares) -> list[tuple[Any, ...]]:
    return [tuple(share) for share in source.shares]


def _style(index: int) -> tuple[str | None, int]:
    """Return the colour and the dashes of a line; beyond all of them, lines are grey."""
    dash, place = divmod(index, len(HIGHLIGHTS))
    return (HIGHLIGHTS[place], dash) if dash < len(DASHES) else (None, 0)


def _layer_notes(
    report: InfluenceReport, layered: Sequence[ArmInfluence], titles: dict[str, str]
) -> list[str]:
    """Return what the charts of layers leave out."""
    notes = []
    without = [titles[arm.label] for arm in report.arms if not arm.layers]
    if without:
        notes.append(
            f"No layer of {'; '.join(without)} has a matrix of what it reads, as an LSTM has none; "
            "the influence above is what can be compared."
        )
    if len(layered) > MOST_ARMS:
        notes.append(
            f"The layers of {len(layered) - MOST_ARMS} more arms are not drawn; state conditions."
        )
    return notes


def _gate_section(report: InfluenceReport, titles: dict[str, str]) -> Iterator[RecordSection]:
    """Yield the section of LSTM gates, where there are LSTMs."""
    gated = [arm for arm in report.arms if arm.gates]
    bare = [arm for arm in report.arms if not arm.layers and not arm.gates]
    if gated:
        keys = list(dict.fromkeys(key for arm in gated for key in arm.gates))
        yield RecordSection(
            "How long an LSTM remembers",
            tables=[
                DataTable(
                    "",
                    ["arm", *keys],
                    [
                        [
                            DataCell(titles[arm.label]),
                            *(interval_data_cell(arm.gates.get(key)) for key in keys),
                        ]
                        for arm in gated
                    ],
                    [
                        "forget: the mean forget gate, 0 to 1. time: the median over units of the "
                        "tokens after which a cell has forgotten all but 1/e (Tallec & Ollivier "
                        "2018). Mean [95 % t-interval] over seeds."
                    ],
                )
            ],
        )
    elif bare:
        yield RecordSection(
            "How long an LSTM remembers",
            lead="None of these runs recorded the gates of its LSTM.",
            commands={"New runs do with": command("train", "variant=lstm", "evidence=gates")},
        )
