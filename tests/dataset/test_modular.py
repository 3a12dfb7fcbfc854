"""The table of an operation modulo a prime, parted by the data seed."""

import numpy as np
import pytest
import torch

from attnlab.dataset.base import random_stream
from attnlab.dataset.modular import SIGNS, Modular
from tests.dataset.checks import modular
from tests.prose import refuses
from tests.refused_calls import refused_calls


@pytest.mark.parametrize("operation", SIGNS)
@pytest.mark.parametrize("prime", [3, 13])
def test_the_splits_are_the_whole_table_each_pair_once(operation, prime):
    task = Modular(prime=prime, operation=operation)
    pairs = []
    for split in task.splits.values():
        batch = split[:]
        assert batch.at is not None
        assert (batch.at == 3).all()
        for inputs, target in zip(batch.inputs.tolist(), batch.targets[:, 0].tolist(), strict=True):
            words = [task.tokens[token] for token in inputs]
            assert modular.answers(words, task) == {3: task.tokens[target]}
            pairs.append((inputs[0], inputs[2]))
    first = 1 if operation == "division" else 0
    assert sorted(pairs) == [(a, b) for a in range(prime) for b in range(first, prime)]


def test_shares_are_of_all_pairs_then_of_the_rest():
    task = Modular(prime=97, train_share=0.3, validation_share=0.1)
    sizes = {name: len(split) for name, split in task.splits.items()}
    assert sizes == {"train": 2823, "validation": 659, "test": 9409 - 2823 - 659}
    assert sizes == task.sizes


def test_the_seed_parts_the_table_and_more_training_keeps_what_was_there():
    one, same, other = (Modular(seed=seed).data_hash for seed in (0, 0, 1))
    assert one == same != other
    small, large = (Modular(train_share=share).splits["train"][:].inputs for share in (0.3, 0.6))
    assert torch.equal(large[: len(small)], small)


def test_the_order_is_no_order():
    inputs = Modular(prime=97).splits["train"][:].inputs
    for column in (0, 2):
        numbers = inputs[:, column].double()
        correlation = torch.corrcoef(torch.stack([numbers[1:], numbers[:-1]]))[0, 1]
        assert abs(correlation) < 4 / len(numbers) ** 0.5


def test_rows_are_those_of_their_split():
    task = Modular(prime=7)
    for split in task.split_names:
        examples = {tuple(row) for row in task.splits[split][:].inputs.tolist()}
        rows = task.draw_examples(random_stream(0, split, 0), 500, split)
        assert {tuple(row) for row in rows.inputs.tolist()} == examples


@pytest.mark.parametrize("operation", SIGNS)
def test_chance_is_the_share_of_the_commonest_answer_of_the_table(operation):
    task = Modular(prime=11, operation=operation)
    targets = np.concatenate([split[:].targets[:, 0].numpy() for split in task.splits.values()])
    assert task.chance == pytest.approx(np.bincount(targets).max() / len(targets))


def test_a_text_is_asked_at_its_end_sign():
    task = Modular(prime=7)
    assert task.batch_of_text("5 + 3 =").at == 3
    with refuses(ValueError, "dataset.modular.no_end"):
        task.batch_of_text("5 + 3")


def test_an_impossible_task_is_refused():
    refused_calls(
        "dataset.modular.{}",
        {
            "no_prime": lambda: Modular(prime=91),
            "one": lambda: Modular(prime=1),
            "unknown_operation": lambda: Modular(operation="power"),
            "all_for_training": lambda: Modular(train_share=1.0),
            "nothing_for_validation": lambda: Modular(validation_share=0.0),
            "empty_split": lambda: Modular(prime=2, validation_share=0.1),
        },
    )
