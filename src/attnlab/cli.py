"""The program `attnlab`: which command is meant, and what its end means."""

import re
import sys
import traceback
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from typing import NoReturn

from attnlab.environment import read_variable
from attnlab.interruption import Interrupted, raise_on_stop_signals
from attnlab.printable import say, say_message, tolerate_closed_output

COMMANDS = {
    "train": "train one run, or with -m every combination of a sweep",
    "sweep": "show where sweeps stand, try failed runs again, stop what trains",
    "runs": "list runs, show one, tell what differs in two, tag, archive and delete them",
    "compare": "tabulate runs over seeds, with intervals and paired differences",
    "curves": "draw a metric over training, with intervals over seeds, as a figure",
    "report": "write the comparison, the attention patterns and the curves as one HTML file",
    "ui": "show runs in a browser, while they train and afterwards",
    "attend": "show who looks at whom in a text, and what cutting the edges does",
    "generate": "continue a prompt, token by token, with what a trained run expects",
    "embed": "show the token vectors of a trained run: neighbours, a projection, an export",
    "evaluate": "measure a trained run on another split or other data",
    "ablate": "measure a trained run without each head, and without each layer's attention",
    "heads": "name the heads of a run by their scores, over training, and match them over seeds",
    "experts": "show which experts of a trained run work on which tokens",
    "sync": "send finished runs to wandb, TensorBoard or CSV files, each of them once",
    "bench": "measure time, memory and FLOPs of models by the length of the sequence",
    "reproduce": "run a paper's recipe and judge each claim",
    "data": "show a dataset without training, or export it to files",
    "list": "list what can be chosen, with one line and the knobs",
    "completion": "print the script by which a shell completes the words of attnlab",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command: 0 done, 1 a run or claim failed, 2 the request was wrong, 130 interrupted.

    Nobody needs to listen: a reader of its output that leaves changes nothing.
    """
    if read_variable("_ARGCOMPLETE"):
        # A shell asks which words fit; what is printed is not for people.
        from attnlab.commands.complete import complete

        return complete(COMMANDS)
    with tolerate_closed_output() as failures:
        exit_code = _run_until_interrupted(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        if failures:
            say_message(f"the output could not be written: {failures[0]}")
            return exit_code or 1
        return exit_code


def _run_until_interrupted(words: list[str]) -> int:
    """Run a command, and return its exit code: 130 where it was interrupted."""
    try:
        with raise_on_stop_signals():
            return _run_command(words)
    except (Interrupted, KeyboardInterrupt):
        say("interrupted", file=sys.stderr)
        return 130


def _run_command(words: list[str]) -> int:
    """Run the command that the first word names, or print help, and return its exit code."""
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    if not words or words[0] in ("-h", "--help"):
        say(_help_text())
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        from importlib.metadata import version

        say(f"attnlab {version('attnlab')}")
        return 0
    if words[0] not in COMMANDS:
        close_commands = get_close_matches(words[0], COMMANDS, n=1)
        hint = (
            f"did you mean {close_commands[0]}?"
            if close_commands
            else f"there are {', '.join(COMMANDS)}"
        )
        return _print_refusal(f"there is no command {words[0]!r}; {hint}")
    # The modules of the commands are heavy, so only the one that is meant is loaded.
    command = import_module(f"attnlab.commands.{words[0]}")
    parser = Parser(f"attnlab {words[0]}", description=COMMANDS[words[0]], allow_abbrev=False)
    command.add_arguments(parser)
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    # Overrides and options come in any order.
    command_words = _with_runs_dir_option(words[0], words[1:])
    arguments = parser.parse_intermixed_args([*parser.words_with_defaults(command_words)])
    return _run_with_messages(partial(command.run, arguments), with_traceback=arguments.traceback)


def _with_runs_dir_option(command: str, words: Sequence[str]) -> list[str]:
    """Return a command's words with `runs_dir=DIR` as the option --runs-dir.

    `train` has it among its overrides, where Hydra reads it.
    """
    if command == "train":
        return [*words]
    return [re.sub(r"\Aruns_dir=", "--runs-dir=", word) for word in words]


class Parser(ArgumentParser):
    """Takes overrides beside options, and says of one that is written as an option how it goes."""

    def words_with_defaults(self, words: Sequence[str]) -> Iterator[str]:
        """Yield the words, with the default of an option whose value is left out: `--cfg seed=1`.

        argparse would take the override for the value.
        """
        for word, next_word in zip(words, [*words, "-"][1:], strict=True):
            action = self._option_string_actions.get(word)
            if (
                action is not None
                and (action.nargs, bool(action.choices)) == ("?", True)
                and ("=" in next_word or next_word[:1] in ("-", "~"))
            ):
                yield f"{action.option_strings[-1]}={action.const}"
            else:
                yield word

    def error(self, message: str) -> NoReturn:
        overrides = re.findall(r"--([a-z]\w*(?:[./]\w+)*=\S*)", message)
        if message.startswith("unrecognized") and overrides:
            message += f"; overrides have no dashes: {' '.join(overrides)}"
        self.print_usage(sys.stderr)
        say_message(f"{self.prog}: error: {message}")
        self.exit(2)


def _run_with_messages(run_command: Callable[[], int], *, with_traceback: bool) -> int:
    """Run a command; print its error, and return 2 for a wrong request and 1 for another error."""
    from attnlab.errors import RequestError

    try:
        return run_command()
    except RequestError as error:
        if with_traceback:
            say(traceback.format_exc(), file=sys.stderr)
            return 2
        return _print_refusal(f"{type(error).__name__}: {error}")
    except Exception as error:
        if with_traceback:
            say(traceback.format_exc(), file=sys.stderr)
            return 1
        say_message(f"attnlab: {type(error).__name__}: {error}")
        say_message("This is not your fault; --traceback shows where it happened.")
        return 1


def _print_refusal(message: str) -> int:
    """Print why a request is wrong, and return the exit code for that."""
    say_message(message)
    return 2


def _help_text() -> str:
    """Return the usage, with a line for each command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: attnlab COMMAND [ARGUMENTS]",
            "",
            "Which way of mixing a sequence works, on what task, at which depth and cost, and why.",
            "",
            *lines,
            "",
            "attnlab help COMMAND explains a command.",
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
