"""Arithmetic modulo a prime, of which a part of the table is shown."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated

import numpy as np

from attnlab.dataset.base import Task
from attnlab.ranges import Between, Seed, Share, ranged
from attnlab.split import ExampleArrays, Examples, Split

SIGNS = {"addition": "+", "subtraction": "-", "multiplication": "*", "division": "/"}
END = "="


@ranged
class Modular(Task):
    """Fills in the table of an operation modulo a prime (Power et al. 2022, appendix A.1.1).

    "5 + 3 =" is 1 modulo 7, the label at "=". Division is by the inverse: "3 / 5 =" is 2, since
    2 * 5 = 3 modulo 7; there, b is never 0. All pairs (a, b) stand in one order, that of the data
    seed: `train_share` of them are training, `validation_share` of the rest validation, and what
    remains is the test. "3 + 5" and "5 + 3" are two examples, which may be parted, as in the paper.

    Chance is 1 / prime, the commonest answer's share (0 is 2 / prime of all products). The best
    possible score is 1: the rest of the table follows from the part, and networks find that long
    after they know the part by heart. Power et al. test on all the rest, and select nothing.
    """

    def __init__(
        self,
        *,
        prime: Annotated[int, Between(2, 10_000)] = 97,
        operation: str = "addition",
        train_share: Share = 0.5,
        validation_share: Share = 0.2,
        seed: Seed = 0,
    ) -> None:
        if any(prime % factor == 0 for factor in range(2, int(prime**0.5) + 1)):
            raise ValueError(f"prime={prime} is no prime number")
        if operation not in SIGNS:
            raise ValueError(f"operation={operation!r} must be one of {', '.join(SIGNS)}")
        for knob, share in (("train_share", train_share), ("validation_share", validation_share)):
            if not 0 < share < 1:
                raise ValueError(f"{knob}={share} must be a share above 0 and below 1")
        self.prime, self.operation = prime, operation
        self.divides = operation == "division"
        pairs = prime * (prime - self.divides)
        train = round(train_share * pairs)
        validation = round(validation_share * (pairs - train))
        sizes = train, validation, pairs - train - validation
        if min(sizes) < 1:
            raise ValueError(
                f"prime={prime} has {pairs} pairs, and train_share={train_share} with "
                f"validation_share={validation_share} makes splits of {sizes}; none may be empty"
            )
        super().__init__(*sizes, seed)
        self.tokens = [*(str(number) for number in range(prime)), SIGNS[operation], END]
        self.max_length = 4
        is_product = operation == "multiplication"
        self.chance = (2 * prime - 1) / prime**2 if is_product else 1 / prime

    def build_split(self, split: str, earlier: Mapping[str, Split]) -> Examples:
        inputs, targets, label_positions, _ = self._build_examples(self._pairs_by_split[split])
        return Examples(inputs, targets, label_positions)

    def draw_examples(self, generator: np.random.Generator, n: int, split: str) -> ExampleArrays:
        """Draw n examples of a split, with repeats."""
        pairs = self._pairs_by_split[split]
        return self._build_examples(pairs[generator.integers(len(pairs), size=n)])

    def label_positions(self, words: Sequence[str]) -> list[int]:
        if words[-1] != END:
            raise ValueError(f'a sum ends with "{END}", where it is asked about')
        return [len(words) - 1]

    @cached_property
    def _pairs_by_split(self) -> dict[str, np.ndarray]:
        """The pairs of each split, as a * prime + b, in the random order of the data seed."""
        b = np.arange(int(self.divides), self.prime)
        pairs = (np.arange(self.prime)[:, None] * self.prime + b).ravel()
        generator = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, 2**32]))
        names = ("train", "validation", "test")
        ends = np.cumsum([self.sizes[name] for name in names])[:-1]
        return dict(zip(names, np.split(generator.permutation(pairs), ends), strict=True))

    def _build_examples(self, pairs: np.ndarray) -> ExampleArrays:
        """Build the examples "a sign b =" of pairs a * prime + b."""
        a, b = np.divmod(pairs, self.prime)
        values = {
            "addition": lambda: a + b,
            "subtraction": lambda: a - b,
            "multiplication": lambda: a * b,
            "division": lambda: a * self._inverses[b],
        }[self.operation]()
        inputs = np.full((len(pairs), 4), self.prime, dtype=np.int32)
        inputs[:, 0], inputs[:, 2], inputs[:, 3] = a, b, self.prime + 1
        targets = (values % self.prime).astype(np.int32)[:, None]
        return ExampleArrays(inputs, targets, np.full_like(targets, 3))

    @cached_property
    def _inverses(self) -> np.ndarray:
        """The inverse of each number modulo the prime; 0, which has none, has 0 here."""
        return np.array([0, *(pow(b, -1, self.prime) for b in range(1, self.prime))])
