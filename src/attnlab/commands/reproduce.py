"""`attnlab reproduce`: run a paper's recipe and judge each claim.

With `--format json`, a list of objects, one for each claim, and nothing else on standard output:

    paper, claim (NAME/ARM), scale, verdict ("holds", "fails" or "not_run"), theirs (text),
    ours (the mean; null where nothing was run), n (seeds), then low and high (the 95 % interval;
    null where there is none), needed (seeds), tolerance (text) and note (text)
"""

import json
import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from attnlab.errors import RequestError
from attnlab.reproduce import readme, results
from attnlab.reproduce.judge import Verdict, judge
from attnlab.reproduce.recipe import (
    SCALES,
    Recipe,
    experiments_dir,
    papers,
    recipes,
    shipped_dir,
)
from attnlab.runs.write import make_directory, replace

EPILOG = """\
examples:
  attnlab reproduce                       every claim, by the committed results
  attnlab reproduce pronoun               train what is missing, judge, write
  attnlab reproduce pronoun --judge       judge the results that are there
  attnlab reproduce pronoun --seeds 1 -o try

The same command again goes on where it was interrupted. Results and README.md go
beside the recipe; of a recipe inside an installed package, to
experiments-results/PAPER. Exit code 1: a claim fails or a run failed.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab reproduce`."""
    from argparse import RawDescriptionHelpFormatter

    parser.formatter_class, parser.epilog = RawDescriptionHelpFormatter, EPILOG
    parser.add_argument("paper", nargs="?", metavar="PAPER", help="default: list all claims")
    parser.add_argument("--scale", choices=SCALES, help="on a CPU or a GPU; default: check")
    parser.add_argument("--seeds", type=int, metavar="N", help="0 to N-1; default: the recipe's")
    parser.add_argument("-j", "--jobs", type=int, metavar="N", help="runs at once; default: cores")
    parser.add_argument("--judge", action="store_true", help="train nothing")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="where results go")
    parser.add_argument("--runs-dir", type=Path, metavar="DIR", help="where runs go")
    parser.add_argument("--experiments", type=Path, metavar="DIR", help="recipes of your own")
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """List what is known of every claim, or run and judge one paper."""
    experiments = arguments.experiments or experiments_dir()
    if arguments.paper is None:
        return _list(experiments, arguments)
    found = recipes(experiments, arguments.paper)
    scale = arguments.scale or "check"
    if scale not in found:
        raise RequestError(
            f"{arguments.paper} has no recipe at --scale {scale}; there is {', '.join(found)}"
        )
    recipe = found[scale]
    output = _output(recipe, arguments.output)
    seeds = _seeds(recipe, arguments)
    told = Console(highlight=False, soft_wrap=True, stderr=arguments.format == "json")
    if not arguments.judge:
        # Lightning takes seconds to import, so a wrong request is refused before that.
        from attnlab.reproduce.figures import draw
        from attnlab.reproduce.run import reproduce

        try:
            made = reproduce(
                recipe, seeds, _runs_dir(recipe, arguments), _jobs(recipe, arguments), told
            )
        except KeyboardInterrupt:
            told.print("interrupted; the same command goes on from there")
            return 130
        results.write(output, made)
        draw(recipe, _records(made, _runs_dir(recipe, arguments)), output)
    kept = {
        scale: results.read(output, scale) or results.read(recipe.folder, scale) for scale in found
    }
    make_directory(output)
    replace(output / "README.md", readme.text(found, kept, output).encode())
    verdicts = judge(recipe, kept[scale])
    _tell([(recipe, verdicts)], arguments.format)
    arms = (kept[scale] or {"arms": {}})["arms"].values()
    bad = any(v.verdict == "fails" for v in verdicts) or any(arm["failed"] for arm in arms)
    if arguments.format == "table":
        print(output / "README.md")
    return 1 if bad else 0


