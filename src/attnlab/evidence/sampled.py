"""The loss as many papers estimate it: on a few batches of random windows."""

from collections.abc import Iterator
from math import inf
from typing import ClassVar

import numpy as np
import torch

from attnlab.dataset.base import Corpus
from attnlab.evidence.base import Evidence
from attnlab.interp.subject import Subject
from attnlab.objective.autoregressive import Autoregressive
from attnlab.ranges import Count, Seed, ranged
from attnlab.run_record.finding import Finding
from attnlab.split import Batch, Windows


@ranged
class SampledLoss(Evidence):
    """Measures `loss` (nats): the mean over batches of windows that begin anywhere in validation.

    nanoGPT's estimate (its `estimate_loss`), with random positions of our own. It estimates the
    loss of the whole split; `sampled` is for comparison with numbers that were published as such.
    """

    objective_type, dataset_type = Autoregressive, Corpus
    bounds: ClassVar = {"loss": (0, inf)}

    def __init__(
        self, subject: Subject, *, batches: Count = 20, batch_size: Count = 12, seed: Seed = 0
    ) -> None:
        super().__init__(subject)
        self.batches, self.batch_size, self.seed = batches, batch_size, seed

    def measure(self) -> Finding:
        subject, batch_losses = self.subject, []
        with subject.observed():
            for batch in subject.batches(self._sample_batches()):
                logits, _ = subject.model(*batch.model_inputs)
                batch_losses.append(subject.objective.loss(logits, batch.targets).double())
        return self.finding({"loss": float(torch.stack(batch_losses).mean())})

    def _sample_batches(self) -> Iterator[Batch]:
        """Yield batches of windows that begin at random positions of validation."""
        split = self.subject.dataset.splits["validation"]
        assert isinstance(split, Windows)
        overlapping_windows = Windows(split.tokens, split.length, 1)
        generator = np.random.Generator(np.random.Philox(key=self.seed))
        for _ in range(self.batches):
            yield overlapping_windows.batch(
                generator.integers(len(overlapping_windows), size=self.batch_size)
            )
