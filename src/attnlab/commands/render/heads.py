"""The heads of runs in the terminal, and their measures over training as pictures."""

from math import isnan

from rich.table import Table

from attnlab.analysis.head_report import (
    DRIFT,
    HeadHistories,
    HeadReport,
    LayerHeads,
    MatchedLayerHeads,
    MatchedRuns,
    RunHeads,
)
from attnlab.analysis.head_roles import ROLES
from attnlab.analysis.head_table import (
    CAVEAT,
    COLUMNS,
    DRIFT_LEGEND,
    FINDINGS_LEGEND,
    GROUP_HEADERS,
    GROUP_LEGEND,
    LEGEND,
    ROLES_LEGEND,
    SEVERAL_HEADS_LEGEND,
    SINCE_LEGEND,
)
from attnlab.analysis.statistics import Interval
from attnlab.analysis.table import format_number
from attnlab.console import Console

DRAWN_MEASURES = ("previous", "duplicate_token", "prefix_matching", "sink", "normalised_entropy")
ACROSS = 10
"""The number of heads on a line of a history."""


def show_report(console: Console, report: HeadReport) -> None:
    """Print the heads of every run and group, and the runs that were left out."""
    for run_heads in report.runs:
        if run_heads.measure is None:
            _show_run(console, run_heads)
        else:
            _show_history(console, run_heads)
    for group in report.groups:
        _show_group(console, group)
    if any(run_heads.measure is None for run_heads in report.runs) or report.groups:
        console.print(f"{ROLES_LEGEND}\n{CAVEAT}")
    for left_out in report.left_out:
        console.print(f"left out: {left_out.run}: {left_out.reason or left_out.state}")


def draw_head_curves(histories: HeadHistories, measure: str | None, ending: str) -> bytes:
    """Draw a measure of each head over the steps (None: those of roles) as a file's content."""
    # The figures take a while to load, and a table does not need them.
    from attnlab.figures.base import render_chart
    from attnlab.figures.figure_page import figure_page
    from attnlab.figures.head_curves import draw_head_curves

    recorded_measures = {name for by_measure in histories.layers.values() for name in by_measure}
    drawn_measures = [measure] if measure else [m for m in DRAWN_MEASURES if m in recorded_measures]
    thresholds = {role.measure: role.threshold for role in ROLES}
    measures_by_layer = {layer.name: by_measure for layer, by_measure in histories.layers.items()}
    figure = draw_head_curves(
        measures_by_layer, drawn_measures, f"{histories.run}, step {histories.step}", thresholds
    )
    if ending == ".html":
        return figure_page(figure, histories.run).encode()
    return render_chart(figure, ending)


def _show_run(console: Console, run: RunHeads) -> None:
    """Print the scores and the role of each head of a run, layer by layer."""
    console.print(f"{run.run}, step {run.step}", style="bold")
    for layer in run.layers:
        console.print(_layer_title(layer))
        table = _build_table("head", *COLUMNS)
        # Fixed widths align the columns of all layers.
        table.add_column("role", min_width=15)
        table.add_column("since", justify="right", min_width=5)
        for head in layer.heads:
            scores = [
                _format_number(
                    head.scores.get(name), 1 if name in ("effective_keys", "distance") else 2
                )
                for name in COLUMNS.values()
            ]
            role = next(iter(head.roles), None)
            role_cells = ("", "") if role is None else (role.role, str(role.since))
            table.add_row(str(head.head), *scores, *role_cells)
        console.print(table)
    for line in LEGEND:
        console.print(line)
    if any(run.findings.values()):
        _show_findings(console, run)


