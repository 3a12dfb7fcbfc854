"""`attnlab heads`: what is measured of every head, over training and over seeds.

One RUN is shown by itself, finished or not. Of several, those that differ in their seed alone are a
group, as in `attnlab compare`: their heads are matched (`attnlab.evidence.seeds`) before any number
is averaged. `--format json` prints one object; what was not measured, or hangs on it, is null:

    {"schema": 1, "runs": [RUN], "groups": [GROUP], "left_out": [{"run", "why"}]}
    RUN     run, step (the last measured), layers [{"layer" (from 0), "name", "heads": [{"head",
            "scores": {measure: number}, "roles": [ROLE and "since"]}]}]; with --measure each layer
            also has course {"steps", "values" (a list for each step, a number for each head)}; and
            recall, what `evidence=recall` found when the run ended: {"whole", "behind", "read" and
            "gather": {"layer", "head", "weight", "role", "without", "without_mean"}}
    GROUP   label, runs, seeds, reference (the run whose heads give the numbers), step (of the
            patterns that were matched), measured (the step of the measures), layers [{"layer",
            "name", "apart" (mean of the heads), "chance" (mean of all pairs), "heads": [{"head",
            "of" (its number in each run), "apart", "measures": {measure: {"n", "mean", "low",
            "high"}}, "roles": [ROLE] (of the means)}]}]
    ROLE    role, measure, threshold, source; since: the first measured step from which on the score
            stays above the threshold
"""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

from rich.table import Table

from attnlab.commands.base import require_picture
from attnlab.commands.options import add_runs_dir, path_option
from attnlab.console import Console
from attnlab.environment import default_runs_dir
from attnlab.errors import RequestError
from attnlab.evidence.roles import EVEN, MOST, ROLES, Role, recalled, roles, since
from attnlab.evidence.seeds import Measures, matched
from attnlab.printable import say
from attnlab.runs import write
from attnlab.runs.arms import FIRST, Run, by_value, flatten, label, label_keys, nearest
from attnlab.runs.heads import head_scores
from attnlab.runs.patterns import INFLUENCE, TABLE
from attnlab.runs.record import Record, resolve
from attnlab.runs.select import Selection, select, without_damage
from attnlab.runs.table import number

