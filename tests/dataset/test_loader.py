"""The order of training: every example once an epoch, each batch a function of its number."""

import numpy as np
import pytest
from scipy.stats import chisquare

from attnlab import split
from attnlab.dataset.loader import Loader
from attnlab.split import Examples, permutation_at
from tests.prose import refuses


def test_an_epoch_shows_every_example_once_and_the_next_one_in_another_order():
    inputs = np.arange(12, dtype=np.int32)[:, None]
    loader = Loader(Examples(inputs, inputs), batch_size=4, seed=3)
    epochs = [[loader.batch(3 * e + b).inputs.flatten().tolist() for b in range(3)] for e in (0, 1)]
    orders = [[i for batch in epoch for i in batch] for epoch in epochs]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))
    assert orders[0] != orders[1] != list(range(12))


def test_a_batch_is_a_function_of_its_number_wherever_one_starts():
    inputs = np.arange(50, dtype=np.int32)[:, None]
    examples = Examples(inputs, inputs)
    straight = iter(Loader(examples, 4, seed=3))
    ours = [next(straight).inputs.tolist() for _ in range(30)]
    resumed = iter(Loader(examples, 4, seed=3).starting_at(17))
    assert [next(resumed).inputs.tolist() for _ in range(13)] == ours[17:]
    another_seed = iter(Loader(examples, 4, seed=4))
    assert [next(another_seed).inputs.tolist() for _ in range(30)] != ours


def test_a_batch_larger_than_the_data_is_refused():
    inputs = np.arange(3, dtype=np.int32)[:, None]
    with refuses(ValueError, "dataset.loader.large_batch"):
        Loader(Examples(inputs, inputs), 4, 0)


def test_processes_share_each_batch_and_none_is_seen_twice():
    ranks = 3
    inputs = np.arange(50, dtype=np.int32)[:, None]
    examples = Examples(inputs, inputs)
    alone = Loader(examples, 12, seed=3)
    shares = [Loader(examples, 12, seed=3, rank=rank, ranks=ranks) for rank in range(ranks)]
    for number in range(9):
        batch, parts = alone.batch(number), [share.batch(number) for share in shares]
        assert all(len(part.inputs) == 12 // ranks for part in parts)
        shared = [pair for part in parts for pair in pairs(part)]
        assert sorted(shared) == sorted(pairs(batch))


def pairs(batch):
    return [*zip(batch.inputs.flatten().tolist(), batch.noise_key.tolist(), strict=True)]


def test_a_batch_that_does_not_split_among_processes_is_refused():
    inputs = np.arange(50, dtype=np.int32)[:, None]
    with refuses(ValueError, "dataset.loader.uneven_batch"):
        Loader(Examples(inputs, inputs), 4, 0, ranks=3)


@pytest.mark.parametrize("size", [1, 2, 3, 17, 4096, 4097])
def test_an_order_computed_place_by_place_is_a_permutation(size):
    orders = [
        permutation_at(np.arange(size), size, seed, epoch)
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    for order in orders:
        assert sorted(order.tolist()) == [*range(size)]
    if size > 3:
        assert len({tuple(order) for order in orders}) == 3
    part = np.arange(size // 2, size)
    assert permutation_at(part, size, 0, 0).tolist() == orders[0][part].tolist()


def test_an_order_computed_place_by_place_has_no_pattern():
    size, n = 10_007, 200
    first = np.concatenate([permutation_at(np.arange(n), size, 0, epoch) for epoch in range(50)])
    assert chisquare(np.histogram(first, bins=50, range=(0, size))[0]).pvalue > 1e-3
    step = np.diff(permutation_at(np.arange(size), size, 0, 0)) % size
    assert chisquare(np.histogram(step, bins=50, range=(0, size))[0]).pvalue > 1e-3


def test_a_large_split_is_seen_whole_in_every_epoch(monkeypatch):
    monkeypatch.setattr(split, "LARGE", 10)
    inputs = np.arange(12, dtype=np.int32)[:, None]
    loader = Loader(Examples(inputs, inputs), batch_size=4, seed=3)
    epochs = [[loader.batch(3 * e + b).inputs.flatten().tolist() for b in range(3)] for e in (0, 1)]
    orders = [[i for batch in epoch for i in batch] for epoch in epochs]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))
    assert orders[0] != orders[1]
