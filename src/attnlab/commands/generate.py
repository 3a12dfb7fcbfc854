"""`attnlab generate`: a prompt, continued by what a trained run expects.

Text is printed as it comes. `--format json` prints one object at the end: schema, run, step,
prompt, settings {tokens, temperature, top_k, top_p, seed}, samples (what follows the prompt; each
has the next seed).
"""

import json
import sys
from argparse import ArgumentParser, Namespace

from attnlab.commands.base import add_run, trained
from attnlab.errors import RequestError
from attnlab.generate import require_settings

SCHEMA = 1


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab generate`."""
    add_run(parser)
    parser.add_argument(
        "--prompt",
        default="",
        metavar="TEXT",
        help="what is continued; - reads standard input; empty (the default) is a line feed, "
        "where the data have one",
    )
    parser.add_argument(
        "--tokens", type=int, default=500, metavar="N", help="how many follow; default: 500"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
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
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="decides what is drawn; default: 0"
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=1,
        metavar="N",
        help="so many texts, each with the next seed, parted by a line ---; default: 1",
    )
    parser.add_argument("--format", choices=("text", "json"), default="text")


def run(arguments: Namespace) -> int:
    """Print the prompt and what follows it, once for each sample."""
    if arguments.samples < 1:
        raise RequestError(f"samples={arguments.samples} must be at least 1")
    names = ("tokens", "temperature", "top_k", "top_p", "seed")
    settings = {name: getattr(arguments, name) for name in names}
    require_settings(**settings)
    prompt = _standard_input() if arguments.prompt == "-" else arguments.prompt
    loaded = trained(arguments)
    seeds = range(arguments.seed, arguments.seed + arguments.samples)
    samples = (loaded.generate(prompt, **{**settings, "seed": seed}) for seed in seeds)
    if arguments.format == "json":
        found = {
            "schema": SCHEMA,
            "run": loaded.record.name,
            "step": loaded.step,
            "prompt": prompt,
            "settings": settings,
            "samples": ["".join(sample) for sample in samples],
        }
        print(json.dumps(found, indent=2))
        return 0
    for number, sample in enumerate(samples):
        if number:
            print("---")
        try:
            print(prompt, end="", flush=True)
            for piece in sample:
                print(piece, end="", flush=True)
        finally:
            # Also when interrupted, so that what the terminal says next begins a line.
            print()
    return 0


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise RequestError(f"standard input is no text: {error}") from error