SCHEMA = 1
PICTURES = (".html", ".pdf", ".png", ".svg")
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
OF_GROUPS = (
    "mean ± half of the 95 % t-interval over seeds, columns as of one run; apart:",
    "distance of matched patterns (Jensen-Shannon, 0 to 1).",
)
OF_SEVERAL = (
    "A match is the best of all, so it is below chance even where heads have nothing",
    "in common.",
)
NAMED = f"roles: most of the weight (> {number(MOST, 1)}); broad: entropy > {number(EVEN, 1)}"
CAVEAT = "Roles are names for scores, not proof: ablate."
Scores = Mapping[str, Measures]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab heads`."""
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="directories, prefixes or patterns of names"
    )
    add_runs_dir(parser)
    parser.add_argument("--measure", metavar="NAME", help="the course of one measure, of one run")
    parser.add_argument(
        "-o",
        "--output",
        type=path_option,
        metavar="FILE",
        help=f"draw measures of one run over its steps: {', '.join(PICTURES)}",
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """Print the heads, or draw them."""
    if arguments.output is not None:
        require_picture(arguments.output, PICTURES, arguments.format)
    selection = _selected(arguments)
    arms, left_out = _arms(selection)
    course = arguments.measure is not None or arguments.output is not None
    if course and (len(arms) > 1 or len(next(iter(arms.values()))) > 1):
        option = "--measure" if arguments.output is None else "--output"
        count = sum(map(len, arms.values()))
        raise RequestError(f"{option} is about one run, and {count} were named; name one of them")
    runs, groups, unmatched, scores = [], [], [], {}
    for name, records in arms.items():
        if len(records) == 1:
            scores = head_scores(records[0])
            ended = (records[0].result or {}).get("metrics", {})
            found = _run(records[0].name, scores, arguments.measure)
            runs.append(found | {"recall": recalled(ended)})
            continue
        try:
            groups.append(_group(name, records))
        except ValueError as error:
            unmatched.append(f"{name}: {error}")
            left_out += [{"run": record.name, "why": str(error)} for record in records]
    if not runs and not groups:
        raise RequestError("\n  ".join(unmatched))
    if arguments.output is not None:
        content = _picture(scores, runs[0], arguments.measure, arguments.output.suffix)
        write.replace(arguments.output, content)
        say(arguments.output)
        return 0
    if arguments.format == "json":
        whole = {"schema": SCHEMA, "runs": runs, "groups": groups, "left_out": left_out}
        say(json.dumps(whole, indent=2, allow_nan=False))
        return 0
    console = Console()
    for found in runs:
        (_show_run if arguments.measure is None else _show_course)(console, found)
    for found in groups:
        _show_group(console, found)
    if arguments.measure is None:
        console.print(f"{NAMED}\n{CAVEAT}")
    for left in left_out:
        console.print(f"left out: {left['run']}: {left['why']}")
    return 0


def _selected(arguments: Namespace) -> Selection:
    """Find the runs; one that is named by itself need not be finished."""
    words = arguments.runs
    if len(words) == 1 and not (set(words[0]) & set("*?[") and not Path(words[0]).exists()):
        runs_dir = arguments.runs_dir or default_runs_dir()
        record = resolve(words[0], runs_dir)
        return Selection({record.name: record}, {}, [])
    return without_damage(select(words, arguments.runs_dir))


def _arms(selection: Selection) -> tuple[dict[str, list[Record]], list[dict[str, str]]]:
    """Part the records by all but their seed, and leave those out that have nothing to show."""
    left_out = [{"run": left["run"], "why": left["state"]} for left in selection.left_out]
    lacking = {name: _lack(record) for name, record in selection.records.items()}
    there = {name: r for name, r in selection.records.items() if lacking[name] is None}
    without = {name: why for name, why in lacking.items() if why is not None}
    if not there:
        raise RequestError("\n  ".join(f"{name} {why}" for name, why in without.items()))
    left_out += [{"run": name, "why": why} for name, why in without.items()]
    if not selection.results:
        return {name: [record] for name, record in there.items()}, left_out
    runs = [Run(name, r, flatten(r)) for name, r in selection.results.items() if name in there]
    arms = by_value(runs, lambda run: run.arm)
    telling = label_keys([arm[0].config for arm in arms])
    parted: dict[str, list[Record]] = {}
    for arm in arms:
        arm = sorted(arm, key=lambda run: run.result["seed"])
        for one, other in pairwise(arm):
            if one.result["seed"] == other.result["seed"]:
                raise RequestError(
                    f"{one.name} and {other.name} are the same run twice (seed "
                    f"{one.result['seed']}); name the runs, with one of them"
                )
            if one.result["data_hash"] != other.result["data_hash"]:
                raise RequestError(
                    f"{one.name} and {other.name} were not trained on the same data, so their "
                    "heads cannot be matched; name others"
                )
        said = label(arm[0].at(dict.fromkeys(["dataset", *FIRST, *telling])))
        parted[said] = [there[run.name] for run in arm]
    return parted, left_out


def _lack(record: Record) -> str | None:
    """Say why a run has no measures of heads, if it has none."""
    if record.rows("heads").num_rows:
        return None
    table = record.rows(TABLE)
    sources = set(table["source"].unique().to_pylist()) if "source" in table.column_names else set()
    callbacks = record.identity.get("callbacks") or {}
    every = (callbacks.get("clock") or {}).get("statistics_every")
    measuring = every is not None and callbacks.get("statistics") is not None
    if sources == {INFLUENCE} or (measuring and not sources and record.result is not None):
        return "has no attention heads"
    return (
        "recorded no measures of its heads; train with callbacks.clock.statistics_every=100 to "
        "have them every 100 steps"
    )


def _run(name: str, scores: Scores, measure: str | None) -> dict[str, Any]:
    layers, steps = [], set()
    known = list(dict.fromkeys(name for measures in scores.values() for name in measures))
    if measure is not None and measure not in known:
        raise RequestError(f"--measure {measure}: {nearest(measure, known)}")
    for at, (path, measures) in enumerate(scores.items()):
        last = {of: values[-1].tolist() for of, (_, values) in measures.items()}
        steps |= {int(taken[-1]) for taken, _ in measures.values()}
        heads = []
        for head in range(len(next(iter(last.values())))):
            own = {of: _finite(values[head]) for of, values in last.items()}
            named = [
                {**_role(role), "since": since(role, measures[role.measure], head)}
                for role in roles(own)
            ]
            heads.append({"head": head, "scores": own, "roles": named})
        layer = {"layer": at, "name": path, "heads": heads}
        if measure is not None and measure in measures:
            taken, values = measures[measure]
            rows = [[_finite(value) for value in row] for row in values.tolist()]
            layer["course"] = {"steps": taken.tolist(), "values": rows}
        layers.append(layer)
    about = {"run": name, "step": max(steps)}
    return about | ({} if measure is None else {"measure": measure}) | {"layers": layers}


def _group(name: str, records: Sequence[Record]) -> dict[str, Any]:
    """Match the heads of a group. Raises ValueError where they cannot be."""
    found, layers = matched(records), []
    for at, (path, layer) in enumerate(found.layers.items()):
        heads = []
        for head, apart in enumerate(layer.apart.tolist()):
            means = {of: over[head].mean for of, over in layer.measures.items()}
            heads.append(
                {
                    "head": head,
                    "of": layer.heads[:, head].tolist(),
                    "apart": apart,
                    "measures": {of: v[head]._asdict() for of, v in layer.measures.items()},
                    "roles": [_role(role) for role in roles(means)],
                }
            )
        apart = float(layer.apart.mean())
        alike = {"apart": apart, "chance": layer.chance}
        layers.append({"layer": at, "name": path, **alike, "heads": heads})
    return {
        "label": name,
        "runs": [record.name for record in records],
        "seeds": [record.identity["seed"] for record in records],
        "reference": records[found.reference].name,
        "step": found.step,
        "measured": found.measured,
        "layers": layers,
    }


def _role(role: Role) -> dict[str, Any]:
    fields = role._asdict()
    return {"role": fields.pop("name"), **fields}


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None


def _show_run(console: Console, found: Mapping[str, Any]) -> None:
    console.print(f"{found['run']}, step {found['step']}", style="bold")
    for layer in found["layers"]:
        console.print(f"layer {layer['layer']} {layer['name']}")
        table = _table("head", *COLUMNS)
        # So that the columns of all layers stand below each other.
        table.add_column("role", min_width=15)
        table.add_column("since", justify="right", min_width=5)
        for head in layer["heads"]:
            scores = [
                _said(head["scores"].get(of), 1 if of in ("effective_keys", "distance") else 2)
                for of in COLUMNS.values()
            ]
            role = next(iter(head["roles"]), {"role": "", "since": ""})
            table.add_row(str(head["head"]), *scores, role["role"], str(role["since"]))
        console.print(table)
    for line in LEGEND:
        console.print(line)
    if found["recall"] is not None:
        _show_recall(console, found["recall"])


def _show_recall(console: Console, found: Mapping[str, Any]) -> None:
    console.print(f"recall: {number(found['whole'], 2)} right; at the places that matter for it")
    table = _table("head", "weight", "without", "mean", width=6)
    table.add_column("role")
    for name in ("read", "gather"):
        if head := found.get(name):
            numbers = [number(head[of], 2) for of in ("weight", "without", "without_mean")]
            table.add_row(f"L{head['layer']}H{head['head']}", *numbers, head["role"])
    console.print(table)
    behind = found["behind"]
    console.print(f"weight: from what asks to what stands {behind} behind its earlier occurrence,")
    console.print("and from there to key and answer; without: right without the head; mean: with")
    console.print("its mean pattern")


def _show_course(console: Console, found: Mapping[str, Any]) -> None:
    console.print(f"{found['run']}: {found['measure']} of each head", style="bold")
    for layer in found["layers"]:
        if "course" not in layer:
            continue
        steps, values = layer["course"]["steps"], layer["course"]["values"]
        for start in range(0, len(values[0]), ACROSS):
            console.print(f"layer {layer['layer']} {layer['name']}")
            table = Table(box=None, pad_edge=False)
            shown = range(len(values[0]))[start:][:ACROSS]
            for header in ("step", *map(str, shown)):
                table.add_column(header, justify="right", min_width=5)
            for step, row in zip(steps, values, strict=True):
                table.add_row(str(step), *(_said(v, 3) for v in row[start:][:ACROSS]))
            console.print(table)


def _show_group(console: Console, found: Mapping[str, Any]) -> None:
    console.print(f"{found['label']}: n = {len(found['seeds'])} seeds", style="bold")
    console.print(f"heads as in {found['reference']}")
    console.print(
        f"matched by patterns of step {found['step']}; measures of step {found['measured']}"
    )
    for layer in found["layers"]:
        alike = f"apart {number(layer['apart'], 2)}, by chance {number(layer['chance'], 2)}"
        console.print(f"layer {layer['layer']} {layer['name']}: {alike}")
        table = _table("head", "apart", *OVER_SEEDS, width=8)
        table.add_column("role")
        for head in layer["heads"]:
            cells = [_over(head["measures"].get(COLUMNS[name])) for name in OVER_SEEDS]
            role = next(iter(head["roles"]), {"role": ""})["role"].replace(" ", "\n")
            table.add_row(str(head["head"]), number(head["apart"], 2), *cells, role)
        console.print(table)
    several = any(len(layer["heads"]) > 1 for layer in found["layers"])
    for line in (*OF_GROUPS, *(OF_SEVERAL if several else ())):
        console.print(line)


def _over(found: Mapping[str, Any] | None) -> str:
    if found is None or found["mean"] is None:
        return "-"
    half = (found["high"] - found["low"]) / 2
    return f"{number(found['mean'], 2)}\n± {number(half, 2)}"


def _said(value: float | None, decimals: int) -> str:
    return "-" if value is None else number(value, decimals)


def _table(*numbers: str, width: int = 5) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in numbers:
        room = len(name) if name in ("head", "apart") else width
        table.add_column(name, justify="right", min_width=room)
    return table


def _picture(scores: Scores, found: Mapping[str, Any], measure: str | None, ending: str) -> bytes:
    # The figures take a while to load, and a table needs none.
    from attnlab.figures.base import drawn
    from attnlab.figures.embeddings import page
    from attnlab.figures.heads import heads

    there = {name for measures in scores.values() for name in measures}
    measures = [measure] if measure else [name for name in DRAWN if name in there]
    thresholds = {role.measure: role.threshold for role in ROLES}
    layers = {f"layer {at}": of_layer for at, of_layer in enumerate(scores.values())}
    figure = heads(layers, measures, f"{found['run']}, step {found['step']}", thresholds)
    if ending == ".html":
        return page(figure, found["run"]).encode()
    return drawn(figure, ending)
