"""Laws that every dataset keeps, found by listing conf/, and what splits are made of."""

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from attnlab.dataset.base import SPLITS, Dataset, draw_distinct, row_hash, stream
from attnlab.dataset.text import Text
from attnlab.split import IGNORE, Batch, Examples, Rows, Split, Windows
from tests.choices import choices, dataset_words, marked

Make = Callable[..., Dataset]


KINDS = ("mqar", "pronoun", "pydocs", "reversal", "text", "sentences")
READ = [name for name in choices("dataset") if dataset_words(name)[1:]]
"""Those that need files; tests/dataset/test_tasks.py has the laws of all that are drawn."""


@pytest.fixture(params=[*KINDS, *(marked(name, ()) for name in READ if name not in KINDS)])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def stated(composed, name) -> dict[str, Any]:
    return composed(*dataset_words(name)).values["dataset"]


@pytest.fixture
def make(stated) -> Make:
    """Build the dataset as its YAML states it, with some knobs changed."""

    def build(**changed) -> Dataset:
        assert changed.keys() <= stated.keys()
        try:
            return instantiate({**stated, **changed}, _execution_whitelist_=["attnlab.*"])
        except InstantiationException as error:
            raise (error.__cause__ or error) from None

    return build


def knobs(dataset: Dataset) -> set[str]:
    parameters = inspect.signature(type(dataset)).parameters.values()
    return {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def everything(split: Split) -> Batch:
    return split.batch(np.arange(len(split)))


def contents(dataset: Dataset, split: Split) -> set:
    """Give what must not stand in two splits: rows, or the paragraphs of a text."""
    if isinstance(split, Windows):
        text = "".join(dataset.tokens[token] for token in split.tokens)
        return {" ".join(part.split()) for part in text.split("\n\n")} - {""}
    return {row.tobytes() for row in everything(split).inputs.numpy()}


def test_the_same_seed_gives_the_same_bytes(make):
    assert make().data_hash == make().data_hash


def test_another_seed_gives_other_bytes_in_every_split(make):
    if "seed" not in knobs(make()) or "path" in knobs(make()):
        pytest.skip("what is read is parted where it lies, or has its own parts")
    one, other = make(seed=1), make(seed=2)
    for split in SPLITS:
        assert one.splits[split].digest() != other.splits[split].digest()


def test_no_example_stands_in_two_splits(make):
    dataset = make()
    if isinstance(dataset, Text):
        parts = [dataset.splits[split] for split in ("train", "validation", "test")]
        whole = np.concatenate([part.tokens for part in parts if isinstance(part, Windows)])
        assert np.array_equal(whole, dataset.whole)
        return
    test, validation, train = (contents(dataset, dataset.splits[split]) for split in SPLITS)
    assert min(map(len, (test, validation, train))) > 0
    assert not test & validation
    assert not (test | validation) & train


def test_drawing_neither_reads_nor_moves_a_global_random_state(make):
    hashes = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        before = repr((np.random.get_state(), torch.get_rng_state().tolist()))  # noqa: NPY002
        hashes.append(make().data_hash)
        after = repr((np.random.get_state(), torch.get_rng_state().tolist()))  # noqa: NPY002
        assert before == after
    assert hashes[0] == hashes[1]


@pytest.mark.slow
def test_another_process_draws_the_same_bytes(make, stated):
    script = (
        "from hydra.utils import instantiate; "
        f"task = instantiate({stated!r}, _execution_whitelist_=['attnlab.*']); "
        "print(task.data_hash)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == make().data_hash


def test_an_example_does_not_depend_on_how_many_are_asked_for(make):
    if "num_train" not in knobs(make()):
        pytest.skip("a corpus has the examples that it has")
    few, many = make(num_train=1500), make(num_train=2500)
    one, other = everything(few.splits["train"]), everything(many.splits["train"])
    assert len(one.inputs) == 1500
    assert len(other.inputs) == 2500
    for short, long in zip(one, other, strict=True):
        assert (short is None) == (long is None)
        if short is not None and long is not None:
            assert torch.equal(short, long[:1500])
    for split in ("test", "validation"):
        assert few.splits[split].digest() == many.splits[split].digest()


def test_numbers_name_tokens_and_classes(make):
    dataset = make()
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


def test_a_batch_is_its_examples(make):
    split = make().splits["validation"]
    together = split.batch(np.array([7, 3, 7]))
    for row, index in enumerate((7, 3, 7)):
        for whole, alone in zip(together, split.batch(np.array([index])), strict=True):
            assert whole is None or torch.equal(whole[row], alone[0])


@pytest.mark.parametrize(
    ("knob", "value"), [("seed", -1), ("num_train", 0), ("num_test", -5), ("length", 0)]
)
def test_a_size_or_seed_that_cannot_be_is_refused(make, knob, value):
    dataset = make()
    if knob not in knobs(dataset):
        pytest.skip(f"has no {knob}")
    with pytest.raises(ValueError, match=rf"{knob.removeprefix('num_')}.*{value}"):
        make(**{knob: value})


def test_one_example_can_be_read(make):
    dataset = make()
    batch = dataset.splits["test"].batch(np.array([2]))
    shown = dataset.show("test", 2)
    names = dataset.classes or dataset.tokens
    assert shown.startswith(dataset.write([int(batch.inputs[0, 0])]))
    asked = batch.targets[batch.targets != IGNORE]
    assert names[asked[-1]] in shown.splitlines()[-1]
    assert len(shown.splitlines()) < 2 + dataset.max_length


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


@pytest.mark.parametrize("size", range(6, 24))
def test_windows_apart_by_their_length_ask_for_each_token_but_the_first_once(size):
    text = np.arange(size, dtype=np.uint8)
    batch = everything(Windows(text, 4, 4))
    assert batch.targets[batch.targets != IGNORE].tolist() == list(range(1, size))
    asked = batch.targets != IGNORE
    assert torch.equal(batch.targets[asked], batch.inputs[asked] + 1)


def test_a_digest_of_windows_covers_text_length_and_stride():
    text = np.arange(20, dtype=np.uint8)
    splits = [Windows(text, 4, 1), Windows(text[::-1], 4, 1), Windows(text, 5, 1)]
    splits += [Windows(text, 4, 2), Windows(text.astype(np.uint16), 4, 1)]
    assert len({split.digest() for split in splits}) == 5


def test_no_block_of_a_split_repeats_another():
    draws = [stream(7, s, block).random(50) for s in SPLITS for block in (0, 1, 2**20)]
    assert len(np.unique(np.stack(draws))) == 9 * 50


def test_different_rows_have_different_hashes():
    # Every row of three digits, and every order of seven tokens: rows that a weak hash mixes up.
    digits = np.indices((60, 60, 60)).reshape(3, -1).T
    assert len(np.unique(row_hash(digits))) == 60**3
    orders = np.random.Generator(np.random.Philox(1)).permuted(
        np.tile(np.arange(7), (20_000, 1)), axis=1
    )
    assert len(np.unique(row_hash(orders))) == len(np.unique(orders, axis=0))
    assert np.array_equal(row_hash(orders[:5].copy()), row_hash(orders)[:5])


def digits(generator: np.random.Generator, n: int) -> Rows:
    rows = generator.integers(40, size=(n, 1), dtype=np.int32)
    return Rows(rows, 2 * rows)


def test_only_examples_that_an_earlier_split_holds_are_redrawn():
    test = draw_distinct(digits, 0, "test", 10, {})
    alone = draw_distinct(digits, 0, "train", 3000, {})
    train = draw_distinct(digits, 0, "train", 3000, {"test": test})
    held = np.isin(alone.arrays[0], test.arrays[0])[:, 0]
    assert held.any()
    assert not np.isin(train.arrays[0], test.arrays[0]).any()
    assert np.array_equal(train.arrays[0][~held], alone.arrays[0][~held])
    assert np.array_equal(train.arrays[1], 2 * train.arrays[0])


def test_every_block_is_drawn_anew():
    rows = draw_distinct(digits, 0, "train", 2048, {}).arrays[0]
    assert not np.array_equal(rows[:1024], rows[1024:])


def test_a_task_with_nothing_left_for_a_split_is_refused():
    test = draw_distinct(digits, 0, "test", 1000, {})
    with pytest.raises(ValueError, match="too few different examples for a train split of 5 "):
        draw_distinct(digits, 0, "train", 5, {"test": test})
