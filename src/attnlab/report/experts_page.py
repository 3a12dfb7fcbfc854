"""The served page of experts: how even their load is, over training and at the end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from attnlab.analysis.expert_loads import ExpertLoads, LayerLoads, LoadAtStep
from attnlab.analysis.left_out import LeftOut
from attnlab.analysis.table import format_number
from attnlab.figures.expert_steps import draw_final_load, draw_load_steps
from attnlab.report.page import ChartGroup
from attnlab.report.record_page import (
    Choice,
    DataCell,
    DataTable,
    RecordPage,
    RecordSection,
    command,
    describe_left_out,
)
from attnlab.report.view import PageView


@dataclass(frozen=True)
class ExpertsView(PageView):
    """Whose experts are shown, as the address of the page says it."""

    PATH: ClassVar[str] = "/experts"
    where: str = ""
    run: tuple[str, ...] = ()
    shown: str = ""
    """The run whose layers are drawn; empty for the first with experts."""


def experts_page(
    all_loads: Sequence[ExpertLoads],
    view: ExpertsView,
    left_out: Sequence[LeftOut] = (),
    notice: str | None = None,
) -> RecordPage:
    """Return the page of the experts of some runs, of which one is drawn."""
    names = [loads.run for loads in all_loads]
    shown = next((loads for loads in all_loads if loads.run == view.shown), all_loads[0])
    if notice is None and view.shown and view.shown not in names:
        notice = f"no run with experts here is {view.shown!r}"
    return RecordPage(
        "Experts",
        [_overview(all_loads, view)] if notice else [*_sections(shown), _overview(all_loads, view)],
        [Choice("shown", "run", shown.run, {name: name for name in names})],
        lead=(
            "How the router of each layer shares tokens among the experts. Experts have no common "
            "order over seeds, so each run is drawn by itself."
        ),
        notes=describe_left_out(left_out),
        notice=notice,
        report=shown,
    )


def _sections(loads: ExpertLoads) -> Iterator[RecordSection]:
    """Yield a section for each layer of a run, then how to see which tokens go where."""
    for layer in loads.layers:
        yield RecordSection(
            f"Layer {layer.layer} of experts",
            lead=f"{loads.run}, {layer.name}: {len(_last(layer).load)} experts.",
            chart_groups=[ChartGroup("", layer_charts(loads, layer))],
        )
    yield RecordSection(
        "Which tokens go where",
        lead=(
            "The record has the load alone. Which expert processes which token, how much the token "
            "decides, and which experts share tokens is computed with the model."
        ),
        commands={
            "Load, balance and the most frequent tokens": command("experts", loads.run),
            "The tokens of one layer as a picture": command(
                "experts", loads.run, "--layer", "0", "-o", "tokens.png"
            ),
            "Its summary in the record of new runs": "attnlab train variant=moe evidence=routing",
        },
    )


def layer_charts(loads: ExpertLoads, layer: LayerLoads) -> list[Any]:
    """Draw the load of a layer over the steps and at the end, where they were recorded."""
    charts = []
    if layer.history:
        charts.append(
            draw_load_steps(
                {step: at_step.load for step, at_step in layer.history.items()},
                f"load of each expert, layer {layer.layer}",
                [
                    "one run; the whole validation split at each step, unsmoothed",
                    "no interval: one run; dashed: an equal share",
                ],
            )
        )
    if layer.final is not None:
        charts.append(
            draw_final_load(
                layer.final.load,
                f"load at the end, layer {layer.layer}",
                [
                    f"one run; the whole {loads.split} split",
                    "no interval: one run; dashed: an equal share",
                ],
            )
        )
    return charts


def _overview(all_loads: Sequence[ExpertLoads], view: ExpertsView) -> RecordSection:
    """Return a row for each layer of each run, with what its load comes to."""
    rows = []
    for loads in all_loads:
        cells = [
            [
                DataCell(f"{layer.layer}"),
                DataCell(format_number(_last(layer).balance, 3)),
                DataCell(format_number(max(_last(layer).load), 3)),
                DataCell(format_number(min(_last(layer).load), 3)),
                _dead_cell(_last(layer)),
                _drops_cell(_last(layer)),
            ]
            for layer in loads.layers
        ]
        address = view.address(shown=loads.run)
        first = DataCell(loads.run, address=address, rows=len(cells))
        rows += [[first, *cells[0]], *cells[1:]] if cells else []
    return RecordSection(
        "All runs with experts",
        tables=[
            DataTable(
                "",
                ["run", "layer", "balance", "largest load", "smallest", "dead", "drops"],
                rows,
                [
                    "At the end on the reported split, before that at the last step on validation. "
                    "Balance: the entropy of the load over log(experts), 1 is even. Dead: experts "
                    "without any token. Drops: the share of assignments above capacity."
                ],
            )
        ],
    )


def _last(layer: LayerLoads) -> LoadAtStep:
    """Return the load of a layer at the end, else at its last step."""
    return layer.final or layer.history[max(layer.history)]


def _dead_cell(load: LoadAtStep) -> DataCell:
    if not load.dead:
        return DataCell("0")
    return DataCell(str(len(load.dead)), f"({', '.join(map(str, load.dead))})", tone="bad")


def _drops_cell(load: LoadAtStep) -> DataCell:
    return DataCell("-" if load.drops is None else format_number(load.drops, 3))
