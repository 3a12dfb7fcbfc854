"""What a nested list of operations comes to."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from attnlab.dataset.base import Task, random_stream
from attnlab.ranges import Count, FewCount, Seed, Share, Tokens, ranged
from attnlab.split import Batch, ExampleArrays

OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
CLOSE, PAD = "]", "<pad>"


@ranged
class ListOps(Task):
    """Works out nested operations on digits (Nangia & Bowman 2018, sec. 3).

    "[MAX 2 [MIN 4 9 ] 1 ]" is 4, the label at the last bracket. MIN, MAX and MED are minimum,
    maximum and median, and SM the sum modulo 10. The median of an even number of digits is the mean
    of the middle two without its fraction, as in the authors' code: "[MED 1 4 ]" is 2.

    A string is drawn as theirs are: an argument is another operation with chance `nested`, as long
    as fewer than `max_depth` are open, and a digit otherwise; an operation is one of the four and
    has 2..max_args arguments, all uniform. The whole is always an operation. What takes more than
    `length` tokens is drawn again. Brackets are tokens of the string, which the ListOps of Long
    Range Arena loses.

    Chance is the share of the commonest value: extremes are common, since MIN and MAX are. The best
    possible score is 1. Theirs go to a depth of 20; at most 5 here. Splits share no string, so of
    those with one operation on two digits, the rest is few.
    """

    def __init__(
        self,
        *,
        max_depth: FewCount = 5,
        max_args: FewCount = 5,
        nested: Share = 0.25,
        length: Tokens = 64,
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        seed: Seed = 0,
    ) -> None:
        if not 2 <= max_args <= 20:
            raise ValueError(f"max_args={max_args} must lie in 2..20")
        if not 0 <= nested <= 0.5:
            raise ValueError(
                f"nested={nested} must be a share from 0 to 0.5: beyond, few strings end"
            )
        if length < max_args + 2:
            raise ValueError(
                f"length={length} must be at least {max_args + 2}, for an operation with "
                f"max_args={max_args}, its name and its bracket"
            )
        super().__init__(num_train, num_validation, num_test, seed, (4, length))
        self.max_depth, self.max_args, self.nested = max_depth, max_args, nested
        self.classes = [str(digit) for digit in range(10)]
        self.tokens = [*self.classes, *OPERATORS, CLOSE, PAD]
        self.max_length = length

    @cached_property
    def chance(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        labels = self.draw_examples(random_stream(0, "train", 0), 4096, "train").targets
        return float(np.bincount(labels.ravel()).max() / labels.size)

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        draws, missing = [], n
        while missing > 0:
            inputs, values, lengths = self._draw_strings(generator, missing + missing // 4 + 8)
            complete = np.flatnonzero(lengths <= self.max_length)[:missing]
            draws.append((inputs[complete], values[complete], lengths[complete]))
            missing -= len(complete)
        inputs, values, lengths = map(np.concatenate, zip(*draws, strict=True))
        valid = np.arange(self.max_length) < lengths[:, None]
        return ExampleArrays(inputs, values[:, None], lengths[:, None] - 1, valid)

    def label_positions(self, words: Sequence[str]) -> list[int]:
        if words[-1] != CLOSE:
            raise ValueError(f'operations end with "{CLOSE}", where they are asked about')
        return [len(words) - 1]

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Return the number of tokens of each example, and the depth of its nested operations."""
        assert batch.valid is not None
        opens = (batch.inputs >= 10) & (batch.inputs < 10 + len(OPERATORS))
        closes = batch.inputs == self.tokens.index(CLOSE)
        depth = (opens.long() - closes.long()).cumsum(dim=1)
        return {"length": batch.valid.sum(dim=1), "depth": torch.amax(depth, dim=1)}

    def _draw_strings(
        self, generator: np.random.Generator, n: int
    ) -> tuple[Int[np.ndarray, "n length"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Draw n strings token by token; return them, their values, and their lengths.

        The length of an incomplete string is max_length + 1. The state of an open operation is how
        many arguments are still to come, and how often each digit has been an argument.
        """
        shape = (self.max_length, n)
        nests = generator.random(shape, dtype=np.float32) < self.nested
        nests[0] = True
        digits = generator.integers(10, size=shape, dtype=np.int16)
        operators = generator.integers(len(OPERATORS), size=shape, dtype=np.int16)
        counts = generator.integers(2, self.max_args, size=shape, dtype=np.int16, endpoint=True)
        rows, depth = np.arange(n), np.zeros(n, dtype=np.intp)
        to_come = np.zeros((n, self.max_depth + 1), dtype=np.int16)
        to_come[:, 0] = 1
        operator = np.zeros((n, self.max_depth + 1), dtype=np.int16)
        digit_counts = np.zeros((n, self.max_depth + 1, 10), dtype=np.int16)
        inputs = np.full(shape, len(self.tokens) - 1, dtype=np.int8)
        lengths = np.full(n, self.max_length + 1, dtype=np.int16)
        for position in range(self.max_length):
            takes_argument = to_come[rows, depth] > 0
            may_open = nests[position] & (depth < self.max_depth)
            opens = rows[takes_argument & may_open]
            takes_digit = rows[takes_argument & ~may_open]
            closes = rows[~takes_argument & (depth > 0)]
            to_come[rows[takes_argument], depth[takes_argument]] -= 1

            digit = digits[position, takes_digit]
            inputs[position, takes_digit] = digit
            digit_counts[takes_digit, depth[takes_digit], digit] += 1

            inputs[position, closes] = self.tokens.index(CLOSE)
            value = _evaluate(operator[closes, depth[closes]], digit_counts[closes, depth[closes]])
            depth[closes] -= 1
            digit_counts[closes, depth[closes], value] += 1
            lengths[closes[depth[closes] == 0]] = position + 1

            inputs[position, opens] = 10 + operators[position, opens]
            depth[opens] += 1
            to_come[opens, depth[opens]] = counts[position, opens]
            operator[opens, depth[opens]] = operators[position, opens]
            digit_counts[opens, depth[opens]] = 0
        return inputs.T.copy(), digit_counts[:, 0].argmax(axis=1).astype(np.int16), lengths


def _evaluate(
    operator: Int[np.ndarray, " n"], digit_counts: Int[np.ndarray, "n digit"]
) -> Int[np.ndarray, " n"]:
    """Return the values of n operations, from how often each digit is an argument."""
    cumulated = digit_counts.cumsum(axis=1)
    count = cumulated[:, -1:]
    lower, upper = (
        (cumulated > middle).argmax(axis=1) for middle in ((count - 1) // 2, count // 2)
    )
    return np.choose(
        operator,
        [
            (digit_counts > 0).argmax(axis=1),
            9 - (digit_counts[:, ::-1] > 0).argmax(axis=1),
            (lower + upper) // 2,
            digit_counts @ np.arange(10) % 10,
        ],
    )
