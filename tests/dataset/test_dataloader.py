"""torch's own DataLoader of a split gives the batches of the split."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset

from attnlab.dataset.mqar import MQAR
from attnlab.dataset.parity import Parity
from attnlab.dataset.reversal import Reversal
from attnlab.split import Batch, Split, Windows

SIZES: dict[str, Any] = {"num_train": 21, "num_validation": 4, "num_test": 4}
SPLITS: dict[str, Split] = {
    "a position for each label, and padding": Parity(length=6, test_lengths=(), **SIZES).splits[
        "train"
    ],
    "labels of their own": Reversal(**SIZES).splits["train"],
    "several labels": MQAR(**SIZES).splits["train"],
    "windows of a text": Windows(np.arange(205, dtype=np.uint8), length=10, stride=10),
}


def same(loaded: Batch, expected: Batch) -> bool:
    assert type(loaded) is Batch
    pairs = list(zip(loaded, expected, strict=True))
    assert all((ours is None) == (theirs is None) for ours, theirs in pairs)
    return all(
        torch.equal(ours, theirs)
        for ours, theirs in pairs
        if ours is not None and theirs is not None
    )


@pytest.mark.parametrize("name", SPLITS)
def test_a_plain_loader_gives_the_batches_of_the_split(name):
    split = SPLITS[name]
    loaded = list(DataLoader(split, batch_size=8))
    assert [len(batch.inputs) for batch in loaded] == [8, 8, 5]
    assert all(map(same, loaded, split.batches(8)))
    # Where others take the examples one by one, they are put together again.
    alone = next(iter(DataLoader(ConcatDataset([split, split]), batch_size=8)))
    assert same(alone, split[:8])


def test_shuffled_parts_in_processes_of_their_own_are_all_seen_once():
    split = SPLITS["several labels"]
    half = Subset(split, range(0, len(split), 2))
    loaded = list(DataLoader(half, batch_size=4, shuffle=True, num_workers=2))
    rows = torch.cat([batch.inputs for batch in loaded]).tolist()
    assert sorted(rows) == sorted(split[::2].inputs.tolist())
    assert rows != split[::2].inputs.tolist()
