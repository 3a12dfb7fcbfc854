"""`attnlab data`: show a dataset, or export it for use elsewhere, without training.

    attnlab data show NAME [KEY=VALUE ...]           # a description and examples
    attnlab data export NAME -o DIR [KEY=VALUE ...]  # a file for each split, with a data card

`show --format json` prints the report of `attnlab.analysis.data_report`.
"""

import json
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from typing import Any

from attnlab.commands.options import add_config_dir, path_option
from attnlab.commands.render.data import data_text
from attnlab.errors import RequestError
from attnlab.printable import say

SHOW_OPTIONS = ("split", "index", "count")
"""The options of `show`, which an export does not take."""
FORMATS = {"show": ("text", "json"), "export": ("parquet", "jsonl")}
EPILOG = """\
examples:
  attnlab data show mqar dataset.num_pairs=4 --split test
  attnlab data export pronoun -o pronoun
  attnlab data export text dataset.path=book.txt -o book --format jsonl
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab data`."""
    parser.formatter_class, parser.epilog = RawDescriptionHelpFormatter, EPILOG
    parser.add_argument("action", choices=FORMATS, help="print examples, or write all to files")
    parser.add_argument("name", metavar="NAME", help="a dataset of `attnlab list dataset`")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="its knobs")
    add_config_dir(parser)
    show_options = parser.add_argument_group("show")
    show_options.add_argument("--split", metavar="S", help="default: train")
    show_options.add_argument(
        "--index", type=int, metavar="I", help="the first example; default: 0"
    )
    show_options.add_argument("--count", type=int, metavar="N", help="how many; default: 3")
    export_options = parser.add_argument_group("export")
    export_options.add_argument(
        "-o", "--output", type=path_option, metavar="DIR", help="a new or empty directory"
    )
    parser.add_argument(
        "--format",
        choices=[file_format for file_formats in FORMATS.values() for file_format in file_formats],
        help="show: text (the default) or json; export: parquet (the default) or jsonl",
    )


def run(arguments: Namespace) -> int:
    """Show or export a dataset."""
    file_format = _parse_format(arguments)
    # torch takes seconds to import, and --help does not need it.
    from attnlab.analysis.data_report import data_report, export_data, open_data

    data = open_data(arguments.name, arguments.overrides, config_dir=arguments.config_dir)
    if arguments.action == "show":
        report = data_report(data, **_show_options(arguments))
        say(json.dumps(report.to_json(), indent=2) if file_format == "json" else data_text(report))
        return 0
    export_data(data, arguments.output, file_format)
    for split, size in data.split_sizes.items():
        say(f"{split}: {size:,} examples")
    for note in data.dataset.notes:
        say(note)
    say(arguments.output)
    return 0


def _show_options(arguments: Namespace) -> dict[str, Any]:
    """Return the given options that select examples, by name."""
    return {name: value for name in SHOW_OPTIONS if (value := getattr(arguments, name)) is not None}


def _parse_format(arguments: Namespace) -> str:
    """Return the format. Raises RequestError for wrong options and a directory in use."""
    action = arguments.action
    file_formats = FORMATS[action]
    file_format = arguments.format or file_formats[0]
    if file_format not in file_formats:
        raise RequestError(
            f"--format {file_format} is not for {action}; give {' or '.join(file_formats)}"
        )
    if action == "show":
        if arguments.output is not None:
            raise RequestError("--output is not for show, which prints; use attnlab data export")
        return file_format
    if given_options := [f"--{name}" for name in _show_options(arguments)]:
        raise RequestError(f"export writes all; leave out {', '.join(given_options)}")
    if arguments.output is None:
        raise RequestError("export needs -o DIR, a new or empty directory")
    from attnlab.dataset.export import require_free

    try:
        require_free(arguments.output)
    except ValueError as error:
        raise RequestError(f"--output {error}") from error
    return file_format
