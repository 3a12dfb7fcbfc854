"""Laws of datasets that are read, found by listing conf/, and what splits are made of."""

import json
import os
import subprocess
import sys
import traceback
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from attnlab.dataset.base import SPLITS, Dataset, draw_disjoint, hash_rows, random_stream
from attnlab.dataset.text import Text
from attnlab.split import IGNORE, Batch, ExampleArrays, Examples, Split, Windows
from tests.choices import choices, dataset_words
from tests.dataset.stated import build, stated
from tests.prose import refuses

READ = [name for name in choices("dataset") if dataset_words(name)[1:] or name == "pydocs"]
"""Those that need files; tests/dataset/test_tasks.py has the laws of all that are drawn."""


class Built(NamedTuple):
    """A dataset as its YAML states it, of small files."""

    name: str
    dataset: Dataset


def everything(split: Split) -> Batch:
    return split.batch(np.arange(len(split)))


def contents(dataset: Dataset, split: Split) -> set:
    """Give what must not stand in two splits: rows, or the paragraphs of a text."""
    if isinstance(split, Windows):
        text = "".join(dataset.tokens[token] for token in split.tokens)
        return {" ".join(part.split()) for part in text.split("\n\n")} - {""}
    return {row.tobytes() for row in everything(split).inputs.numpy()}


def no_example_stands_in_two_splits(built: Built) -> None:
    dataset = built.dataset
    if isinstance(dataset, Text):
        parts = [dataset.splits[split] for split in ("train", "validation", "test")]
        text = np.concatenate([part.tokens for part in parts if isinstance(part, Windows)])
        assert np.array_equal(text, dataset.whole)
        return
    test, validation, train = (contents(dataset, dataset.splits[split]) for split in SPLITS)
    assert min(map(len, (test, validation, train))) > 0
    assert not test & validation
    assert not (test | validation) & train


def reading_neither_hangs_on_nor_moves_a_global_random_state(built: Built) -> None:
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = repr((np.random.get_state(), torch.get_rng_state().tolist()))  # noqa: NPY002
    assert build(built.name).data_hash == built.dataset.data_hash
    assert repr((np.random.get_state(), torch.get_rng_state().tolist())) == before  # noqa: NPY002


def numbers_name_tokens_and_classes(built: Built) -> None:
    dataset = built.dataset
    names = dataset.classes or dataset.tokens
    assert len(set(dataset.tokens)) == len(dataset.tokens)
    assert len(set(names)) == len(names)
    widths = set()
    for split in dataset.splits.values():
        batch = split.batch(np.arange(min(len(split), 3000)))
        widths.add(batch.inputs.shape[1])
        assert 0 <= batch.inputs.min() <= batch.inputs.max() < len(dataset.tokens)
        targets = batch.targets[batch.targets != IGNORE]
        assert 0 <= targets.min() <= targets.max() < len(names)
        if dataset.answer_length is not None:
            assert len(batch.targets) == len(batch.inputs)
            assert batch.targets.shape[1] <= dataset.answer_length
        elif batch.at is None:
            assert batch.targets.shape == batch.inputs.shape
        else:
            assert batch.targets.shape == batch.at.shape
            assert 0 <= batch.at.min() <= batch.at.max() < dataset.max_length
        if batch.valid is not None:
            assert batch.valid[:, 0].all()
            assert not (batch.valid[:, 1:] & ~batch.valid[:, :-1]).any(), "padding in the middle"
            if batch.at is not None:
                counted = batch.targets != IGNORE
                assert batch.valid.gather(1, batch.at)[counted].all()
    assert max(widths) == dataset.max_length


def a_batch_is_its_examples(built: Built) -> None:
    split = built.dataset.splits["validation"]
    numbers = np.array([7, 3, 7]) % len(split)
    together = split.batch(numbers)
    for row, number in enumerate(numbers):
        for batched, alone in zip(together, split.batch(np.array([number])), strict=True):
            assert (batched is None) == (alone is None)
            assert batched is None or alone is None or torch.equal(batched[row], alone[0])


def a_size_or_seed_that_cannot_be_is_refused(built: Built) -> None:
    for knob, value in {"seed": -1, "length": 0}.items():
        if knob in stated(built.name):
            kind = type(built.dataset).__name__.lower()
            with refuses(ValueError, f"dataset.impossible.{kind}_{knob}"):
                build(built.name, **{knob: value})


def one_example_can_be_read(built: Built) -> None:
    dataset = built.dataset
    number = min(2, len(dataset.splits["test"]) - 1)
    batch = dataset.splits["test"].batch(np.array([number]))
    shown = dataset.show("test", number)
    names = dataset.classes or dataset.tokens
    assert shown.startswith(dataset.decode([int(batch.inputs[0, 0])]))
    asked = batch.targets[batch.targets != IGNORE]
    assert names[asked[-1]] in shown.splitlines()[-1]
    assert len(shown.splitlines()) < 2 + dataset.max_length


LAWS = (
    no_example_stands_in_two_splits,
    reading_neither_hangs_on_nor_moves_a_global_random_state,
    numbers_name_tokens_and_classes,
    a_batch_is_its_examples,
    a_size_or_seed_that_cannot_be_is_refused,
    one_example_can_be_read,
)


