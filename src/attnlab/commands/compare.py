"""`attnlab compare`: runs over seeds, with intervals and paired differences.

`--format json` prints one object and nothing else; its numbers are not rounded, and what the runs
cannot say (such as the interval of one seed) is null:

    {"schema": 1, "panels": [PANEL], "left_out": [{"run", "state"}]}
    PANEL       dataset, where (keys that set it apart from the dataset's other panels), metric,
                higher_is_better, baseline (the keys of its group; null where it has none),
                groups [GROUP], differences [DIFFERENCE], notes [text]
    GROUP       label, its keys (each at the root, and all under `keys`), n (seeds), seeds,
                runs [name], parameters, active_parameters, flops_per_token, seconds (means),
                metrics {name: {"mean", "low", "high"}}
    DIFFERENCE  group (its label), keys, n (pairs), mean, low, high, p (Holm-corrected)

Without `--by`, a group's keys are variant, num_layers and what else tells the groups apart.
"""

import json
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from rich.measure import Measurement
from rich.table import Table

from attnlab.commands.base import add_selection, compared
from attnlab.console import Console
from attnlab.printable import say
from attnlab.runs.compare import Group, Panel
from attnlab.runs.select import said_of
from attnlab.runs.statistics import Interval
from attnlab.runs.table import Column, columns, legend, title

SCHEMA = 1


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab compare`."""
    add_selection(parser)
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """Print the comparison."""
    selection, panels = compared(arguments)
    left_out = selection.left_out
    if arguments.format == "json":
        panels_json = [_panel_json(panel) for panel in panels]
        whole = {"schema": SCHEMA, "panels": panels_json, "left_out": left_out}
        say(json.dumps(whole, indent=2, allow_nan=False))
        return 0
    console = Console()
    for panel in panels:
        _print(panel, console)
    if left_out:
        console.print(f"left out: {said_of(left_out)}")
    return 0


def _print(panel: Panel, console: Console) -> None:
    console.print(title(panel), style="bold")
    wide = console.options.update(max_width=999)
    made = columns(panel)
    # From roomy to narrow; in the last, the interval goes under its number.
    for layout in ({}, {"gap": 1, "folded": True}, {"gap": 1, "folded": True, "between": "\n"}):
        table = _table(made, **layout)
        if Measurement.get(console, wide, table).maximum <= console.width:
            break
    console.print(table)
    for line in (legend(panel), *panel.notes):
        console.print(line)
    console.print()


def _table(made: Sequence[Column], gap: int = 2, folded: bool = False, between: str = " ") -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for column in made:
        # A header may break where its words meet.
        breaks = folded and column.is_key
        header = re.sub(r"(?<=_)|(?=\.)", "\n", column.header) if breaks else column.header
        table.add_column(header, justify="right" if column.is_count else "left", overflow="fold")
    for row in zip(*(column.cells for column in made), strict=True):
        table.add_row(*(cell.joined(between) for cell in row))
    return table


def _panel_json(panel: Panel) -> dict[str, Any]:
    return {
        "dataset": panel.dataset,
        "where": panel.where,
        "metric": panel.metric,
        "higher_is_better": panel.higher_is_better,
        "baseline": panel.baseline and panel.baseline.keys,
        "groups": [_group_json(group) for group in panel.groups],
        "differences": [
            {"group": group.label, "keys": group.keys, **difference._asdict()}
            for group, difference in panel.differences
        ],
        "notes": panel.notes,
    }


def _group_json(group: Group) -> dict[str, Any]:
    fields = ("parameters", "active_parameters", "flops_per_token", "seconds")
    return {
        "label": group.label,
        **group.keys,
        "keys": group.keys,
        "n": len(group.seeds),
        "seeds": group.seeds,
        "runs": [run.name for run in group.runs],
        **{field: group.mean(field) for field in fields},
        "metrics": {metric: _interval_json(group.over_seeds(metric)) for metric in group.metrics},
    }


def _interval_json(value: Interval) -> dict[str, float | None]:
    return {"mean": value.mean, "low": value.low, "high": value.high}
