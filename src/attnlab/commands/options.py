"""Options that many commands share; this module imports nothing that is slow to load."""

from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError
from pathlib import Path
from typing import Any

from attnlab.environment import expand_home
from attnlab.errors import RequestError

HYDRA_OPTION_ADVICE = {
    (
        "--hydra-help",
    ): "`attnlab help train` lists the options, docs/sweeps.md what Hydra's do here",
    ("-sc", "--shell-completion"): "`attnlab completion bash` (zsh, fish) prints the script",
    ("-cn", "--config-name"): (
        "there is one config; one of your own is DIR/experiment/NAME.yaml, chosen by "
        "`--config-dir DIR experiment=NAME`"
    ),
    ("-cp", "--config-path"): "`--config-dir DIR` adds a directory of your own configs",
    ("-r", "--run"): "one run is trained without any option; leave it out",
    ("--experimental-rerun",): "the same command again does what is missing; rerun=true repeats",
}
"""Options of a program that Hydra runs, and what does the same here."""


class _RefusedHydraOption(Action):
    """An option that is refused with what does the same here."""

    def __call__(
        self, parser: ArgumentParser, namespace: Any, values: Any, option: str | None = None
    ) -> None:
        parser.error(f"{option} is an option of Hydra's own programs; {self.metavar}")


def path_option(text: str) -> Path:
    """Parse a path for argparse. Raises ArgumentTypeError for an invalid one."""
    try:
        return expand_home(text)
    except RequestError as error:
        raise ArgumentTypeError(str(error)) from error


def add_config_dir(parser: ArgumentParser) -> None:
    """Declare the option for the directory of the user's own configs."""
    parser.add_argument(
        "--config-dir",
        type=path_option,
        metavar="DIR",
        help="your own configs and classes, in DIR and beside it",
    )


def add_dry_run(parser: ArgumentParser) -> None:
    """Declare the options of a list of what would be trained."""
    parser.add_argument(
        "--dry-run", action="store_true", help="list the runs, their costs and times; train nothing"
    )
    parser.add_argument("--format", choices=("table", "json"), help="of --dry-run")


def add_hydra_options(parser: ArgumentParser) -> None:
    """Declare the options of Hydra's that print, and those that are refused."""
    parser.add_argument(
        *("-c", "--cfg"),
        nargs="?",
        const="job",
        choices=("job", "hydra", "all"),
        help="print the config and train nothing; of a sweep, what differs",
    )
    parser.add_argument("-p", "--package", metavar="KEY", help="with --cfg: this part alone")
    parser.add_argument("--resolve", action="store_true", help="with --cfg: as it always is")
    parser.add_argument(
        *("-i", "--info"),
        nargs="?",
        const="all",
        choices=("all", "config", "defaults", "searchpath"),
        help="print what the config is composed of, and train nothing",
    )
    for names, advice in HYDRA_OPTION_ADVICE.items():
        parser.add_argument(
            *names,
            nargs="?",
            action=_RefusedHydraOption,
            help=SUPPRESS,
            dest=SUPPRESS,
            metavar=advice,
        )


def add_runs_dir(parser: ArgumentParser) -> None:
    """Declare the option for the directory in which runs are searched."""
    parser.add_argument(
        "--runs-dir", type=path_option, metavar="DIR", help="default: $ATTNLAB_RUNS, else runs"
    )


def add_runs(parser: ArgumentParser) -> None:
    """Declare the options that select several runs; without them, all runs are meant."""
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="directories of runs, names, starts or patterns of names, sweeps; default: all",
    )
    add_runs_dir(parser)
    parser.add_argument(
        "--where",
        metavar="CONDITIONS",
        help="those for which all hold: 'variant=moe num_layers>=2 optimizer.lr<1e-2'",
    )


def add_jobs(parser: ArgumentParser) -> None:
    """Declare the option for the number of runs at once."""
    parser.add_argument(
        "-j", "--jobs", type=int, metavar="N", help="runs at once: launcher=processes with N jobs"
    )


def add_training_options(parser: ArgumentParser) -> None:
    """Declare where configs and runs lie, and what is printed in place of training."""
    add_config_dir(parser)
    add_runs_dir(parser)
    add_dry_run(parser)
    add_hydra_options(parser)
