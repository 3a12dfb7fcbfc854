"""What every look into a model needs: the model, what it is asked, and how it computes.

run = attnlab.load("pronoun-multihead")
for asked in run.subject.ask(run.dataset.splits["validation"], num_examples=512):
    logits, _ = run.model(*asked.given)
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from attnlab.dataset.base import Dataset
from attnlab.interp.observe import device_of, moved, undisturbed
from attnlab.model.base import Model
from attnlab.objective.base import Objective
from attnlab.split import Batch, Split

LEAST_AT_ONCE = 256
"""Sequences of a split that are asked at once, where training has smaller batches."""


class Question(NamedTuple):
    """Some examples, and what the model is asked about them."""

    examples: Batch
    """As the data have them."""
    asked: Batch
    """As the objective puts them to the model."""


@dataclass(frozen=True)
class Subject:
    """A model, and what it is asked."""

    model: Model
    objective: Objective
    precision: Callable[[], AbstractContextManager] = nullcontext
    """The context of a forward pass, as in training."""
    batch_size: int = 64
    """Sequences in a batch of training."""

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return device_of(self.model)

    @property
    def dataset(self) -> Dataset:
        """The data that the objective asks about."""
        return self.objective.dataset

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Look without a trace: in evaluation mode, without gradients, in the model's precision.

        Random states and modes are those of before at the end, so training is bit-equal with it.
        """
        with undisturbed(self.model), torch.no_grad(), self.precision():
            yield

    def ask(
        self,
        batches: Split | Iterable[Batch],
        *,
        batch_size: int | None = None,
        num_examples: int | None = None,
    ) -> Iterator[Batch]:
        """Yield what the model is asked about a split, or about batches of the data.

        `num_examples` takes so many of a split, its first ones (None: all).
        """
        for question in self.questions(batches, batch_size=batch_size, num_examples=num_examples):
            yield question.asked

    def questions(
        self,
        batches: Split | Iterable[Batch],
        *,
        batch_size: int | None = None,
        num_examples: int | None = None,
    ) -> Iterator[Question]:
        """Yield what `ask` does, beside the examples as the data have them; on the model's device.

        An objective that draws noise draws it by the number of the example in its split, so that
        every look at an example sees the same.
        """
        if isinstance(batches, Split):
            size = batch_size or max(self.batch_size, LEAST_AT_ONCE)
            batches = _numbered(batches, size, num_examples)
        for examples in batches:
            examples = moved(examples, self.device)
            yield Question(examples, self.objective.ask(examples))


def _numbered(split: Split, size: int, num_examples: int | None) -> Iterator[Batch]:
    most = len(split) if num_examples is None else min(num_examples, len(split))
    for start in range(0, most, size):
        index = np.arange(start, min(start + size, most))
        yield split.batch(index)._replace(key=torch.from_numpy(index))
