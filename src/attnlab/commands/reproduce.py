"""`attnlab reproduce`: run a paper's recipe and judge each claim.

`--format json` prints a list of objects, one for each claim (`attnlab.reproduce.judged`).
"""

import json
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence

from attnlab.analysis.report import to_plain
from attnlab.commands.options import add_config_dir, path_option
from attnlab.commands.render.verdicts import print_overview, print_verdicts
from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.interruption import Interrupted
from attnlab.printable import say
from attnlab.reproduce.judged import JudgedRecipe, judge_every_paper
from attnlab.reproduce.paper import PaperRequest, judge_paper, plan_paper, train_paper
from attnlab.reproduce.recipe import experiments_dir, paper_names

EPILOG = """\
examples:
  attnlab reproduce                       every claim, by the committed results
  attnlab reproduce pronoun               train what is missing, judge, write
  attnlab reproduce pronoun --judge       judge the results that are there
  attnlab reproduce pronoun --seeds 1 -o try
  attnlab reproduce PAPER --scale paper dataset.path=FILE
  attnlab reproduce mypaper --experiments exps --config-dir mine

The same command again goes on where it was interrupted. Results and README.md go
beside the recipe; of a recipe inside an installed package, to
experiments-results/PAPER. Exit code 1: a claim fails or a run failed.
KEY=VALUE says where data lie that are no part of attnlab, and nothing else: a
recipe's runs are what its claims were committed with.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab reproduce`."""
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
    add_config_dir(parser)
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """Print the verdicts on all claims, or train and judge one paper."""
    experiments = arguments.experiments or experiments_dir()
    as_json = arguments.format == "json"
    if arguments.paper is None:
        _require_paper(arguments, paper_names(experiments))
        judged_recipes = judge_every_paper(experiments, arguments.scale)
        _print_verdicts_or_json(judged_recipes, as_json=as_json)
        if not as_json:
            print_overview(judged_recipes, Console())
        return 0
    plan = plan_paper(
        experiments,
        PaperRequest(
            paper=arguments.paper,
            scale=arguments.scale,
            seeds=arguments.seeds,
            jobs=arguments.jobs,
            judge_only=arguments.judge,
            output=arguments.output,
            runs_dir=arguments.runs_dir,
            places=arguments.places,
            config_dir=arguments.config_dir,
        ),
    )
    if not arguments.judge:
        console = Console(soft_wrap=True, stderr=as_json)
        try:
            train_paper(plan, console)
        except Interrupted:
            console.print("interrupted; the same command goes on from there")
            return 130
    judged_recipes = judge_paper(plan)
    _print_verdicts_or_json(judged_recipes, as_json=as_json)
    if not as_json:
        say(plan.readme_path)
    return 1 if any(judged_recipe.failed for judged_recipe in judged_recipes) else 0


def _require_paper(arguments: Namespace, paper_names: Sequence[str]) -> None:
    """Raise RequestError for options that need a paper."""
    names = ("seeds", "jobs", "judge", "output", "config_dir")
    name_by_option = {f"--{name.replace('_', '-')}": name for name in names}
    paper_options = [option for option, name in name_by_option.items() if getattr(arguments, name)]
    if paper_options:
        raise RequestError(f"{', '.join(paper_options)} needs a PAPER: {', '.join(paper_names)}")


def _print_verdicts_or_json(judged_recipes: Sequence[JudgedRecipe], *, as_json: bool) -> None:
    """Print the claims of each recipe as JSON or as a table."""
    if as_json:
        claims = [claim for judged_recipe in judged_recipes for claim in judged_recipe.claims]
        say(json.dumps(to_plain(claims), indent=2))
    else:
        print_verdicts(judged_recipes, Console())
