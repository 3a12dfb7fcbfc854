"""Rows of tasks, drawn and held against an independent checker."""

from importlib import import_module
from typing import Any

import numpy as np
from hypothesis import strategies as st

from attnlab.dataset.base import Task, random_stream
from attnlab.split import IGNORE, ExampleArrays
from tests.dataset.checks import check
from tests.depth import examples

FEW = examples(15)
SEEDS = st.integers(0, 2**63 - 1)


def rows(task: Task, n: int = 1024, split: str = "train") -> ExampleArrays:
    """Draw rows of one block."""
    return task.draw_examples(random_stream(3, split, 0), n, split)


def blocks(task: Task, count: int, split: str = "train") -> ExampleArrays:
    """Draw whole blocks of 1,024 rows."""
    parts = [
        task.draw_examples(random_stream(5, split, block), 1024, split) for block in range(count)
    ]
    return ExampleArrays(*map(_joined, *parts))


def holds(name: str, task: Task, seed: int, split: str = "train") -> None:
    """Hold the checker of a task against a few rows."""
    answers = import_module(f"tests.dataset.checks.{name}").answers
    check(answers, task, task.draw_examples(random_stream(seed, split, 0), 8, split))


def words(task: Task, drawn: ExampleArrays, row: int) -> list[str]:
    """Give what a row has to be read."""
    inputs = drawn.inputs[row] if drawn.valid is None else drawn.inputs[row, drawn.valid[row]]
    return [task.tokens[token] for token in inputs]


def labels(task: Task, drawn: ExampleArrays, row: int) -> list[str]:
    """Give what a row is answered with."""
    names = task.classes or task.tokens
    return [names[label] for label in drawn.targets[row] if label != IGNORE]


def _joined(*arrays: Any) -> Any:
    return None if arrays[0] is None else np.concatenate(arrays)
