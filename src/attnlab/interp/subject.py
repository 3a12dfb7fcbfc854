"""The subject of an analysis: a model, its objective, and its precision.

run = attnlab.load("pronoun-multihead")
for batch in run.subject.batches(run.dataset.splits["validation"], num_examples=512):
    logits, _ = run.model(*batch.model_inputs)
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from attnlab.dataset.base import Dataset
from attnlab.interp.observe import device_of, isolated_evaluation, to_device
from attnlab.model.base import Model
from attnlab.objective.base import Objective
from attnlab.split import Batch, Split

LEAST_AT_ONCE = 256
"""The least number of sequences in a batch of a split, if training has smaller batches."""


class PairedBatch(NamedTuple):
    """A batch of examples, and the batch that the objective makes of it for the model."""

    examples: Batch
    """The examples as they are in the dataset."""
    model_batch: Batch
    """The same examples as the objective presents them to the model, in the same order."""


@dataclass(frozen=True)
class Subject:
    """A model, and the objective that it is evaluated with."""

    model: Model
    objective: Objective
    precision: Callable[[], AbstractContextManager] = nullcontext
    """The context manager of a forward pass, as in training."""
    batch_size: int = 64
    """Sequences in a training batch."""

    @property
    def device(self) -> torch.device:
        """The device of the model's weights."""
        return device_of(self.model)

    @property
    def dataset(self) -> Dataset:
        """The dataset of the objective."""
        return self.objective.dataset

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Set evaluation mode, no gradients and the model's precision, for passes without a trace.

        Random states and modes are restored at the end, so training is bit-equal with it.
        """
        with isolated_evaluation(self.model), torch.no_grad(), self.precision():
            yield

    def batches(
        self,
        batches: Split | Iterable[Batch],
        *,
        batch_size: int | None = None,
        num_examples: int | None = None,
    ) -> Iterator[Batch]:
        """Yield the model's batches for a split, or for batches of the dataset.

        `num_examples` takes the first examples of a split (None: all).
        """
        for pair in self.paired_batches(batches, batch_size=batch_size, num_examples=num_examples):
            yield pair.model_batch

    def paired_batches(
        self,
        batches: Split | Iterable[Batch],
        *,
        batch_size: int | None = None,
        num_examples: int | None = None,
    ) -> Iterator[PairedBatch]:
        """Yield the batches of the method `batches`, each with its examples of the dataset.

        An objective that draws noise draws it by the example's index in its split, so that every
        pass over an example has the same noise.
        """
        if isinstance(batches, Split):
            size = batch_size or max(self.batch_size, LEAST_AT_ONCE)
            dataset_batches = _batches_with_noise_keys(batches, size, num_examples)
        else:
            dataset_batches = batches
        for dataset_batch in dataset_batches:
            examples = to_device(dataset_batch, self.device)
            yield PairedBatch(examples, self.objective.training_batch(examples))


def _batches_with_noise_keys(split: Split, size: int, num_examples: int | None) -> Iterator[Batch]:
    num_taken = len(split) if num_examples is None else min(num_examples, len(split))
    for start in range(0, num_taken, size):
        index = np.arange(start, min(start + size, num_taken))
        yield split.batch(index)._replace(noise_key=torch.from_numpy(index))
