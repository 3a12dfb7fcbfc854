"""`attnlab bench`: time, memory and FLOPs of models by sequence length.

Overrides with commas make arms, as `train -m` makes runs. The data are random tokens, the model is
a decoder; only `model`, `init`, `seed` and the device, threads and precision of `trainer` are used
of a config. All arms take turns at each length. `-o DIR` writes bench.json, bench.svg and
bench.png. bench.json and `--format json` hold the report of `attnlab.analysis.cost_report`.
"""

import json
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path
from typing import TYPE_CHECKING

from attnlab.commands.options import add_config_dir, path_option
from attnlab.commands.render.costs import TITLES, cost_figure, print_costs
from attnlab.console import Console
from attnlab.places import require_writable
from attnlab.printable import say
from attnlab.run_record import write

if TYPE_CHECKING:
    from attnlab.analysis.cost_report import CostReport
    from attnlab.measure import Measurement

EPILOG = """\
examples:
  attnlab bench model/mixer=multihead,min_lstm --lengths 512 1024 2048 -o bench
  attnlab bench variant=multihead,lstm size=medium trainer.threads=1 --modes decode
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab bench`."""
    parser.formatter_class, parser.epilog = RawDescriptionHelpFormatter, EPILOG
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="a,b,c makes arms")
    add_config_dir(parser)
    parser.add_argument(
        "--lengths",
        nargs="+",
        type=int,
        default=[256, 512, 1024, 2048],
        metavar="N",
        help="tokens in a sequence; default: 256 512 1024 2048",
    )
    parser.add_argument(
        "--modes",
        nargs="+",
        choices=TITLES,
        default=list(TITLES),
        metavar="MODE",
        help=f"default: {' '.join(TITLES)}",
    )
    parser.add_argument(
        "--tokens",
        type=int,
        default=4096,
        metavar="N",
        help="in a batch, of as many sequences as that makes; to decode it is one; default: 4096",
    )
    parser.add_argument(
        "--rounds", type=int, default=7, metavar="N", help="turns of each arm; default: 7"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=path_option,
        metavar="DIR",
        help="write bench.json and the figure there",
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """Measure all arms, then print and write the report."""
    report = _measure_costs(arguments)
    content = json.dumps(report.to_json(), indent=2)
    if arguments.output is not None:
        _write_files(arguments.output, report, content)
    if arguments.format == "json":
        say(content)
        return 0
    print_costs(report, Console())
    if arguments.output is not None:
        say(arguments.output)
    return 0


def _measure_costs(arguments: Namespace) -> "CostReport":
    """Measure the costs of all arms, and show the progress on standard error."""
    # torch takes seconds to import, and --help does not need it.
    from attnlab.analysis.cost_arms import cost_arms
    from attnlab.analysis.cost_report import cost_report, require_measurable
    from attnlab.launch.machine import device_name

    lengths, modes = arguments.lengths, arguments.modes
    tokens, rounds = arguments.tokens, arguments.rounds
    require_measurable(lengths, tokens, rounds)
    if arguments.output is not None:
        require_writable(arguments.output, "--output")
    overrides, config_dir = arguments.overrides, arguments.config_dir
    arms = cost_arms(overrides, longest=max(lengths), modes=modes, config_dir=config_dir)
    with Console(stderr=True).status("warming up") as status:

        def show_progress(measurement: "Measurement") -> None:
            status.update(f"measured: {measurement.mode}, {measurement.length} tokens")

        return cost_report(
            arms,
            lengths,
            modes,
            tokens=tokens,
            rounds=rounds,
            device_name=device_name(arms.device),
            on_measurement=show_progress,
        )


def _write_files(directory: Path, report: "CostReport", content: str) -> None:
    """Write the numbers, then the figure; each file gets its name when it is complete."""
    from attnlab.figures.base import render_png, render_svg

    write.make_directory(directory)
    write.replace_file(directory / "bench.json", f"{content}\n".encode())
    figure = cost_figure(report)
    write.replace_file(directory / "bench.svg", render_svg(figure).encode())
    write.replace_file(directory / "bench.png", render_png(figure))
