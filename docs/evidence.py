"""Write the tables of docs/attention.md from the results that were judged: `make docs` does so too.

A table stands between `<!-- NAME -->` and `<!-- end -->`; what stands there is written anew.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attnlab.analysis.statistics import estimate
from attnlab.analysis.table import format_number, interval_cell
from attnlab.run_record.bounds import SHARE

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).parent / "attention.md"
PRONOUN = {
    "held-out accuracy": "test/accuracy",
    "to the right noun": "pronoun/right",
    "to the wrong one": "pronoun/wrong",
    "flip": "pronoun/flip",
    "without it->right": "pronoun/cut_right",
    "without it->wrong": "pronoun/cut_wrong",
    "both twins right": "pronoun/twins",
}
MODELS = {
    "vanilla-1": "1 layer, 1 head",
    "multihead-1": "1 layer, 4 heads",
    "vanilla-2": "2 layers, 1 head",
    "multihead-2": "2 layers, 4 heads",
    "multihead-2-long": "the same, 1,500 steps at 2e-3",
    "moe-2": "2 layers, 4 heads, mixture of 4 experts",
    "causal-2": "2 layers, 4 heads, causal",
    "lstm-2": "BiLSTM, 2 layers",
    "lstm-2-long": "the same, 1,500 steps",
    "lstm_attention-2": "BiLSTM that reads its states, 2 layers",
    "lstm_attention-1": "the same, 1 layer of width 72",
}
RECALL = {
    "accuracy": "recall/whole",
    "reads, tokens behind": "recall/read_behind",
    "reads": "recall/read",
    "gathers there": "recall/gather",
    "of the token before": "recall/previous",
    "without the reading head": "recall/without_read",
    "with its mean pattern": "recall/without_read_mean",
    "without the gathering head": "recall/without_gather",
    "with its mean": "recall/without_gather_mean",
}


def results(paper: str, *scales: str) -> dict[str, list[Mapping[str, Any]]]:
    """Read the judged runs of each arm."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for scale in scales:
        arms = json.loads((ROOT / f"experiments/{paper}/results/{scale}.json").read_text())["arms"]
        found |= {label: arm["runs"] for label, arm in arms.items()}
    return found


def pronoun() -> Iterator[str]:
    """Give a row for each model: means and intervals over five seeds."""
    runs = results("pronoun", "check", "reading", "pointing")
    yield from header("model", PRONOUN)
    for label, name in MODELS.items():
        metrics = [run["metrics"] for run in runs[label]]
        cells = (_mean([one.get(key) for one in metrics]) for key in PRONOUN.values())
        yield f"| {name} | {' | '.join(cells)} |"


def mqar() -> Iterator[str]:
    """Give a row for each seed: which place is read is no number to average."""
    yield from header("seed", RECALL)
    for run in results("mqar", "circuit")["two-layers"]:
        values = (run["metrics"][key] for key in RECALL.values())
        cells = (format_number(value, 0 if value == round(value) else 3) for value in values)
        yield f"| {run['seed']} | {' | '.join(cells)} |"


def header(first: str, columns: Mapping[str, str]) -> Iterator[str]:
    """Give the first two lines of a table."""
    yield f"| {first} | {' | '.join(columns)} |"
    yield "|---" * (1 + len(columns)) + "|"


def page() -> str:
    """Give the page with its tables made anew."""
    text = PAGE.read_text()
    for name, make in {"pronoun": pronoun, "mqar": mqar}.items():
        table = "\n".join(make())
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}",
            text,
            flags=re.DOTALL,
        )
    return text


def _mean(values: Sequence[float | None]) -> str:
    there = [value for value in values if value is not None]
    return interval_cell(estimate(there, SHARE)).to_text() if len(there) == len(values) else "-"


if __name__ == "__main__":
    PAGE.write_text(page())
