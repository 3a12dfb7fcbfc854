"""`attnlab runs`: list runs, show one, compare the configs of two, label and delete them.

`--format json` prints the reports of `attnlab.analysis.run_details`.
"""

import json
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence

from attnlab.analysis.find import require_runs
from attnlab.analysis.run_details import RunDiff, directory_size, run_details, run_diff, runs_report
from attnlab.analysis.run_list import RunList, list_runs
from attnlab.analysis.units import format_size
from attnlab.commands.options import add_runs
from attnlab.commands.render.runs import print_details, print_diff, print_runs
from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.printable import one_line, say
from attnlab.run_record.annotations import annotate, require_storable_text
from attnlab.run_record.remove import delete_run, require_deletable
from attnlab.run_record.run_ref import find_record

EPILOG = """\
  attnlab runs [RUN ...]               what there is: state, metric, age, size
  attnlab runs show RUN                config, metrics, attempts, tags, notes
  attnlab runs diff RUN RUN            in what two runs differ
  attnlab runs tag TAG RUN ...         label runs; `untag` takes the label away
  attnlab runs note TEXT RUN ...       write a sentence about runs
  attnlab runs archive RUN ...         leave runs out of lists and comparisons
  attnlab runs restore RUN ...         take archived runs in again
  attnlab runs delete RUN ...          delete runs, after a question

A run that is called like one of these words is named by its directory, ./show.
"""
TEXTS = {"tag": "TAG", "untag": "TAG", "note": "TEXT"}
"""The actions whose first word is no run."""
ACTIONS = ("show", "diff", *TEXTS, "archive", "restore", "delete")
MOST_NAMED = 10


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab runs`."""
    parser.formatter_class, parser.epilog = RawDescriptionHelpFormatter, EPILOG
    add_runs(parser)
    parser.add_argument("--archived", action="store_true", help="archived runs too")
    parser.add_argument("--yes", action="store_true", help="delete without a question")
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """Do what the first word says, or list the runs."""
    action, words = "list", list(arguments.runs)
    if words and words[0] in ACTIONS:
        action = words.pop(0)
    if action == "list":
        return _list(words, arguments)
    if action in ("show", "diff"):
        return _show(action, words, arguments)
    return _label_or_delete(action, words, arguments)


def _list(run_refs: Sequence[str], arguments: Namespace) -> int:
    """List the selected runs."""
    report = runs_report(_select(run_refs, arguments))
    if arguments.format == "json":
        say(json.dumps(report.to_json(), indent=2))
    else:
        print_runs(report, Console())
    return 0


def _label_or_delete(action: str, words: list[str], arguments: Namespace) -> int:
    """Tag, note, archive, restore or delete the selected runs; a text stands before their names."""
    text = ""
    if action in TEXTS:
        if not words:
            raise RequestError(f"runs {action}: expected {TEXTS[action]} RUN ...")
        text = words.pop(0)
        require_storable_text(action, text)
    if not words and arguments.where is None:
        raise RequestError(f"runs {action}: which runs? name them, or choose them with --where")
    runs = _select(words, arguments, archived=action in ("restore", "delete"))
    if not runs:
        raise RequestError(f"runs {action}: no run is meant; nothing was done")
    if action == "delete":
        return _delete(runs, with_question=not arguments.yes)
    for listed_run in runs:
        annotate(listed_run.path, action, text)
        say(f"{listed_run.name}: {' '.join(filter(None, [action, one_line(text)]))}")
    return 0


def _select(run_refs: Sequence[str], arguments: Namespace, archived: bool = False) -> RunList:
    """Return the named runs for which --where holds; archived ones where they are asked for."""
    archived = archived or arguments.archived
    runs = list_runs(require_runs(run_refs, arguments.runs_dir, archived=archived))
    return runs if arguments.where is None else runs.where(arguments.where)


def _show(action: str, run_refs: Sequence[str], arguments: Namespace) -> int:
    """Show one run, or in what two differ."""
    num_expected = {"show": 1, "diff": 2}[action]
    if len(run_refs) != num_expected or arguments.where is not None:
        raise RequestError(
            f"runs {action}: expected {' '.join(['RUN'] * num_expected)}, got {len(run_refs)} names"
        )
    records = [find_record(run_ref, arguments.runs_dir) for run_ref in run_refs]
    report = run_details(records[0]) if action == "show" else run_diff(*records)
    if arguments.format == "json":
        say(json.dumps(report.to_json(), indent=2))
    elif isinstance(report, RunDiff):
        print_diff(report, Console())
    else:
        print_details(report, Console())
    return 0


def _delete(runs: RunList, with_question: bool) -> int:
    """Delete runs, after a question; says what that frees."""
    require_deletable([listed_run.record for listed_run in runs])
    freed_size = format_size(sum(directory_size(listed_run.path) for listed_run in runs))
    names = [listed_run.name for listed_run in runs]
    count_text = "1 run" if len(names) == 1 else f"{len(names)} runs"
    if with_question and not sys.stdin.isatty():
        raise RequestError(f"deleting {count_text} ({freed_size}) needs an answer; --yes gives it")
    remainder_lines = [f"... and {len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    say("\n".join([*names[:MOST_NAMED], *remainder_lines]))
    if with_question:
        answer = input(f"delete {count_text}, which frees {freed_size}? [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            say("nothing was deleted")
            return 0
    for listed_run in runs:
        delete_run(listed_run.record)
    say(f"deleted {count_text}; {freed_size} are free")
    return 0
