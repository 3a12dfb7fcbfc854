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
import os
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from fnmatch import fnmatchcase
from math import floor, log10
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from attnlab.errors import RequestError
from attnlab.runs.arms import label, shown
from attnlab.runs.compare import Group, Panel, compare
from attnlab.runs.fair import ALLOWANCES
from attnlab.runs.record import Record, find_runs, resolve
from attnlab.runs.statistics import Difference, Interval

SCHEMA = 1


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab compare`."""
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="directories, prefixes or patterns of names"
    )
    parser.add_argument(
        "--runs-dir", type=Path, metavar="DIR", help="default: $ATTNLAB_RUNS, else runs"
    )
    parser.add_argument(
        "--by", nargs="+", metavar="KEY", help="what makes a group; default: all but the seed"
    )
    parser.add_argument("--metric", help="default: the main one of the dataset")
    parser.add_argument("--baseline", metavar="KEY=VALUE,...", help="default: the first group")
    parser.add_argument(
        "--allow",
        nargs="+",
        action="extend",
        choices=ALLOWANCES,
        default=[],
        help="compare although these differ between groups, or within one (mixed)",
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """Print the comparison."""
    runs_dir = arguments.runs_dir or Path(os.environ.get("ATTNLAB_RUNS", "runs"))
    results, left_out = {}, []
    for record in _select(arguments.runs, runs_dir):
        if (result := record.result) is not None:
            results[str(record.path) if record.name in results else record.name] = result
        else:
            left_out.append({"run": record.name, "state": record.state})
    if not results:
        raise RequestError(f"no run is finished: {_said(left_out)}; train them to the end")
    panels = compare(
        results,
        by=arguments.by,
        metric=arguments.metric,
        baseline=arguments.baseline,
        allow=arguments.allow,
    )
    if arguments.format == "json":
        panels_json = [_panel_json(panel) for panel in panels]
        whole = {"schema": SCHEMA, "panels": panels_json, "left_out": left_out}
        print(json.dumps(whole, indent=2, allow_nan=False))
        return 0
    console = Console(highlight=False, markup=False, emoji=False)
    for panel in panels:
        _print(panel, console)
    if left_out:
        console.print(f"left out: {_said(left_out)}")
    return 0


def _select(words: Sequence[str], runs_dir: Path) -> list[Record]:
    records = [] if words else find_runs(runs_dir)
    for word in words:
        named = [] if Path(word).exists() else re.findall(r"[*?[]", word)
        found = [r for r in find_runs(runs_dir) if fnmatchcase(r.name, word)] if named else []
        if named and not found:
            raise RequestError(f"no run in {runs_dir} has a name like {word!r}")
        records += found or [resolve(word, runs_dir)]
    if not records:
        raise RequestError(
            f"{runs_dir} holds no runs; `attnlab train` makes some, --runs-dir looks elsewhere"
        )
    return list({record.path.resolve(): record for record in records}.values())


def _said(left_out: Sequence[dict[str, str]]) -> str:
    """Count and list the runs without a result."""
    failed = [entry["run"] for entry in left_out if entry["state"] == "failed"]
    others = [f"{e['run']} ({e['state']})" for e in left_out if e["state"] != "failed"]
    parts = [(others, "not finished"), (failed, "failed")]
    return "; ".join(f"{len(runs)} {what}: {', '.join(runs)}" for runs, what in parts if runs)


def _print(panel: Panel, console: Console) -> None:
    best = "higher is better" if panel.higher_is_better else "lower is better"
    keys = [key for key in panel.columns if len({shown(g.keys[key]) for g in panel.groups}) > 1]
    keys = keys or list(panel.columns)
    # What is the same in every row is said once.
    same = {key: panel.groups[0].keys[key] for key in panel.columns if key not in keys}
    where = label({**panel.where, **same})
    title = f"{panel.dataset}{where and ' at '}{where}: {panel.metric} ({best})"
    console.print(title, style="bold")
    wide = console.options.update(max_width=999)
    # From roomy to narrow; in the last, the interval goes under its number.
    for layout in ({}, {"gap": 1, "folded": True}, {"gap": 1, "folded": True, "between": "\n"}):
        table = _table(panel, keys, **layout)
        if Measurement.get(console, wide, table).maximum <= console.width:
            break
    console.print(table)
    said = ["mean over n seeds [95 % t-interval]"]
    if panel.differences:
        said.append("difference to the baseline, paired by seed")
    if tested := sum(difference.p is not None for _, difference in panel.differences):
        said.append(f"p of the paired t-test, Holm-corrected for {tested} of them")
    for line in ("; ".join(said), *panel.notes):
        console.print(line)
    console.print()


def _table(
    panel: Panel, keys: Sequence[str], gap: int = 2, folded: bool = False, between: str = " "
) -> Table:
    differences = {id(group): difference for group, difference in panel.differences}
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for key in keys:
        # A header may break where its words meet.
        header = re.sub(r"(?<=_)|(?=\.)", "\n", key) if folded else key
        table.add_column(header, overflow="fold")
    table.add_column("n", justify="right", overflow="fold")
    table.add_column(panel.metric.rpartition("/")[2], overflow="fold")
    if differences:
        table.add_column("difference", overflow="fold")
        table.add_column("p", justify="right", overflow="fold")
    table.add_column("size", justify="right", overflow="fold")
    for group in panel.groups:
        cells = [
            *(shown(group.keys[key]) for key in keys),
            str(len(group.seeds)),
            _with_interval(group.over_seeds(panel.metric), between),
        ]
        if differences:
            difference = differences.get(id(group))
            at_base = "baseline" if group is panel.baseline else "-"
            cells.append(_with_interval(difference, between, "+") if difference else at_base)
            cells.append(_p_value(difference.p) if difference else "")
        table.add_row(*cells, _count(group.mean("parameters")))
    return table


def _with_interval(value: Interval | Difference, between: str, sign: str = "") -> str:
    """Write `.998 [.995, 1.000]`, with two digits of the interval's width."""
    if value.mean is None:
        return "no shared seed"
    if value.low is None or value.high is None:
        return _number(value.mean, 4, sign)
    width = value.high - value.low
    decimals = min(5, max(0, 1 - floor(log10(width)))) if width else 4
    low, high = _number(value.low, decimals), _number(value.high, decimals)
    return f"{_number(value.mean, decimals, sign)}{between}[{low}, {high}]"


def _number(value: float, decimals: int, sign: str = "") -> str:
    return re.sub(r"^([+-]?)0\.", r"\1.", f"{value:{sign}.{decimals}f}")


def _p_value(p: float | None) -> str:
    if p is None:
        return "-"
    return "0" if p == 0 else "<.001" if p < 0.001 else _number(p, 3)


def _count(number: int | float) -> str:
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


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