def _list(experiments: Path, arguments: Namespace) -> int:
    options = {"--seeds": "seeds", "--jobs": "jobs", "--judge": "judge", "--output": "output"}
    if given := [word for word, name in options.items() if getattr(arguments, name)]:
        raise RequestError(f"{', '.join(given)} needs a PAPER: {', '.join(papers(experiments))}")
    found = [
        (recipe, judge(recipe, results.read(recipe.folder, recipe.scale)))
        for paper in papers(experiments)
        for recipe in recipes(experiments, paper).values()
        if arguments.scale in (None, recipe.scale)
    ]
    _tell(found, arguments.format)
    return 0


def _output(recipe: Recipe, given: Path | None) -> Path:
    if given is not None:
        return given
    if recipe.folder.parent == shipped_dir():
        return Path("experiments-results") / recipe.paper
    return recipe.folder


def _seeds(recipe: Recipe, arguments: Namespace) -> int:
    seeds = recipe.seeds if arguments.seeds is None else arguments.seeds
    if seeds < 1:
        raise RequestError(f"--seeds {seeds} must be at least 1")
    if arguments.judge and arguments.seeds is not None:
        raise RequestError("--judge takes the seeds that were run; leave --seeds out")
    if seeds != recipe.seeds and arguments.output is None:
        raise RequestError(
            f"--seeds {seeds}: the claims were committed with {recipe.seeds} seeds; "
            "name another place for these results with -o DIR"
        )
    return seeds


def _jobs(recipe: Recipe, arguments: Namespace) -> int:
    # A recipe for a GPU has it for each run alone.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jobs = arguments.jobs
    if jobs is None:
        jobs = (cores or 1) if recipe.scale == "check" else 1
    if jobs < 1:
        raise RequestError(f"--jobs {jobs} must be at least 1")
    return jobs


def _runs_dir(recipe: Recipe, arguments: Namespace) -> Path:
    root = Path(os.environ.get("ATTNLAB_RUNS", "runs"))
    return arguments.runs_dir or root / "reproduce" / f"{recipe.paper}-{recipe.scale}"


def _records(made: dict[str, Any], runs_dir: Path) -> dict[str, list[Any]]:
    """Give the record of each finished run, by its arm."""
    from attnlab.runs.record import Record

    return {
        label: [Record(runs_dir / run["name"]) for run in arm["runs"]]
        for label, arm in made["arms"].items()
    }


def _tell(found: list[tuple[Recipe, list[Verdict]]], how: str) -> None:
    if how == "json":
        objects = [_json(recipe, v) for recipe, verdicts in found for v in verdicts]
        print(json.dumps(objects, indent=2, allow_nan=False))
        return
    console = Console(highlight=False, markup=False, emoji=False)
    for recipe, verdicts in found:
        counts = [
            (sum(v.verdict == of for v in verdicts), of) for of in ("holds", "fails", "not_run")
        ]
        said = ", ".join(f"{count} {of}" for count, of in counts if count)
        console.print(f"{recipe.paper}, scale {recipe.scale}: {said}", style="bold")
        console.print(_table(verdicts))
        for note in dict.fromkeys(verdict.note for verdict in verdicts if verdict.note):
            names = ", ".join(v.claim.name for v in verdicts if v.note == note)
            console.print(f"{names}: {note}")
        console.print()
    console.print("ours: mean [95 % t-interval] over n of the seeds that a claim needs")


def _table(verdicts: list[Verdict]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("claim", "tolerance", "ours", "n", "verdict"):
        table.add_column(name, overflow="fold", no_wrap=name in ("claim", "n", "verdict"))
    for verdict in verdicts:
        n = f"{verdict.ours.n}/{verdict.needed}"
        ours = readme.with_interval(verdict.ours)
        table.add_row(verdict.claim.name, str(verdict.claim.bound), ours, n, verdict.verdict)
    return table


def _json(recipe: Recipe, verdict: Verdict) -> dict[str, Any]:
    n, mean, low, high = verdict.ours
    return {
        "paper": recipe.paper,
        "claim": verdict.claim.name,
        "scale": recipe.scale,
        "verdict": verdict.verdict,
        "theirs": verdict.claim.theirs,
        "ours": mean,
        "n": n,
        "low": low,
        "high": high,
        "needed": verdict.needed,
        "tolerance": str(verdict.claim.bound),
        "note": verdict.note,
    }
