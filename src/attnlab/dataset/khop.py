"""The letter that is k hops back."""

from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from attnlab.dataset.base import Task, random_stream
from attnlab.ranges import Count, FewCountOrZero, Seed, Tokens, ranged
from attnlab.split import Batch, ExampleArrays

LETTERS = "abcd"
NOWHERE, BLANK = "~", "_"


@ranged
class KHop(Task):
    """Hops back k times from each letter of a string (Sanford et al. 2024, sec. 4 and appendix G).

    One hop goes to the letter that followed the last earlier occurrence of the current letter.
    "hop1 a b c a c": the second a hops to b, which followed the first a, and the second c to a; the
    other letters have not occurred before, so theirs is "~". With hop2 the second c goes on: that a
    (the second) hops to b. Labels stand at the letters; the number of hops in front has none.

    No letter equals its neighbour: the first is uniform over 4, each later one over the other 3.
    k is uniform in 0..max_hops, and an example has `length` positions, k and length - 1 letters.
    The paper's n is length + 1 (its strings lose their last letters before they are read). Their
    loss also counts the first position, whose target is always the blank "_"; ours does not ask it.

    The published error counts positions whose target is a letter: accuracy is 1 minus that in the
    slice `letter=1`, and by k in the slices `k=0` to `k=max_hops` (one more stands for "~").
    Chance is 1/4, one of the letters, or the share of "~" where that is more. The best possible
    score is 1.
    """

    def __init__(
        self,
        *,
        max_hops: FewCountOrZero = 4,
        length: Tokens = 39,
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        seed: Seed = 0,
    ) -> None:
        super().__init__(num_train, num_validation, num_test, seed, (length, length))
        if length < 4:
            raise ValueError(f"length={length} must be at least 4: the hops, and 3 letters")
        self.max_hops, self.max_length = max_hops, length
        hops = [f"hop{k}" for k in range(max_hops + 1)]
        self.tokens = [*hops, *LETTERS, NOWHERE, BLANK]

    @cached_property
    def chance(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        labels = self.draw_examples(random_stream(0, "train", 0), 4096, "train").targets
        return max(1 / len(LETTERS), float((labels == self.tokens.index(NOWHERE)).mean()))

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        hops = generator.integers(self.max_hops + 1, size=(n, 1), dtype=np.int16)
        steps = generator.integers(1, 4, size=(n, self.max_length - 1), dtype=np.int16)
        steps[:, 0] = generator.integers(4, size=n)
        letters = steps.cumsum(axis=1, dtype=np.int16) % 4
        first_letter_id = self.max_hops + 1
        # An extra last column is "nowhere", which hops to itself.
        hop_targets = self._hop_targets(letters)
        reached = np.tile(np.arange(self.max_length), (n, 1))
        for k in range(self.max_hops):
            reached = np.where(k < hops, np.take_along_axis(hop_targets, reached, axis=1), reached)
        answers = np.append(letters, np.full((n, 1), 4, np.int16), axis=1)
        targets = first_letter_id + np.take_along_axis(answers, reached[:, :-1], axis=1)
        label_positions = np.arange(1, self.max_length, dtype=np.int16)
        inputs = np.append(hops, first_letter_id + letters, axis=1)
        return ExampleArrays(inputs, targets, np.tile(label_positions, (n, 1)))

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Return whether each target is a letter (1) or "~" (0), and k for the letters."""
        is_letter = batch.targets < self.max_hops + 1 + len(LETTERS)
        hops = torch.where(is_letter, batch.inputs[:, :1], self.max_hops + 1)
        return {"letter": is_letter.long(), "k": hops}

    def show(self, split: str = "train", index: int = 0) -> str:
        batch = self.splits[split][index]
        answers = [BLANK, *(self.tokens[target] for target in batch.targets[0].tolist())]
        return f"{self.decode(batch.inputs[0].tolist())}\nanswers: {' '.join(answers)}"

    def _hop_targets(self, letters: np.ndarray) -> np.ndarray:
        """Return the position that each position hops to; that after the last one is nowhere."""
        n, nowhere = letters.shape
        positions = np.arange(nowhere)
        hop_targets = np.full((n, nowhere + 1), nowhere)
        for letter in range(len(LETTERS)):
            is_letter = letters == letter
            latest = np.maximum.accumulate(np.where(is_letter, positions, -1), axis=1)
            previous = np.append(np.full((n, 1), -1), latest[:, :-1], axis=1)
            next_position = np.where(previous < 0, nowhere, previous + 1)
            hop_targets[:, :-1][is_letter] = next_position[is_letter]
        return hop_targets
