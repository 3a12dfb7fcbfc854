"""Reversal: its labels checked by plain Python, one example at a time."""

import numpy as np
import pytest

from attnlab.dataset.reversal import Reversal
from attnlab.split import IGNORE


def test_the_answer_is_the_row_from_its_end():
    data = Reversal(num_train=2000)
    lengths = set()
    for split in data.splits.values():
        batch = split.batch(np.arange(len(split)))
        assert batch.valid is not None
        for inputs, targets, valid in zip(
            batch.inputs.tolist(), batch.targets.tolist(), batch.valid.tolist(), strict=True
        ):
            read = [data.tokens[t] for t, counts in zip(inputs, valid, strict=True) if counts]
            said = [data.tokens[t] for t in targets if t != IGNORE]
            assert valid == sorted(valid, reverse=True)
            assert said == [*reversed(read), data.end]
            assert data.end not in read
            lengths.add(len(read))
    assert lengths == set(range(4, 13))


def test_an_example_can_be_checked_by_eye():
    read, said = Reversal(num_train=10).show().splitlines()
    assert said.removeprefix("answer: ").split() == [*reversed(read.split()), "<end>"]


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"vocab_size": 27}, "vocab_size=27"),
        ({"min_length": 13}, "min_length=13"),
        ({"num_test": 0}, "num_test=0"),
    ],
)
def test_impossible_sizes_are_refused(knobs, words):
    with pytest.raises(ValueError, match=words):
        Reversal(**knobs)
