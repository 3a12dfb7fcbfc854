"""What `attnlab sync` prints of the copies of runs."""

import shlex
from collections import Counter
from pathlib import Path

from attnlab.analysis.left_out import describe_by_state
from attnlab.console import Console
from attnlab.launch.sync import SyncedRun, SyncReport

HINTS = {
    "wandb": "`wandb sync {root}/{pattern}/offline-run-*` uploads what is there",
    "tensorboard": "`tensorboard --logdir {root}` shows what is there",
    "csv": "files: {root}/{pattern}/metrics.csv",
}
TEXT_BY_STATUS = {"sent": "sent", "present": "already there", "failed": "failed"}


def sync_line(synced_run: SyncedRun) -> str:
    """Return one line on a run."""
    text = TEXT_BY_STATUS[synced_run.status]
    details = {"sent": f"to {synced_run.place}", "present": f"since {synced_run.at}"}
    detail = details.get(synced_run.status, f"{synced_run.reason}")
    separator = ":" if synced_run.status == "failed" else ""
    return f"{synced_run.run}  {text}{separator} {detail}"


def print_summary(report: SyncReport, console: Console, is_online: bool) -> None:
    """Print how many runs were sent, what failed, what was left out, and how to look at copies."""
    counts = Counter(TEXT_BY_STATUS[run.status] for run in report.runs)
    count_texts = [f"{counts[text]} {text}" for text in TEXT_BY_STATUS.values() if counts[text]]
    num_runs = len(report.runs)
    console.print(f"{num_runs} run{'s' * (num_runs != 1)}: {', '.join(count_texts)}")
    for synced_run in report.runs:
        if synced_run.status == "failed":
            console.print(f"  failed: {synced_run.run}: {synced_run.reason}")
    if report.left_out:
        console.print(f"left out, {describe_by_state(report.left_out)}")
    copies = [Path(run.place) for run in report.runs if run.place and run.status != "failed"]
    if copies and not is_online:
        console.print(_hint(copies[-1], HINTS[report.tool]))


def _hint(copy: Path, template: str) -> str:
    """Return a hint with the pattern of all copies that lie as one of them does."""
    copies_dir = copy.parent
    pattern_parts = ("*", "attempts", "*") if copies_dir.parent.name == "attempts" else ("*",)
    root = shlex.quote(str(copies_dir.parents[len(pattern_parts) - 1]))
    return template.format(root=root, pattern="/".join((*pattern_parts, copy.name)))
