"""`attnlab generate`: let a trained run continue or answer a prompt.

Text is printed while it is generated. `--format json` prints the report of
`attnlab.analysis.generation_report` at the end, also for a search with `--beams`.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from dataclasses import fields

from attnlab.analysis.generation_report import (
    DrawSettings,
    SearchReport,
    SearchSettings,
    generation_report,
    sample_texts,
    search_report,
)
from attnlab.commands.base import add_run, load_run
from attnlab.errors import RequestError
from attnlab.objective.seq2seq import Seq2Seq
from attnlab.printable import is_output_open, say


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab generate`."""
    add_run(parser)
    parser.add_argument(
        "--prompt",
        default="",
        metavar="TEXT",
        help="what is continued, or answered by a run with objective=seq2seq; - reads standard "
        "input; empty (the default) is a line feed, where the data have one",
    )
    parser.add_argument("--tokens", type=int, metavar="N", help="how many follow; default: 500")
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="divides the logits; 0 takes the likeliest token; default: 1",
    )
    parser.add_argument(
        "--top-k", type=int, metavar="K", help="draw from the K likeliest tokens only"
    )
    parser.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="then from the fewest that reach probability P only",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="decides what is drawn; default: 0")
    parser.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="so many texts, each with the next seed, parted by a line ---; default: 1",
    )
    parser.add_argument(
        "--beams",
        type=int,
        metavar="N",
        help="search for the N best answers of a run with objective=seq2seq, and draw nothing",
    )
    parser.add_argument(
        "--length-penalty",
        type=float,
        metavar="A",
        help="with --beams: divide log-probabilities by ((5 + tokens) / 6)^A; default: 0",
    )
    parser.add_argument("--format", choices=("text", "json"), default="text")


def run(arguments: Namespace) -> int:
    """Print the prompt and each sample, or the answers of a search."""
    settings = _parse_settings(arguments)
    prompt = _read_standard_input() if arguments.prompt == "-" else arguments.prompt
    loaded = load_run(arguments.run, runs_dir=arguments.runs_dir, config_dir=arguments.config_dir)
    if isinstance(settings, DrawSettings) and arguments.format == "text":
        # An answer does not continue the prompt, so the prompt is not printed before it.
        opening = "" if isinstance(loaded.objective, Seq2Seq) else prompt
        _print_samples(opening, sample_texts(loaded, prompt, settings))
        return 0
    if isinstance(settings, DrawSettings):
        report = generation_report(loaded, prompt, settings)
    else:
        report = search_report(loaded, prompt, settings)
    if isinstance(report, SearchReport) and arguments.format == "text":
        for answer in report.hypotheses:
            say(f"{answer.score:9.4f}  {answer.text}{'' if answer.finished else ' ...'}")
        return 0
    say(json.dumps(report.to_json(), indent=2))
    return 0


def _parse_settings(arguments: Namespace) -> DrawSettings | SearchSettings:
    """Return the settings of the sampling or search. Raises RequestError where options mix them."""
    names = [field.name for field in fields(DrawSettings)]
    sampling_options = {n: value for n in names if (value := getattr(arguments, n)) is not None}
    if arguments.beams is None:
        if arguments.length_penalty is not None:
            raise RequestError("--length-penalty ranks what --beams finds; give --beams too")
        return DrawSettings(**sampling_options)
    if sampling_options:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in sampling_options)
        raise RequestError(f"--beams searches and draws nothing; leave out {options}")
    return SearchSettings(arguments.beams, arguments.length_penalty or 0.0)


def _print_samples(opening: str, samples: Iterable[Iterator[str]]) -> None:
    """Print each text while it is generated, with a line between texts, until nobody reads."""
    for number, pieces in enumerate(samples):
        if number:
            say("---")
        try:
            say(opening, end="", flush=True)
            for piece in pieces:
                say(piece, end="", flush=True)
                if not is_output_open():
                    return
        finally:
            # Also when interrupted, so that the terminal's next output begins a line.
            say()


def _read_standard_input() -> str:
    """Return the text on standard input. Raises RequestError for bytes that are no text."""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise RequestError(f"standard input is no text: {error}") from error
