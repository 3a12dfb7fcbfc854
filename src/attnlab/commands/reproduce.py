"""`attnlab reproduce`: run a paper's recipe and judge each claim.

With `--format json`, a list of objects, one for each claim, and nothing else on standard output:

    paper, claim (NAME/ARM), scale, verdict ("holds", "fails" or "not_run"), theirs (text),
    ours (the mean; null where nothing was run), n (seeds), then low and high (the 95 % interval;
    null where there is none), needed (seeds), tolerance (text), note (text), then of the runs
    that were judged: seeds (list), commits and hardware (lists of texts, mostly one)
"""

import json
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from attnlab.commands.options import path_option
from attnlab.console import Console
from attnlab.environment import default_runs_dir
from attnlab.errors import RequestError
from attnlab.interruption import Interrupted
from attnlab.printable import say
from attnlab.reproduce import readme, results
from attnlab.reproduce.judge import VERDICTS, Results, Verdict, judge
from attnlab.reproduce.recipe import (
    PLACES,
    Recipe,
    experiments_dir,
    papers,
    recipes,
    shipped_dir,
)
from attnlab.runs.arms import nearest
from attnlab.runs.write import make_directory, replace

EPILOG = """\
examples:
  attnlab reproduce                       every claim, by the committed results
  attnlab reproduce pronoun               train what is missing, judge, write
  attnlab reproduce pronoun --judge       judge the results that are there
  attnlab reproduce pronoun --seeds 1 -o try
  attnlab reproduce PAPER --scale paper dataset.path=FILE

The same command again goes on where it was interrupted. Results and README.md go
beside the recipe; of a recipe inside an installed package, to
experiments-results/PAPER. Exit code 1: a claim fails or a run failed.
KEY=VALUE says where data lie that are no part of attnlab, and nothing else: a
recipe's runs are what its claims were committed with.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab reproduce`."""
    from argparse import RawDescriptionHelpFormatter

    parser.formatter_class, parser.epilog = RawDescriptionHelpFormatter, EPILOG
    parser.add_argument("paper", nargs="?", metavar="PAPER", help="default: list all claims")
    parser.add_argument("places", nargs="*", metavar="KEY=VALUE", help="where data lie")
    parser.add_argument("--scale", metavar="NAME", help="which of its recipes; default: check")
    parser.add_argument("--seeds", type=int, metavar="N", help="0 to N-1; default: the recipe's")
    parser.add_argument("-j", "--jobs", type=int, metavar="N", help="runs at once; default: cores")
    parser.add_argument("--judge", action="store_true", help="train nothing")
    parser.add_argument("-o", "--output", type=path_option, metavar="DIR", help="where results go")
    parser.add_argument("--runs-dir", type=path_option, metavar="DIR", help="where runs go")
    parser.add_argument(
        "--experiments", type=path_option, metavar="DIR", help="recipes of your own"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """List what is known of every claim, or run and judge one paper."""
    experiments = arguments.experiments or experiments_dir()
    if arguments.paper is None:
        return _list(experiments, arguments)
    _check_places(arguments)
    found = recipes(experiments, arguments.paper)
    scales = _scales(found, arguments)
    recipe = found[scales[0]]
    output = _output(recipe, arguments.output)
    seeds = _seeds(recipe, arguments)
    told = Console(soft_wrap=True, stderr=arguments.format == "json")
    if not arguments.judge:
        # Lightning takes seconds to import, so a wrong request is refused before that.
        from attnlab.reproduce.figures import draw
        from attnlab.reproduce.run import reproduce

        runs_dir, jobs = _runs_dir(recipe, arguments), _jobs(recipe, arguments)
        try:
            made = reproduce(recipe, seeds, runs_dir, jobs, told, arguments.places)
        except Interrupted:
            told.print("interrupted; the same command goes on from there")
            return 130
        results.write(output, made)
        draw(recipe, _records(made, runs_dir), output)
    kept = {
        scale: results.read(output, scale) or results.read(recipe.folder, scale) for scale in found
    }
    make_directory(output)
    replace(output / "README.md", readme.text(found, kept, output).encode())
    judged = [_judged(found[scale], kept[scale]) for scale in scales]
    _tell(judged, arguments.format)
    if arguments.format == "table":
        say(output / "README.md")
    return 1 if any(one.bad for one in judged) else 0


class Judged(NamedTuple):
    """A recipe, its results, and what they say."""

    recipe: Recipe
    results: Results | None
    verdicts: Sequence[Verdict]

    @property
    def bad(self) -> bool:
        """Whether a claim fails or a run failed."""
        arms = self.results["arms"].values() if self.results else ()
        return self.count("fails") > 0 or any(arm["failed"] for arm in arms)

    def count(self, verdict: str) -> int:
        """Count the claims with a verdict."""
        return sum(one.verdict == verdict for one in self.verdicts)


def _judged(recipe: Recipe, kept: Results | None) -> Judged:
    return Judged(recipe, kept, judge(recipe, kept))


def _list(experiments: Path, arguments: Namespace) -> int:
    options = {"--seeds": "seeds", "--jobs": "jobs", "--judge": "judge", "--output": "output"}
    if given := [word for word, name in options.items() if getattr(arguments, name)]:
        raise RequestError(f"{', '.join(given)} needs a PAPER: {', '.join(papers(experiments))}")
    found = [r for paper in papers(experiments) for r in recipes(experiments, paper).values()]
    scales = dict.fromkeys(recipe.scale for recipe in found)
    if arguments.scale not in (None, *scales):
        raise RequestError(
            f"no paper has a recipe at --scale {arguments.scale}; "
            f"{nearest(arguments.scale, scales)}"
        )
    judged = [
        _judged(recipe, results.read(recipe.folder, recipe.scale))
        for recipe in found
        if arguments.scale in (None, recipe.scale)
    ]
    _tell(judged, arguments.format)
    if arguments.format == "table":
        _console().print(_overview(judged))
    return 0


def _check_places(arguments: Namespace) -> None:
    """Let the user say where data lie, and nothing of what a claim was committed with."""
    words = [arguments.paper, *arguments.places]
    if "=" in arguments.paper:
        raise RequestError(f"{arguments.paper} needs a PAPER before it")
    for word in arguments.places:
        key, equals, _ = word.partition("=")
        if not equals:
            raise RequestError(f"one PAPER is run at a time, not {' and '.join(words)}")
        if key not in PLACES:
            raise RequestError(
                f"{word}: a recipe's runs are what its claims were committed with; "
                f"only where data lie can be said here ({', '.join(PLACES)})"
            )
    if arguments.judge and arguments.places:
        raise RequestError(f"--judge reads no data; leave {' '.join(arguments.places)} out")


def _scales(found: Mapping[str, Recipe], arguments: Namespace) -> list[str]:
    """Choose the recipe to run, or those to judge: all of them unless one is named."""
    if arguments.judge and arguments.scale is None:
        return list(found)
    scale = arguments.scale or "check"
    if scale not in found:
        raise RequestError(
            f"{arguments.paper} has no recipe at --scale {scale}; there is {', '.join(found)}"
        )
    return [scale]


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
    # Each run has the GPU alone.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jobs = arguments.jobs
    if jobs is None:
        jobs = 1 if recipe.needs == "gpu" else cores or 1
    if jobs < 1:
        raise RequestError(f"--jobs {jobs} must be at least 1")
    return jobs


def _runs_dir(recipe: Recipe, arguments: Namespace) -> Path:
    root = default_runs_dir()
    return arguments.runs_dir or root / "reproduce" / f"{recipe.paper}-{recipe.scale}"


def _records(made: dict[str, Any], runs_dir: Path) -> dict[str, list[Any]]:
    """Give the record of each finished run, by its arm."""
    from attnlab.runs.record import Record

    return {
        label: [Record(runs_dir / run["name"]) for run in arm["runs"]]
        for label, arm in made["arms"].items()
    }


def _tell(judged: Sequence[Judged], how: str) -> None:
    if how == "json":
        objects = [_json(one.recipe, verdict) for one in judged for verdict in one.verdicts]
        say(json.dumps(objects, indent=2, allow_nan=False))
        return
    console = _console()
    for one in judged:
        counts = [(one.count(verdict), verdict) for verdict in VERDICTS]
        said = ", ".join(f"{count} {verdict}" for count, verdict in counts if count)
        console.print(f"{one.recipe.paper}, scale {one.recipe.scale}: {said}", style="bold")
        console.print(_claims(one.verdicts))
        for note in dict.fromkeys(verdict.note for verdict in one.verdicts if verdict.note):
            names = ", ".join(v.claim.name for v in one.verdicts if v.note == note)
            console.print(f"{names}: {note}")
        console.print()
    console.print("ours: mean [95 % t-interval] over n of the seeds that a claim needs")


def _claims(verdicts: Sequence[Verdict]) -> Table:
    table = _table(("claim", "tolerance", "ours", "n", "verdict"), ("tolerance", "ours"))
    for verdict in verdicts:
        n = f"{verdict.ours.n}/{verdict.needed}"
        ours = readme.with_interval(verdict.ours)
        table.add_row(verdict.claim.name, str(verdict.claim.bound), ours, n, verdict.verdict)
    return table


def _overview(judged: Sequence[Judged]) -> Table:
    """Tabulate the recipes; it stands below the claims, where a terminal ends."""
    table = _table(("paper", "scale", *VERDICTS, "date", "commit"), ("paper", "commit"))
    for one in judged:
        commits = dict.fromkeys(commit for verdict in one.verdicts for commit in verdict.commits)
        table.add_row(
            one.recipe.paper,
            one.recipe.scale,
            *(str(one.count(verdict)) for verdict in VERDICTS),
            one.results["date"] if one.results else "-",
            ", ".join(commits) or "-",
        )
    return table


def _table(columns: Sequence[str], folded: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name not in folded)
    return table


def _console() -> Console:
    return Console()


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
        "seeds": list(verdict.seeds),
        "commits": list(verdict.commits),
        "hardware": list(verdict.hardware),
    }
