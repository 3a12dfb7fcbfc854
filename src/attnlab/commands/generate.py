"""`attnlab generate`: a prompt, continued or answered by what a trained run expects.

Text is printed as it comes. `--format json` prints one object at the end: schema, run, step,
prompt, settings {tokens, temperature, top_k, top_p, seed}, samples (what follows the prompt, or
answers it; each has the next seed). With `--beams` instead: settings {beams, length_penalty},
hypotheses [{text, finished, log_probability (nats), score}], the best first.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from attnlab.commands.base import add_run, trained
from attnlab.errors import RequestError
from attnlab.generate import require_search, require_settings
from attnlab.objective.seq2seq import Seq2Seq
from attnlab.printable import say

if TYPE_CHECKING:
    from attnlab.trained import Trained

SCHEMA = 1
DRAWING = {"tokens": 500, "temperature": 1.0, "top_k": None, "top_p": None, "seed": 0, "samples": 1}
"""What decides a draw, unless it is given; a search has none of it."""


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
    """Print the prompt and what follows it, once for each sample; or the answers of a search."""
    given = [name for name in DRAWING if getattr(arguments, name) is not None]
    if arguments.beams is not None:
        if given:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise RequestError(f"--beams searches and draws nothing; leave out {options}")
        return _search(arguments, arguments.length_penalty or 0.0)
    if arguments.length_penalty is not None:
        raise RequestError("--length-penalty ranks what --beams finds; give --beams too")
    settings = {**DRAWING, **{name: getattr(arguments, name) for name in given}}
    samples = settings.pop("samples")
    if samples < 1:
        raise RequestError(f"samples={samples} must be at least 1")
    require_settings(**settings)
    prompt = _prompt(arguments)
    loaded = trained(arguments)
    seeds = range(settings["seed"], settings["seed"] + samples)
    texts = (loaded.generate(prompt, **{**settings, "seed": seed}) for seed in seeds)
    if arguments.format == "json":
        _print_json(loaded, prompt, settings, "samples", ["".join(text) for text in texts])
        return 0
    # An answer is a text of its own.
    shown = "" if isinstance(loaded.objective, Seq2Seq) else prompt
    for number, text in enumerate(texts):
        if number:
            say("---")
        try:
            say(shown, end="", flush=True)
            for piece in text:
                say(piece, end="", flush=True)
        finally:
            # Also when interrupted, so that what the terminal says next begins a line.
            say()
    return 0


def _search(arguments: Namespace, length_penalty: float) -> int:
    settings = {"beams": arguments.beams, "length_penalty": length_penalty}
    require_search(**settings)
    prompt = _prompt(arguments)
    loaded = trained(arguments)
    found = loaded.search(prompt, **settings)
    hypotheses = [
        {
            "text": loaded.dataset.write(one.tokens),
            "finished": one.finished,
            "log_probability": one.log_probability,
            "score": one.score,
        }
        for one in found
    ]
    if arguments.format == "json":
        _print_json(loaded, prompt, settings, "hypotheses", hypotheses)
        return 0
    for one in hypotheses:
        say(f"{one['score']:9.4f}  {one['text']}{'' if one['finished'] else ' ...'}")
    return 0


def _print_json(
    loaded: "Trained", prompt: str, settings: dict[str, Any], name: str, found: list[Any]
) -> None:
    whole = {"schema": SCHEMA, "run": loaded.record.name, "step": loaded.step}
    say(json.dumps({**whole, "prompt": prompt, "settings": settings, name: found}, indent=2))


def _prompt(arguments: Namespace) -> str:
    if arguments.prompt != "-":
        return arguments.prompt
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise RequestError(f"standard input is no text: {error}") from error
