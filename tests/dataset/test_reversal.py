"""Reversal: its labels checked by plain Python, one example at a time."""

import numpy as np

from attnlab.dataset.reversal import Reversal
from attnlab.split import IGNORE
from tests.refused_calls import refused_calls


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
            answer = [data.tokens[t] for t in targets if t != IGNORE]
            assert valid == sorted(valid, reverse=True)
            assert answer == [*reversed(read), data.end]
            assert data.end not in read
            lengths.add(len(read))
    assert lengths == set(range(4, 13))


def test_an_example_can_be_checked_by_eye():
    read, answer_line = Reversal(num_train=10).show().splitlines()
    assert answer_line.removeprefix("answer: ").split() == [*reversed(read.split()), "<end>"]


def test_impossible_sizes_are_refused():
    refused_calls(
        "dataset.reversal.{}",
        {
            "large_vocab": lambda: Reversal(vocab_size=27),
            "short": lambda: Reversal(min_length=13),
        },
    )
