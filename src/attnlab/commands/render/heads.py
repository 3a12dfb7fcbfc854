"""The heads of runs in the terminal, and drawn over training."""

from collections.abc import Mapping
from math import isnan

from rich.table import Table

from attnlab.analysis.head_report import (
    DRIFT,
    HeadCourses,
    HeadReport,
    MatchedRuns,
    RunHeads,
)
from attnlab.analysis.head_roles import EVEN, MOST, ROLES
from attnlab.analysis.statistics import Interval
from attnlab.analysis.table import number
from attnlab.console import Console
from attnlab.run_record.finding import NamedHead

COLUMNS = {
    "prev.": "previous",
    "curr.": "current",
    "dupl.": "duplicate_token",
    "prefix": "prefix_matching",
    "sink": "sink",
    "entropy": "normalised_entropy",
    "keys": "effective_keys",
    "dist.": "distance",
}
"""The measures of a run, by what stands above them."""
OVER_SEEDS = ("prev.", "dupl.", "prefix", "sink", "entropy")
DRAWN = ("previous", "duplicate_token", "prefix_matching", "sink", "normalised_entropy")
ACROSS = 10
"""Heads that a line of a course has room for."""
LEGEND = (
    "prev., curr., dupl.: weight of the previous, the current, earlier same tokens",
    "prefix: of what followed those, where there are any; sink: of the first four",
    "entropy: 0 to 1; keys: as many with equal weight; dist.: in tokens",
    "since: the measured step from which on the score of the role stays high",
)
OF_FINDINGS = (
    "weight: attention that the head pays where its role says, 0 to 1",
    "left without: the share of right answers where that is taken away",
)
OF_GROUPS = (
    "mean ± half of the 95 % t-interval over seeds, columns as of one run; apart:",
    "distance of matched patterns (Jensen-Shannon, 0 to 1).",
)
OF_SEVERAL = (
    "A match is the best of all, so it is below chance even where heads have nothing",
    "in common.",
)
OF_DRIFT = (
    "drift: the Jensen-Shannon distance of each row to that of the recorded step",
    "before, 0 to 1, mean over the queries of all probes",
)
NAMED = f"roles: most of the weight (> {number(MOST, 1)}); broad: entropy > {number(EVEN, 1)}"
CAVEAT = "Roles are names for scores, not proof: ablate."


def show_report(console: Console, report: HeadReport) -> None:
    """Print the heads of every run and group, and who was left out."""
    for heads in report.runs:
        if heads.measure is None:
            _show_run(console, heads)
        else:
            _show_course(console, heads)
    for group in report.groups:
        _show_group(console, group)
    if any(heads.measure is None for heads in report.runs) or report.groups:
        console.print(f"{NAMED}\n{CAVEAT}")
    for left in report.left_out:
        console.print(f"left out: {left.run}: {left.why}")


def picture(courses: HeadCourses, measure: str | None, ending: str) -> bytes:
    """Draw a measure of each head over the steps (None: those that name heads), as a file."""
    # The figures take a while to load, and a table needs none.
    from attnlab.figures.base import drawn
    from attnlab.figures.embeddings import page
    from attnlab.figures.heads import heads

    measured = {name for measures in courses.layers.values() for name in measures}
    measures = [measure] if measure else [name for name in DRAWN if name in measured]
    thresholds = {role.measure: role.threshold for role in ROLES}
    layers = {layer.name: of_layer for layer, of_layer in courses.layers.items()}
    figure = heads(layers, measures, f"{courses.run}, step {courses.step}", thresholds)
    if ending == ".html":
        return page(figure, courses.run).encode()
    return drawn(figure, ending)


def _show_run(console: Console, run: RunHeads) -> None:
    console.print(f"{run.run}, step {run.step}", style="bold")
    for layer in run.layers:
        console.print(f"layer {layer.layer} {layer.name}")
        table = _table("head", *COLUMNS)
        # So that the columns of all layers stand below each other.
        table.add_column("role", min_width=15)
        table.add_column("since", justify="right", min_width=5)
        for head in layer.heads:
            scores = [
                _number(head.scores.get(name), 1 if name in ("effective_keys", "distance") else 2)
                for name in COLUMNS.values()
            ]
            role = next(iter(head.roles), None)
            named = ("", "") if role is None else (role.role, str(role.since))
            table.add_row(str(head.head), *scores, *named)
        console.print(table)
    for line in LEGEND:
        console.print(line)
    if any(run.findings.values()):
        _show_findings(console, run.findings)


def _show_findings(console: Console, findings: Mapping[str, Mapping[str, NamedHead]]) -> None:
    console.print("heads that evidence named")
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("evidence", "head", "role"):
        table.add_column(name)
    table.add_column("weight", justify="right")
    table.add_column("left without")
    for evidence, heads in findings.items():
        for named in heads.values():
            left = ", ".join(f"{what} {number(n, 2)}" for what, n in named.without.items())
            cells = (str(named.head), named.role, number(named.weight, 2), left)
            table.add_row(evidence, *cells)
    console.print(table)
    for line in OF_FINDINGS:
        console.print(line)


def _show_course(console: Console, run: RunHeads) -> None:
    console.print(f"{run.run}: {run.measure} of each head", style="bold")
    for layer in run.layers:
        if layer.course is None:
            continue
        steps, values = layer.course.steps.tolist(), layer.course.values.tolist()
        for start in range(0, len(values[0]), ACROSS):
            console.print(f"layer {layer.layer} {layer.name}")
            table = Table(box=None, pad_edge=False)
            numbers = range(len(values[0]))[start:][:ACROSS]
            for header in ("step", *map(str, numbers)):
                table.add_column(header, justify="right", min_width=5)
            for step, row in zip(steps, values, strict=True):
                table.add_row(str(step), *(_number(v, 3) for v in row[start:][:ACROSS]))
            console.print(table)
    if run.measure == DRIFT:
        for line in OF_DRIFT:
            console.print(line)


def _show_group(console: Console, group: MatchedRuns) -> None:
    console.print(f"{group.label}: n = {len(group.seeds)} seeds", style="bold")
    console.print(f"heads as in {group.reference}")
    console.print(f"matched by patterns of step {group.step}; measures of step {group.measured}")
    for layer in group.layers:
        alike = f"apart {number(layer.apart, 2)}, by chance {number(layer.chance, 2)}"
        console.print(f"layer {layer.layer} {layer.name}: {alike}")
        table = _table("head", "apart", *OVER_SEEDS, width=8)
        table.add_column("role")
        for head in layer.heads:
            cells = [_over_seeds(head.measures.get(COLUMNS[name])) for name in OVER_SEEDS]
            role = head.roles[0].role.replace(" ", "\n") if head.roles else ""
            table.add_row(str(head.head), number(head.apart, 2), *cells, role)
        console.print(table)
    several = any(len(layer.heads) > 1 for layer in group.layers)
    for line in (*OF_GROUPS, *(OF_SEVERAL if several else ())):
        console.print(line)


def _over_seeds(value: Interval | None) -> str:
    if value is None or value.mean is None or value.low is None or value.high is None:
        return "-"
    half = (value.high - value.low) / 2
    return f"{number(value.mean, 2)}\n± {number(half, 2)}"


def _number(value: float | None, decimals: int) -> str:
    # What no query could have is NaN in a course.
    return "-" if value is None or isnan(value) else number(value, decimals)


def _table(*numbers: str, width: int = 5) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in numbers:
        room = len(name) if name in ("head", "apart") else width
        table.add_column(name, justify="right", min_width=room)
    return table
