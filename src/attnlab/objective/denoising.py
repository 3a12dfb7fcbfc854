"""Restore a whole sequence from a damaged one: the denoising autoencoder."""

from collections.abc import Sequence

import torch

from attnlab.dataset.base import Dataset
from attnlab.model.base import ENCODER
from attnlab.objective.base import Objective, noise
from attnlab.ranges import Share, ranged
from attnlab.split import IGNORE, Batch


@ranged
class Denoising(Objective):
    """Replaces a share of the tokens by others, and asks for all (Vincent et al. 2008, sec. 2.3).

    A damaged token is drawn uniformly from the vocabulary, itself included; which ones are damaged
    is not told, so the model must find them as well. A text that a person gives is read as it is.
    """

    arrangement = ENCODER

    def __init__(self, dataset: Dataset, *, rate: Share = 0.15) -> None:
        super().__init__(dataset)
        if not 0 < rate < 1:
            raise ValueError(f"rate={rate} must be a share between 0 and 1")
        self.rate = rate

    @property
    def outputs(self) -> Sequence[str]:
        return self.dataset.tokens

    def training_batch(self, batch: Batch) -> Batch:
        inputs, damaged = batch.inputs, batch.inputs
        if batch.noise_key is not None:
            damage_noise, token_noise = (
                noise(batch.noise_key, inputs.shape[1], draw) for draw in range(2)
            )
            random_tokens = (token_noise * len(self.dataset.tokens)).long()
            damaged = torch.where(damage_noise < self.rate, random_tokens, inputs)
        targets = inputs if batch.valid is None else inputs.where(batch.valid, IGNORE)
        return Batch(damaged, targets, None, batch.valid)
