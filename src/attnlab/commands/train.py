"""`attnlab train`: one run, or a sweep."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from attnlab.building import UserTargets
from attnlab.commands.options import add_jobs, add_training_options
from attnlab.commands.overrides import launcher_overrides, with_runs_dir
from attnlab.config import Config, Sweep, plan_sweep, search_path
from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.interruption import Interrupted
from attnlab.places import require_writable
from attnlab.printable import say, say_message

if TYPE_CHECKING:
    from attnlab.launch.launcher import Launcher

EPILOG = """\
examples:
  attnlab train dataset=mqar variant=multihead depth=base
  attnlab train -m variant=vanilla,multihead,moe,lstm depth=shallow,base seed=0,1,2
  attnlab train experiment=recall model/mixer=gated_delta   a baseline, and one change
  attnlab train -m --dry-run seed='range(3)' optimizer.lr=1e-3,3e-3   names, costs, time
  attnlab train dataset=mqar --cfg          the config

values of a sweep: a,b,c  range(1,5)  glob(l*)  choice(a,b)     more: docs/sweeps.md
`attnlab list` shows what can be chosen. The same command again resumes what was
interrupted and skips what is finished.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab train`."""
    from argparse import RawDescriptionHelpFormatter

    parser.formatter_class, parser.epilog = RawDescriptionHelpFormatter, EPILOG
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to the config")
    parser.add_argument("-m", "--multirun", action="store_true", help="sweep over a,b,c values")
    add_jobs(parser)
    add_training_options(parser)


def run(arguments: Namespace) -> int:
    """Check every cell, then train what is missing."""
    console = Console(soft_wrap=True)
    _require_fitting_options(arguments)
    with search_path(arguments.config_dir) as user_targets:
        overrides = with_runs_dir(arguments.overrides, arguments.runs_dir)
        overrides = launcher_overrides(overrides, arguments.jobs)
        sweep = plan_sweep(overrides, user_targets, is_multirun=arguments.multirun)
        # Torch takes seconds to import, and what is misspelt is refused before that.
        from attnlab.launch.sweep_launcher import launcher_of, with_shared_cores

        launcher = launcher_of([cell.config for cell in sweep.cells])
        if arguments.multirun:
            sweep = with_shared_cores(sweep, launcher.jobs)
        printed_text = _explain_config(arguments, sweep, user_targets)
    configs = [cell.config for cell in sweep.cells]
    for note in dict.fromkeys(note for config in configs for note in config.notes):
        say_message(note)
    if printed_text is not None:
        say(printed_text)
        return 0
    if arguments.dry_run:
        return _print_dry_run(sweep, launcher.jobs, arguments.format)
    launcher.require_possible(configs)
    require_writable(Path(configs[0].values["runs_dir"]), "runs_dir")
    # Lightning takes seconds to import, so a wrong request is refused before that.
    try:
        if arguments.multirun:
            return _train_sweep(sweep, launcher, console)
        return _train_one(configs[0], console)
    except Interrupted as interrupted:
        console.print(f"{interrupted}; the same command goes on from there")
        return 130


def _require_fitting_options(arguments: Namespace) -> None:
    """Raise RequestError for options that change nothing beside the others."""
    if arguments.format and not arguments.dry_run:
        raise RequestError("--format is of --dry-run; give both, or neither")
    if (arguments.package or arguments.resolve) and not arguments.cfg:
        raise RequestError("--package and --resolve are of --cfg; give that too, or leave them out")
    launcher_words = [text for text in arguments.overrides if text.startswith("launcher")]
    if not arguments.multirun and (launcher_words or arguments.jobs not in (None, 1)):
        word = launcher_words[0] if launcher_words else f"--jobs {arguments.jobs}"
        raise RequestError(f"{word} says how a sweep is trained; give -m too, or leave it out")
    printing_options = [name for name in ("cfg", "info", "dry_run") if getattr(arguments, name)]
    if len(printing_options) > 1:
        options = " and ".join("--" + name.replace("_", "-") for name in printing_options)
        raise RequestError(f"{options} each print something else; give one of them")
    if arguments.multirun and (arguments.info or arguments.cfg in ("hydra", "all")):
        option = "--info" if arguments.info else f"--cfg {arguments.cfg}"
        raise RequestError(f"{option} is of one run; leave -m out and give one value each")


def _explain_config(arguments: Namespace, sweep: Sweep, user_targets: UserTargets) -> str | None:
    """Return what `--cfg` or `--info` asks for; None without them."""
    if not (arguments.cfg or arguments.info):
        return None
    from attnlab.commands.render.config import config_text, info_text, sweep_text

    if arguments.info:
        return info_text(arguments.info, sweep.cells[0], user_targets)
    if len(sweep.cells) > 1:
        return sweep_text(sweep.cells, arguments.package)
    return config_text(sweep.cells[0], user_targets, arguments.cfg, arguments.package)


def _print_dry_run(sweep: Sweep, jobs: int, output_format: str | None) -> int:
    from attnlab.commands.render.dry_run import dry_run_text
    from attnlab.launch.dry_run import dry_run

    report = dry_run(sweep, jobs)
    say(json.dumps(report.to_json(), indent=2) if output_format == "json" else dry_run_text(report))
    return 0


def _train_one(config: Config, console: Console) -> int:
    """Train one run and print its metrics; its directory is the last line."""
    from attnlab.launch import show
    from attnlab.launch.run import run

    outcome = run(config, console)
    if outcome.note:
        console.print(f"{outcome.status}: {outcome.note}")
    if outcome.result is not None:
        console.print(show.metrics_table(outcome.result))
    say(outcome.directory)
    return {"finished": 0, "skipped": 0, "failed": 1}.get(outcome.status, 2)


def _train_sweep(sweep: Sweep, launcher: "Launcher", console: Console) -> int:
    """Train every cell, and say at the end how many ended how, and which were not done."""
    from attnlab.commands.render.outcomes import print_outcomes
    from attnlab.launch.train_cells import train_cells

    if sweep.impossible:
        from attnlab.commands.render.dry_run import left_out_text

        console.print(left_out_text(sweep.impossible))
    outcomes = train_cells(sweep.cells, launcher, console)
    return print_outcomes(outcomes, sweep.name, sweep.num_left_out, console)
