"""Sums of products, modulo a number."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from torch import Tensor

from attnlab.dataset.base import Task
from attnlab.ranges import Count, FewCount, Seed, Tokens, ranged
from attnlab.split import Batch, ExampleArrays

END = "="
OPERATORS = ["+", "-", "*"]


@ranged
class ModularArithmetic(Task):
    """Works out an expression without brackets, modulo a number (Deletang et al. 2023, table 1).

    "1 + 2 * 3 =" is 7, so the label at "=" is 2 modulo 5: a product binds more tightly than a sum,
    as in their code. Digits and operators are uniform. Lengths count tokens before "=", so they are
    odd, uniform over the odd ones in `min_length`..`length`; each N of `test_lengths` makes a test
    of longer expressions. (They subtract 1 from an even length, which is the same but for the
    ends.)

    Chance is 1 / modulus; products make 0 somewhat more frequent. The best possible score is 1. The
    splits share no expression, so the shortest ones, of which there are few, stand in test and
    validation, and hardly any of them in training.
    """

    def __init__(
        self,
        *,
        modulus: FewCount = 5,
        min_length: Tokens = 1,
        length: Tokens = 40,
        test_lengths: Sequence[Tokens] = (100,),
        num_train: Count = 20_000,
        num_validation: Count = 500,
        num_test: Count = 500,
        seed: Seed = 0,
    ) -> None:
        lengths = min_length, length
        super().__init__(num_train, num_validation, num_test, seed, lengths, test_lengths)
        for split in self.split_names:
            low, high = self.lengths(split)
            if low == high and low % 2 == 0:
                raise ValueError(
                    f"no expression of {split} has an odd number of tokens between {low} and "
                    f"{high}; change min_length, length or test_lengths"
                )
        if not 2 <= modulus <= 100:
            raise ValueError(f"modulus={modulus} must lie in 2..100")
        self.modulus, self.chance = modulus, 1 / modulus
        self.classes = [str(number) for number in range(modulus)]
        self.tokens = [*self.classes, *OPERATORS, END, "<pad>"]
        # An even longest length is that of the expression with its "=".
        self.max_length = _max_numbers(max([length, *test_lengths])) * 2

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        low, high = self.lengths(split)
        fewest, most = _max_numbers(low + 1), _max_numbers(high)
        count = generator.integers(fewest, most, size=(n, 1), dtype=np.int16, endpoint=True)
        digits = generator.integers(self.modulus, size=(n, most), dtype=np.int16)
        operators = generator.integers(3, size=(n, most), dtype=np.int16)
        inputs = np.empty((n, 2 * most), dtype=np.int16)
        inputs[:, ::2], inputs[:, 1::2] = digits, operators + self.modulus
        positions, end = np.arange(2 * most), 2 * count - 1
        inputs[positions == end] = self.tokens.index(END)
        inputs[positions > end] = len(self.tokens) - 1
        targets = self._evaluate(digits, operators, count[:, 0])[:, None]
        return ExampleArrays(inputs, targets, end, positions <= end)

    def _evaluate(
        self,
        digits: Int[np.ndarray, "n number"],
        operators: Int[np.ndarray, "n number"],
        count: Int[np.ndarray, " n"],
    ) -> Int[np.ndarray, " n"]:
        """Return the values of n expressions, from a running product and the sum before it."""
        total, product = np.zeros_like(digits[:, 0]), digits[:, 0]
        for position in range(1, digits.shape[1]):
            operator, digit = operators[:, position - 1], digits[:, position]
            inside, multiplies = position < count, operator == 2
            total = np.where(inside & ~multiplies, total + product, total) % self.modulus
            # After a minus the product is that of the negative digit.
            signed = np.where(operator == 1, -digit, digit)
            product = np.where(inside, np.where(multiplies, product * digit, signed), product)
            product %= self.modulus
        return (total + product) % self.modulus

    def label_positions(self, words: Sequence[str]) -> list[int]:
        if words[-1] != END:
            raise ValueError(f'an expression ends with "{END}", where it is asked about')
        return [len(words) - 1]

    def slices(self, batch: Batch) -> dict[str, Int[Tensor, "batch ..."]]:
        """Return the number of tokens before "=" of each example."""
        assert batch.valid is not None
        return {"length": batch.valid.sum(dim=1) - 1}


def _max_numbers(length: int) -> int:
    """Return how many numbers the longest expression of at most `length` tokens has."""
    return (length + 1) // 2
