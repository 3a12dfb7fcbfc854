"""The served page of the heads of an arm: what each does over training, and what hangs on it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from attnlab.analysis.head_arm import ArmHeads, NamedHeadOfArm
from attnlab.analysis.head_report import DRIFT, MatchedRuns, NamedRole, RunHeads
from attnlab.analysis.head_table import (
    CAVEAT,
    COLUMNS,
    DRIFT_LEGEND,
    FINDINGS_LEGEND,
    GROUP_HEADERS,
    LEGEND,
    ROLES_LEGEND,
    SEVERAL_HEADS_LEGEND,
    SINCE_LEGEND,
)
from attnlab.analysis.left_out import LeftOut
from attnlab.analysis.statistics import describe_method
from attnlab.analysis.table import format_number
from attnlab.figures.head_curves import SHARES
from attnlab.figures.head_steps import HeadRow, draw_head_steps
from attnlab.figures.left_without import LeftRow, draw_left_without
from attnlab.layers import HeadRef
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
from attnlab.report.view import PageView, address_of
from attnlab.run_record.bounds import SHARE

MEASURES = {
    "previous": "weight of the previous token",
    "current": "weight of the current token",
    "next": "weight of the next token",
    "first": "weight of the first token",
    "sink": "weight of the first four tokens",
    "duplicate_token": "weight of earlier same tokens",
    "induction": "weight of what followed earlier same tokens",
    "prefix_matching": "the same, where there are such tokens",
    "confidence": "largest weight of a row",
    "entropy": "entropy of a row (nats)",
    "normalised_entropy": "entropy of a row, 0 to 1",
    "effective_keys": "keys with equal weight that have this entropy",
    "distance": "mean distance (tokens)",
    DRIFT: "how far a head moved since the recorded step before",
}
"""What the measures are, in few words."""


WHOLE = "whole model"


@dataclass(frozen=True)
class HeadsView(PageView):
    """Which heads are shown, as the address of the page says it."""

    PATH: ClassVar[str] = "/heads"
    where: str = ""
    run: tuple[str, ...] = ()
    arm: str = ""
    """A run of the arm; empty for the first arm."""
    measure: str = "previous"


def heads_page(
    heads: ArmHeads | None,
    arms: Mapping[str, Sequence[str]],
    view: HeadsView,
    left_out: Sequence[LeftOut] = (),
    notice: str | None = None,
) -> RecordPage:
    """Return the page of the heads of an arm; `arms` are all that can be chosen, by label."""
    titles = short_titles(list(arms))
    arm = next(
        (runs[0] for runs in arms.values() if view.arm in runs), next(iter(arms.values()), [""])[0]
    )
    choices = [Choice("arm", "arm", arm, {runs[0]: titles[label] for label, runs in arms.items()})]
    measures = heads.measures if heads else [view.measure]
    texts = {name: _measure_title(name) for name in measures}
    choices.append(Choice("measure", "measure", view.measure, texts))
    return RecordPage(
        "Heads",
        [] if heads is None else [*_sections(heads, titles[heads.label])],
        choices,
        lead=(
            "What each attention head does over training, which of them the recorded evidence "
            "names, and what is left of the answers without these."
        ),
        notes=describe_left_out(left_out),
        notice=notice,
        report=heads,
    )


def _sections(heads: ArmHeads, title: str) -> Iterator[RecordSection]:
    """Yield the sections: the measure over training, what evidence named, the last step."""
    group = next(iter(heads.report.groups), None)
    matched = (
        f" Heads were matched by their patterns before any number was averaged; they have the "
        f"numbers of {heads.reference}."
        if group
        else ""
    )
    yield RecordSection(
        title,
        lead=f"{describe_seeds(heads.seeds)}.{matched}",
        chart_groups=[ChartGroup("", [head_chart(heads)])],
        notes=[
            "Each cell leads to the head's attention.",
            *(DRIFT_LEGEND if heads.measure == DRIFT else ()),
        ],
    )
    if heads.named:
        yield RecordSection(
            "Which head does the work",
            lead="A head that evidence chose on validation data, and the answers without it.",
            chart_groups=[ChartGroup("", [left_chart(heads)])] if heads.whole else [],
            tables=_named_tables(heads),
            notes=[]
            if any(named.since for named in heads.named)
            else [
                "Since when is not known: the evidence was measured at the end alone; "
                "callbacks.cadence.evidence_every=100 measures it while a run trains."
            ],
        )
    else:
        yield RecordSection(
            "Which head does the work",
            lead="None of these runs recorded evidence that names a head, so nothing here says "
            "which head the answers hang on.",
            commands={
                "Names the strongest heads": command("train", "...", "evidence=heads"),
                "What is left without each head of a run": command("ablate", heads.runs[0]),
            },
        )
    table = _matched_table(heads, group) if group else _run_table(heads, heads.report.runs[0])
    yield RecordSection(
        "All heads after the last step",
        tables=[table],
        notes=[f"{ROLES_LEGEND}. {CAVEAT}"],
        commands={"The same in a terminal": command("heads", *heads.runs)},
    )


def head_chart(heads: ArmHeads) -> Any:
    """Draw the measure of each head over the measured steps."""
    rows = [
        HeadRow(
            head.name,
            attention_address(heads.reference, head.layer, head.head),
            [(step, i.n, i.mean, i.low, i.high) for step, i in head.history.items()],
        )
        for head in heads.heads
    ]
    several = len(heads.runs) > 1
    caption = [
        f"{'mean over ' if several else ''}{describe_seeds(heads.seeds)}; "
        + ("interval in the tooltip: 95 % t-interval" if several else "no interval: one run"),
        "an empty cell: no query allows the measure, or a run lacks it",
    ]
    return draw_head_steps(
        rows,
        _measure_title(heads.measure),
        caption,
        (0.0, 1.0) if heads.measure in SHARES else None,
    )


def left_chart(heads: ArmHeads) -> Any:
    """Draw the answers without each named head beside those of the whole model."""
    assert heads.whole is not None
    assert heads.headline is not None
    named = {
        f"{named.name}: {part}": interval
        for named in heads.named
        for part, interval in named.without.items()
    }
    rows = [
        LeftRow(title, n, mean, low, high, is_whole=title == WHOLE)
        for title, (n, mean, low, high) in {WHOLE: heads.whole, **named}.items()
        if mean is not None
    ]
    caption = [
        f"{describe_seeds(heads.seeds)}; line: {describe_method(SHARE)}",
        f"whole model: {heads.headline}; else the share of right answers",
    ]
    if len(heads.seeds) < 3:
        caption[0] = f"{describe_seeds(heads.seeds)}; no interval: it needs 3 seeds"
    return draw_left_without(rows, "What is left without it", caption, "share of right answers")


def attention_address(run: str, layer: int | None, head: int) -> str:
    """Return the address of the page that shows the attention of a head."""
    fields = {"run": run} | ({} if layer is None else {"layer": layer, "head": head})
    return address_of("/attention", fields)


def _named_tables(heads: ArmHeads) -> list[DataTable]:
    """Return the heads that evidence named, over seeds and then in each run."""
    parts = list(dict.fromkeys(part for named in heads.named for part in named.without))
    means = [
        [
            DataCell(f"{named.evidence}: {named.name}"),
            DataCell(named.role),
            interval_data_cell(named.weight),
            *(interval_data_cell(named.without.get(part)) for part in parts),
        ]
        for named in heads.named
    ]
    has_since = any(named.since for named in heads.named)
    rows = [
        [
            DataCell(f"{named.evidence}: {named.name}"),
            DataCell(run, address=address_of("/run", {"run": run})),
            DataCell(
                str(head),
                _matched_note(heads, run, head),
                attention_address(run, head.layer, head.head),
            ),
            *([DataCell(_step_text(named, run))] if has_since else []),
        ]
        for named in heads.named
        for run, head in named.heads.items()
    ]
    return [
        DataTable(
            "Over seeds",
            ["head", "what it does", "weight", *(f"left without: {part}" for part in parts)],
            means,
            ["; ".join(FINDINGS_LEGEND)],
            texts=["what it does"],
        ),
        DataTable(
            "In each run",
            ["head", "run", "which", *(["since"] if has_since else [])],
            rows,
            [" ".join(SINCE_LEGEND)] if has_since else [],
        ),
    ]


def _matched_note(heads: ArmHeads, run: str, head: HeadRef) -> str:
    """Return which head of the reference a head of a run was matched to."""
    if len(heads.runs) < 2 or run == heads.reference:
        return ""
    place = list(heads.runs).index(run)
    for row in heads.heads:
        if row.layer == head.layer and row.of[place] == head.head:
            return f"matched to {row.name}"
    return ""


def _run_table(heads: ArmHeads, run: RunHeads) -> DataTable:
    """Return the scores and the role of each head of one run."""
    rows = []
    for layer in run.layers:
        for head in layer.heads:
            scores = [
                "-" if score is None else format_number(score, decimals)
                for name in COLUMNS.values()
                for score, decimals in [
                    (head.scores.get(name), 1 if name in ("effective_keys", "distance") else 2)
                ]
            ]
            role, since = _role_texts(head.roles)
            rows.append(
                [
                    _head_cell(heads, layer.layer, layer.name, head.head),
                    *map(DataCell, scores),
                    DataCell(role),
                    DataCell(since),
                ]
            )
    headers = ["head", *COLUMNS, "role", "since"]
    return DataTable(f"Step {run.step}", headers, rows, ["; ".join(LEGEND)])


def _matched_table(heads: ArmHeads, group: MatchedRuns) -> DataTable:
    """Return the measures of matched heads, as means over seeds with their intervals."""
    rows = []
    for layer in group.layers:
        for head in layer.heads:
            role, _ = _role_texts(head.roles)
            rows.append(
                [
                    _head_cell(heads, layer.layer, layer.name, head.head),
                    DataCell(format_number(head.apart, 2)),
                    *(
                        interval_data_cell(head.measures.get(COLUMNS[name]))
                        for name in GROUP_HEADERS
                    ),
                    DataCell(role),
                    DataCell(", ".join(map(str, head.of))),
                ]
            )
    chance = "; ".join(
        f"{'layer ' + str(layer.layer) if layer.layer is not None else layer.name}: apart "
        f"{format_number(layer.apart, 2)}, by chance {format_number(layer.chance, 2)}"
        for layer in group.layers
    )
    notes = [
        f"mean [95 % t-interval] over {describe_seeds(group.seeds)}; apart: distance of matched "
        "patterns (Jensen-Shannon, 0 to 1)",
        chance,
        "; ".join(LEGEND[:-1]),
    ]
    if any(len(layer.heads) > 1 for layer in group.layers):
        notes.append(" ".join(SEVERAL_HEADS_LEGEND))
    headers = ["head", "apart", *GROUP_HEADERS, "role", "number in each run"]
    return DataTable(
        f"Matched by patterns of step {group.step}; measures of step {group.measured}",
        headers,
        rows,
        notes,
    )


def _head_cell(heads: ArmHeads, layer: int | None, path: str, head: int) -> DataCell:
    name = f"{path} {head}" if layer is None else str(HeadRef(layer, head))
    return DataCell(name, address=attention_address(heads.reference, layer, head))


def _role_texts(roles: Sequence[NamedRole]) -> tuple[str, str]:
    """Return the first role of a head, and since when it has it."""
    role = next(iter(roles), None)
    if role is None:
        return "", ""
    return role.role, "-" if role.since is None else str(role.since)


def _step_text(named: NamedHeadOfArm, run: str) -> str:
    if run not in named.since:
        return "not measured"
    step = named.since[run]
    return "-" if step is None else f"step {step}"


def _measure_title(measure: str) -> str:
    title = MEASURES.get(measure)
    name = measure.replace("_", " ")
    return f"{name}: {title}" if title else name