@pytest.mark.parametrize("name", READ)
def test_a_dataset_that_is_read_keeps_every_law(name):
    built = Built(name, build(name))
    offenders = {}
    for law in LAWS:
        try:
            law(built)
        except (Exception, pytest.fail.Exception):
            offenders[law.__name__] = traceback.format_exc(limit=-2)
    assert not offenders, "\n".join(f"{law}: {fault}" for law, fault in offenders.items())


HASHES = """
import json, sys
from attnlab.building import NO_USER_TARGETS, build
for node in json.load(sys.stdin):
    print(build(node, "dataset", NO_USER_TARGETS).data_hash)
"""


@pytest.mark.slow
def test_another_process_reads_the_same_bytes(tmp_path):
    nodes: list[dict[str, Any]] = [stated(name) for name in READ]
    # Without what this process kept, and with other hashes of its strings.
    environment = {**os.environ, "PYTHONHASHSEED": "1", "ATTNLAB_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", HASHES],
        input=json.dumps(nodes),
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    hashes = dict(zip(READ, done.stdout.split(), strict=True))
    assert hashes == {name: build(name).data_hash for name in READ}


def test_a_digest_covers_every_array():
    rows = np.arange(12, dtype=np.int32).reshape(4, 3)
    arrays = (rows, rows[:, :1], rows[:, 1:2], rows > 2)
    first = Examples(*arrays).digest()
    assert Examples(*(array.copy() for array in arrays)).digest() == first
    for place in range(4):
        changed = [array.copy() for array in arrays]
        changed[place][2, 0] = not changed[place][2, 0]
        assert Examples(*changed).digest() != first
    assert Examples(rows, rows[:, :1], rows[:, 1:2]).digest() != first


def test_windows_ask_for_the_token_that_follows():
    text = np.array([5, 3, 8, 1, 9, 2, 7, 4, 6], dtype=np.uint8)
    batch = everything(Windows(text, 3, 1))
    assert batch.inputs.tolist() == [text[i : i + 3].tolist() for i in range(6)]
    assert batch.targets.tolist() == [text[i + 1 : i + 4].tolist() for i in range(6)]


def test_windows_apart_by_their_length_ask_for_each_token_but_the_first_once():
    # From one window to four, each remainder once.
    for size in range(6, 19):
        batch = everything(Windows(np.arange(size, dtype=np.uint8), 4, 4))
        asked = batch.targets != IGNORE
        assert batch.targets[asked].tolist() == list(range(1, size)), size
        assert torch.equal(batch.targets[asked], batch.inputs[asked] + 1), size


def test_a_digest_of_windows_covers_text_length_and_stride():
    text = np.arange(20, dtype=np.uint8)
    splits = [Windows(text, 4, 1), Windows(text[::-1], 4, 1), Windows(text, 5, 1)]
    splits += [Windows(text, 4, 2), Windows(text.astype(np.uint16), 4, 1)]
    assert len({split.digest() for split in splits}) == 5


def test_no_block_of_a_split_repeats_another():
    draws = [random_stream(7, s, block).random(50) for s in SPLITS for block in (0, 1, 2**20)]
    assert len(np.unique(np.stack(draws))) == 9 * 50


def test_different_rows_have_different_hashes():
    # Every row of three digits, and orders of seven tokens: rows that a weak hash mixes up.
    digits = np.indices((30, 30, 30)).reshape(3, -1).T
    assert len(np.unique(hash_rows(digits))) == 30**3
    orders = np.random.Generator(np.random.Philox(1)).permuted(
        np.tile(np.arange(7), (5_000, 1)), axis=1
    )
    assert len(np.unique(hash_rows(orders))) == len(np.unique(orders, axis=0))
    assert np.array_equal(hash_rows(orders[:5].copy()), hash_rows(orders)[:5])


def digits(generator: np.random.Generator, n: int) -> ExampleArrays:
    rows = generator.integers(40, size=(n, 1), dtype=np.int32)
    return ExampleArrays(rows, 2 * rows)


def test_only_examples_that_an_earlier_split_holds_are_redrawn():
    test = draw_disjoint(digits, 0, "test", 10, {})
    alone = draw_disjoint(digits, 0, "train", 3000, {})
    train = draw_disjoint(digits, 0, "train", 3000, {"test": test})
    held = np.isin(alone.arrays[0], test.arrays[0])[:, 0]
    assert held.any()
    assert not np.isin(train.arrays[0], test.arrays[0]).any()
    assert np.array_equal(train.arrays[0][~held], alone.arrays[0][~held])
    assert np.array_equal(train.arrays[1], 2 * train.arrays[0])


def test_every_block_is_drawn_anew():
    rows = draw_disjoint(digits, 0, "train", 2048, {}).arrays[0]
    assert not np.array_equal(rows[:1024], rows[1024:])


def test_a_task_with_nothing_left_for_a_split_is_refused():
    test = draw_disjoint(digits, 0, "test", 1000, {})
    with refuses(ValueError, "dataset.too_few_examples"):
        draw_disjoint(digits, 0, "train", 5, {"test": test})
