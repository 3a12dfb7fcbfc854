"""Brackets of several kinds, of which the one that closes is asked."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from attnlab.dataset.base import Task
from attnlab.ranges import Count, FewCount, Seed, Tokens, ranged
from attnlab.split import Batch, ExampleArrays

PLAIN = ("()", "[]", "{}", "<>")


@ranged
class Dyck(Task):
    """Names the kind of each closing bracket before it comes (Hewitt et al. 2020, Dyck-(k, m)).

    "( [ ] { } )" with 3 kinds: a closing bracket follows the positions 1, 3 and 4, whose labels are
    "]", "}" and ")". That one closes is not asked, since it may be chance; which one does follows
    from the brackets that are open. Every string is balanced, has `length` brackets, and never more
    than `max_depth` open at once. Each bracket opens or closes with chance 1/2 where both can be
    (Hewitt et al. let a string end by chance too, so that lengths differ); kinds are uniform.

    Chance is 1 / num_kinds, and the best possible score 1. The slices tell by the distance of a
    bracket from the one that it closes, as theirs do. Beyond the four kinds that have a sign of
    their own, the brackets are "(4 4)", "(5 5)" and so on.
    """

    def __init__(
        self,
        *,
        num_kinds: FewCount = 4,
        max_depth: FewCount = 8,
        length: Tokens = 64,
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        seed: Seed = 0,
    ) -> None:
        super().__init__(num_train, num_validation, num_test, seed, (length, length))
        if length < 2 or length % 2:
            raise ValueError(f"length={length} must be even and at least 2: each bracket has one")
        if not 2 <= num_kinds <= 128:
            raise ValueError(f"num_kinds={num_kinds} must lie in 2..128: of one, nothing is asked")
        if max_depth > length // 2:
            raise ValueError(
                f"max_depth={max_depth} must lie in 1..{length // 2}, half of length={length}"
            )
        self.num_kinds, self.max_depth, self.max_length = num_kinds, max_depth, length
        kinds = [PLAIN[kind] if kind < 4 else (f"({kind}", f"{kind})") for kind in range(num_kinds)]
        self.tokens = [bracket for pair in kinds for bracket in pair]
        self.chance = 1 / num_kinds

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        opens = self._draw_opens(generator, n)
        kinds = generator.integers(self.num_kinds, size=opens.shape, dtype=np.int16)
        opening, closing = _pair_positions(opens)
        bracket = 2 * np.take_along_axis(kinds, opening, axis=1)
        inputs = np.empty_like(kinds)
        np.put_along_axis(inputs, opening, bracket, axis=1)
        np.put_along_axis(inputs, closing, bracket + 1, axis=1)
        closing.sort(axis=1)
        return ExampleArrays(inputs, np.take_along_axis(inputs, closing, axis=1), closing - 1)

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Return the distance of each closing bracket from the one that it closes."""
        opening, closing = _pair_positions((batch.inputs % 2 == 0).numpy())
        order = closing.argsort(axis=1)
        distance = np.take_along_axis(closing - opening, order, axis=1)
        return {"distance": torch.from_numpy(distance.astype(np.int64))}

    def show(self, split: str = "train", index: int = 0) -> str:
        batch = self.splits[split][index]
        brackets, answers = batch.inputs[0].tolist(), batch.targets[0].tolist()
        return f"{self.decode(brackets)}\nclosing brackets asked, in order: {self.decode(answers)}"

    def _draw_opens(self, generator: np.random.Generator, n: int) -> np.ndarray:
        """Draw the positions at which a bracket opens; at the others, one closes."""
        opens = generator.integers(2, size=(self.max_length, n), dtype=np.int8).astype(bool)
        depth = np.zeros(n, dtype=np.int16)
        for position, opens_here in enumerate(opens):
            # Changed in place: a draw stands only if a bracket can open and one can close.
            opens_here |= depth == 0
            opens_here &= depth < min(self.max_depth, self.max_length - position)
            depth += 2 * opens_here.astype(np.int16) - 1
        return np.ascontiguousarray(opens.T)


def _pair_positions(opens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of opening brackets, and of the brackets that close them, in one order.

    On one level, opening and closing brackets alternate: sorted by level, then by position, each
    bracket that opens is directly before the one that closes it.
    """
    length = opens.shape[1]
    level = (2 * opens.astype(np.int32) - 1).cumsum(axis=1, dtype=np.int32) + ~opens
    ordered = np.sort(level * length + np.arange(length, dtype=np.int32), axis=1) % length
    return ordered[:, ::2], ordered[:, 1::2]
