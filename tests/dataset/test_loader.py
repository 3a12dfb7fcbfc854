"""The order of training: every example once an epoch, each batch a function of its number."""

import numpy as np
import pytest

from attnlab.dataset.base import Examples
from attnlab.dataset.loader import Loader


def test_an_epoch_shows_every_example_once_and_the_next_one_in_another_order():
    inputs = np.arange(12, dtype=np.int32)[:, None]
    loader = Loader(Examples(inputs, inputs), batch_size=4, seed=3)
    epochs = [[loader.batch(3 * e + b).inputs.flatten().tolist() for b in range(3)] for e in (0, 1)]
    seen = [[i for batch in epoch for i in batch] for epoch in epochs]
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(12))
    assert seen[0] != seen[1] != list(range(12))


def test_a_batch_is_a_function_of_its_number_wherever_one_starts():
    inputs = np.arange(50, dtype=np.int32)[:, None]
    examples = Examples(inputs, inputs)
    straight = iter(Loader(examples, 4, seed=3))
    ours = [next(straight).inputs.tolist() for _ in range(30)]
    resumed = iter(Loader(examples, 4, seed=3, first=lambda: 17))
    assert [next(resumed).inputs.tolist() for _ in range(13)] == ours[17:]
    other = iter(Loader(examples, 4, seed=4))
    assert [next(other).inputs.tolist() for _ in range(30)] != ours


def test_a_batch_larger_than_the_data_is_refused():
    inputs = np.arange(3, dtype=np.int32)[:, None]
    with pytest.raises(ValueError, match="batch_size=4 exceeds the 3 training examples"):
        Loader(Examples(inputs, inputs), 4, 0)