def _show_findings(console: Console, run: RunHeads) -> None:
    """Print the heads that the evidence of a run named."""
    console.print("heads that evidence named")
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("evidence", "head", "role"):
        table.add_column(name)
    table.add_column("weight", justify="right")
    if run.since:
        table.add_column("since", justify="right")
    table.add_column("left without")
    for evidence, heads in run.findings.items():
        for name, named_head in heads.items():
            accuracies_without = ", ".join(
                f"{removed_part} {format_number(accuracy, 2)}"
                for removed_part, accuracy in named_head.without.items()
            )
            cells = (
                str(named_head.head),
                named_head.role,
                format_number(named_head.weight, 2),
                *([_step_text(run.since.get(evidence, {}).get(name))] if run.since else []),
                accuracies_without,
            )
            table.add_row(evidence, *cells)
    console.print(table)
    for line in (*FINDINGS_LEGEND, *(SINCE_LEGEND if run.since else ())):
        console.print(line)


def _show_history(console: Console, run: RunHeads) -> None:
    """Print a measure of each head over the recorded steps."""
    console.print(f"{run.run}: {run.measure} of each head", style="bold")
    for layer in run.layers:
        if layer.history is None:
            continue
        steps, values_by_step = layer.history.steps.tolist(), layer.history.values.tolist()
        for start in range(0, len(values_by_step[0]), ACROSS):
            console.print(_layer_title(layer))
            table = Table(box=None, pad_edge=False)
            head_ids = range(len(values_by_step[0]))[start:][:ACROSS]
            for header in ("step", *map(str, head_ids)):
                table.add_column(header, justify="right", min_width=5)
            for step, head_values in zip(steps, values_by_step, strict=True):
                table.add_row(
                    str(step), *(_format_number(v, 3) for v in head_values[start:][:ACROSS])
                )
            console.print(table)
    if run.measure == DRIFT:
        for line in DRIFT_LEGEND:
            console.print(line)


def _show_group(console: Console, group: MatchedRuns) -> None:
    """Print the measures of matched heads, as means over seeds."""
    console.print(f"{group.label}: n = {len(group.seeds)} seeds", style="bold")
    console.print(f"heads as in {group.reference}")
    console.print(f"matched by patterns of step {group.step}; measures of step {group.measured}")
    for layer in group.layers:
        distances = (
            f"apart {format_number(layer.apart, 2)}, by chance {format_number(layer.chance, 2)}"
        )
        console.print(f"{_layer_title(layer)}: {distances}")
        table = _build_table("head", "apart", *GROUP_HEADERS, width=8)
        table.add_column("role")
        for head in layer.heads:
            cells = [_format_interval(head.measures.get(COLUMNS[name])) for name in GROUP_HEADERS]
            role = head.roles[0].role.replace(" ", "\n") if head.roles else ""
            table.add_row(str(head.head), format_number(head.apart, 2), *cells, role)
        console.print(table)
    has_several_heads = any(len(layer.heads) > 1 for layer in group.layers)
    for evidence, steps_by_head in group.since.items():
        for name, steps in steps_by_head.items():
            step_texts = ", ".join(map(_step_text, steps))
            console.print(
                f"{evidence} names its head {name} since step {step_texts} (n = {len(steps)})"
            )
    for line in (*GROUP_LEGEND, *(SEVERAL_HEADS_LEGEND if has_several_heads else ())):
        console.print(line)


def _layer_title(layer: LayerHeads | MatchedLayerHeads) -> str:
    """Return the number and the path of a layer; the path alone where it has no number."""
    return layer.name if layer.layer is None else f"layer {layer.layer} {layer.name}"


def _step_text(step: int | None) -> str:
    return "-" if step is None else str(step)


def _format_interval(interval: Interval | None) -> str:
    if interval is None or interval.mean is None or interval.low is None or interval.high is None:
        return "-"
    half_width = (interval.high - interval.low) / 2
    return f"{format_number(interval.mean, 2)}\n± {format_number(half_width, 2)}"


def _format_number(value: float | None, decimals: int) -> str:
    # A measure that no query allows is NaN in a history.
    return "-" if value is None or isnan(value) else format_number(value, decimals)


def _build_table(*headers: str, width: int = 5) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for header in headers:
        min_width = len(header) if header in ("head", "apart") else width
        table.add_column(header, justify="right", min_width=min_width)
    return table
