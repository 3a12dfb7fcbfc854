"""Laws of generated tasks, found by listing conf/: each example is right, and stays what it is.

Every task has a checker of its labels in tests/dataset/checks, which knows nothing of how they were
made. `python -m tests.dataset.test_tasks` writes the hashes of all tasks anew: a visible decision.
A task is drawn once and held to all laws.
"""

import json
import math
import traceback
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from attnlab.dataset.base import Task
from attnlab.dataset.export import column_features, example_columns
from attnlab.split import IGNORE
from tests.choices import choices, dataset_words
from tests.dataset.asked import assert_row, in_words
from tests.dataset.stated import SMALL, build, stated
from tests.prose import refuses

GOLDEN = Path(__file__).parent / "golden.json"
NAMES = [name for name in choices("dataset") if not dataset_words(name)[1:]]


class Drawn(NamedTuple):
    """A task as its YAML states it, but small."""

    name: str
    task: Task


def every_label_is_what_an_independent_checker_says(drawn: Drawn) -> None:
    task, check = drawn.task, import_module(f"tests.dataset.checks.{drawn.name}")
    for split in task.split_names:
        for index in range(min(len(task.splits[split]), 300)):
            words, labels = in_words(task, task.splits[split][index])
            assert labels, "something is asked"
            right = check.answers(words, task)
            if getattr(check, "ASKS_MORE", False):
                # Where noise can look like a question, more can be answered than is asked.
                right = {at: right[at] for at in labels}
            assert right == labels, f"{split} {index}: {' '.join(words)}"


def tokens_lengths_and_scores_are_as_stated(drawn: Drawn) -> None:
    task = drawn.task
    names = task.classes or task.tokens
    assert len(set(task.tokens)) == len(task.tokens)
    assert len(set(names)) == len(names)
    assert 0 <= task.chance < task.best <= 1
    longest = max(task.splits[split][:].inputs.shape[1] for split in task.split_names)
    assert longest == task.max_length
    for split in task.split_names:
        batch = task.splits[split][:]
        assert batch.inputs.min() >= 0
        assert batch.inputs.max() < len(task.tokens)
        answers = batch.targets[batch.targets != IGNORE]
        assert answers.min() >= 0
        assert answers.max() < len(names)
        if task.answer_length is not None:
            assert batch.targets.shape[1] <= task.answer_length


def nobody_beats_chance_by_one_answer_to_everything(drawn: Drawn) -> None:
    task = drawn.task
    batch = task.splits["train"][:]
    # The end of an answer follows from its length, which everybody sees.
    end = task.tokens.index(task.end) if task.end else IGNORE
    labels = batch.targets[(batch.targets != IGNORE) & (batch.targets != end)].tolist()
    share = max(Counter(labels).values()) / len(labels)
    # The labels of one example may hang together.
    assert share <= task.chance + 4 * math.sqrt(task.chance * (1 - task.chance) / len(batch.inputs))


def no_example_stands_in_two_splits(drawn: Drawn) -> None:
    earlier: set[tuple[int, ...]] = set()
    for split in drawn.task.split_names:
        batch = drawn.task.splits[split][:]
        lengths = [None] * len(batch.inputs) if batch.valid is None else batch.valid.sum(1).tolist()
        rows = {
            tuple(row[:length]) for row, length in zip(batch.inputs.tolist(), lengths, strict=True)
        }
        assert rows
        assert not rows & earlier, split
        earlier |= rows


def an_example_hangs_on_seed_split_and_number_alone(drawn: Drawn) -> None:
    if "num_train" in stated(drawn.name):
        # More than a block.
        longer = build(drawn.name, num_train=1500)
        for split in ("test", "validation", "train"):
            first, same = drawn.task.splits[split][:], longer.splits[split][: SMALL[f"num_{split}"]]
            for a, b in zip(first, same, strict=True):
                assert (a is None) == (b is None)
                assert a is None or b is None or a.equal(b)


def another_seed_gives_other_bytes_in_every_split(drawn: Drawn) -> None:
    if "seed" in stated(drawn.name):
        other = build(drawn.name, seed=1)
        for split in drawn.task.split_names:
            assert other.splits[split].digest() != drawn.task.splits[split].digest()


