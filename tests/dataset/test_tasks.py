"""Laws of generated tasks, found by listing conf/: each example is right, and stays what it is.

Every task has a checker of its labels in tests/dataset/checks, which knows nothing of how they were
made. `python -m tests.dataset.test_tasks` writes the hashes of all tasks anew: a visible decision.
"""

import json
import math
from collections import Counter
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate

from attnlab.config import compose, search_path
from attnlab.dataset.base import Task
from attnlab.split import IGNORE, Batch
from tests.choices import choices, dataset_words

GOLDEN = Path(__file__).parent / "golden.json"
SMALL = {"num_train": 400, "num_validation": 60, "num_test": 60}
NAMES = [name for name in choices("dataset") if not dataset_words(name)[1:]]


@cache
def stated(name: str) -> dict[str, Any]:
    with search_path() as trusted:
        values = compose(dataset_words(name), trusted).values["dataset"]
    return {**values, **{knob: size for knob, size in SMALL.items() if knob in values}}


def made(name: str, **changed: Any) -> Task:
    task = instantiate({**stated(name), **changed}, _execution_whitelist_=["attnlab.*"])
    if not isinstance(task, Task):
        pytest.skip("a text has no labels to check")
    return task


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def task(name) -> Task:
    return made(name)


def asked(task: Task, batch: Batch) -> tuple[list[str], dict[int, str] | list[str]]:
    """Write one example in words: what is read, and what is answered where."""
    (inputs,), (targets,) = batch.inputs.tolist(), batch.targets.tolist()
    whole = len(inputs) if batch.valid is None else int(batch.valid.sum())
    if batch.valid is not None:
        assert batch.valid[0, :whole].all(), "padding stands at the end"
    words, names = [task.tokens[token] for token in inputs[:whole]], task.classes or task.tokens
    if task.answer_length is not None:
        return words, [names[t] for t in targets if t != IGNORE]
    at = range(len(inputs)) if batch.at is None else batch.at[0].tolist()
    pairs = [(p, names[t]) for p, t in zip(at, targets, strict=True) if t != IGNORE]
    assert len(dict(pairs)) == len(pairs), "a position is asked once"
    assert all(p < whole for p, _ in pairs), "padding is not asked"
    return words, dict(pairs)


def test_every_label_is_what_an_independent_checker_says(task, name):
    check = import_module(f"tests.dataset.checks.{name}")
    for split in task.split_names:
        for index in range(min(len(task.splits[split]), 300)):
            words, given = asked(task, task.splits[split][index])
            assert given, "something is asked"
            right = check.answers(words, task)
            if getattr(check, "ASKS_MORE", False):
                # Where noise can look like a question, more can be answered than is asked.
                right = {at: right[at] for at in given}
            assert right == given, f"{split} {index}: {' '.join(words)}"


def test_tokens_lengths_and_scores_are_as_stated(task):
    assert len(set(task.tokens)) == len(task.tokens)
    assert 0 <= task.chance < task.best <= 1
    longest = max(task.splits[split][:].inputs.shape[1] for split in task.split_names)
    assert longest == task.max_length
    for split in task.split_names:
        batch = task.splits[split][:]
        assert batch.inputs.min() >= 0
        assert batch.inputs.max() < len(task.tokens)
        answers = batch.targets[batch.targets != IGNORE]
        assert answers.min() >= 0
        assert answers.max() < len(task.classes or task.tokens)


def test_nobody_beats_chance_by_one_answer_to_everything(task):
    batch = task.splits["train"][:]
    # The end of an answer follows from its length, which everybody sees.
    end = task.tokens.index(task.end) if task.end else IGNORE
    labels = batch.targets[(batch.targets != IGNORE) & (batch.targets != end)].tolist()
    share = max(Counter(labels).values()) / len(labels)
    # The labels of one example may hang together.
    assert share <= task.chance + 4 * math.sqrt(task.chance * (1 - task.chance) / len(batch.inputs))


def test_no_example_stands_in_two_splits(task):
    held: set[tuple[int, ...]] = set()
    for split in task.split_names:
        batch = task.splits[split][:]
        rows = {
            tuple(row if batch.valid is None else [t for t, v in zip(row, valid, strict=True) if v])
            for row, valid in zip(
                batch.inputs.tolist(),
                batch.inputs.tolist() if batch.valid is None else batch.valid.tolist(),
                strict=True,
            )
        }
        assert not rows & held, split
        held |= rows


def test_an_example_hangs_on_seed_split_and_number_alone(name, task):
    if "num_train" not in stated(name):
        pytest.skip("all examples there are, parted by the seed")
    longer = made(name, num_train=1500)
    for split in ("test", "validation", "train"):
        one, other = task.splits[split][:50], longer.splits[split][:50]
        assert all(a is None or a.equal(b) for a, b in zip(one[:4], other[:4], strict=True))


def test_slices_are_whole_numbers_for_examples_or_labels(task):
    batch = task.splits["test"][:20]
    for where in task.slices(batch).values():
        assert where.shape in (batch.targets.shape[:1], batch.targets.shape)
        assert not where.is_floating_point()
        counted = where[batch.targets != IGNORE] if where.ndim == 2 else where
        assert counted.min() >= 0


def test_an_example_reads_well(task):
    shown = task.show("test", 0).splitlines()
    assert 2 <= len(shown) <= 2 + task.max_length
    assert all(line == line.rstrip() for line in shown)
    words, _ = asked(task, task.splits["test"][0])
    assert shown[0].split()[: len(words)] == words


@pytest.mark.parametrize("knob", ["num_train", "num_validation", "num_test"])
def test_an_empty_split_is_refused(name, knob):
    if knob not in stated(name):
        pytest.skip("all examples there are, parted by the seed")
    with pytest.raises(Exception, match=f"{knob}=0 must be at least 1"):
        made(name, **{knob: 0})


def test_the_bytes_are_those_of_yesterday(task, name):
    assert json.loads(GOLDEN.read_text()).get(name) == task.data_hash, (
        "the examples have changed; if that is meant, `python -m tests.dataset.test_tasks`"
    )


def test_every_hash_belongs_to_a_task():
    assert json.loads(GOLDEN.read_text()).keys() <= set(NAMES)


if __name__ == "__main__":
    tasks = {name: instantiate(stated(name), _execution_whitelist_=["attnlab.*"]) for name in NAMES}
    hashes = {name: task.data_hash for name, task in tasks.items() if isinstance(task, Task)}
    GOLDEN.write_text(json.dumps(hashes, indent=2) + "\n")