def drawing_neither_reads_nor_moves_a_global_random_state(drawn: Drawn) -> None:
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = repr((np.random.get_state(), torch.get_rng_state().tolist()))  # noqa: NPY002
    again = build(drawn.name)
    assert again.data_hash == drawn.task.data_hash
    assert repr((np.random.get_state(), torch.get_rng_state().tolist())) == before  # noqa: NPY002


def slices_are_whole_numbers_for_examples_or_labels(drawn: Drawn) -> None:
    batch = drawn.task.splits["test"][:20]
    for where in drawn.task.slices(batch).values():
        assert where.shape in (batch.targets.shape[:1], batch.targets.shape)
        assert not where.is_floating_point()
        counted = where[batch.targets != IGNORE] if where.ndim == 2 else where
        assert counted.min() >= 0


def a_batch_is_its_examples(drawn: Drawn) -> None:
    split = drawn.task.splits["validation"]
    together = split.batch(np.array([7, 3, 7]))
    for row, index in enumerate((7, 3, 7)):
        for batched, alone in zip(together, split.batch(np.array([index])), strict=True):
            assert (batched is None) == (alone is None)
            assert batched is None or alone is None or torch.equal(batched[row], alone[0])


def an_example_reads_well(drawn: Drawn) -> None:
    shown = drawn.task.show("test", 0).splitlines()
    assert 2 <= len(shown) <= 2 + drawn.task.max_length
    assert all(line == line.rstrip() for line in shown)
    words, _ = in_words(drawn.task, drawn.task.splits["test"][0])
    assert shown[0].split()[: len(words)] == words


def a_table_has_the_columns_of_what_a_model_is_asked(drawn: Drawn) -> None:
    batch = drawn.task.splits[drawn.task.report_split][:5]
    table = example_columns(drawn.task, batch)
    types = column_features(drawn.task).arrow_schema
    assert {name: column.type for name, column in table.items()} == {f.name: f.type for f in types}
    for number in range(len(batch.inputs)):
        row = {name: column[number].as_py() for name, column in table.items()}
        assert_row(drawn.task, batch, number, row)


def a_size_or_seed_that_cannot_be_is_refused(drawn: Drawn) -> None:
    for knob, value in {**dict.fromkeys(SMALL, 0), "seed": -1}.items():
        if knob in stated(drawn.name):
            with refuses(ValueError, f"dataset.impossible.{knob}"):
                build(drawn.name, **{knob: value})


def the_bytes_are_those_of_yesterday(drawn: Drawn) -> None:
    assert json.loads(GOLDEN.read_text()).get(drawn.name) == drawn.task.data_hash, (
        "the examples have changed; if that is meant, `python -m tests.dataset.test_tasks`"
    )


LAWS = (
    every_label_is_what_an_independent_checker_says,
    tokens_lengths_and_scores_are_as_stated,
    nobody_beats_chance_by_one_answer_to_everything,
    no_example_stands_in_two_splits,
    an_example_hangs_on_seed_split_and_number_alone,
    another_seed_gives_other_bytes_in_every_split,
    drawing_neither_reads_nor_moves_a_global_random_state,
    slices_are_whole_numbers_for_examples_or_labels,
    a_batch_is_its_examples,
    an_example_reads_well,
    a_table_has_the_columns_of_what_a_model_is_asked,
    a_size_or_seed_that_cannot_be_is_refused,
    the_bytes_are_those_of_yesterday,
)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_keeps_every_law(name):
    task = build(name)
    if not isinstance(task, Task):
        pytest.skip("a text has no labels to check; test_base.py has its laws")
    offenders = {}
    for law in LAWS:
        try:
            law(Drawn(name, task))
        except (Exception, pytest.fail.Exception):
            offenders[law.__name__] = traceback.format_exc(limit=-2)
    assert not offenders, "\n".join(f"{law}: {fault}" for law, fault in offenders.items())


def test_every_hash_belongs_to_a_task():
    assert json.loads(GOLDEN.read_text()).keys() <= set(NAMES)


if __name__ == "__main__":
    tasks = {name: build(name) for name in NAMES}
    hashes = {name: task.data_hash for name, task in tasks.items() if isinstance(task, Task)}
    GOLDEN.write_text(json.dumps(hashes, indent=2) + "\n")
