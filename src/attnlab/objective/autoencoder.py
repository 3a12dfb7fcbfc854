"""The whole sequence through a few vectors, and back: the bottleneck autoencoder."""

from collections.abc import Sequence

import torch

from attnlab.dataset.base import Dataset
from attnlab.model.base import Arrangement
from attnlab.objective.base import Objective
from attnlab.ranges import Width, ranged
from attnlab.split import IGNORE, Batch

BLANK = "[BLANK]"


@ranged
class Autoencoder(Objective):
    """Restores a sequence from `num_latents` vectors (Hinton & Salakhutdinov 2006).

    An encoder reads the sequence, trained queries read the encoder (Jaegle et al. 2021), and the
    answering stack sees these vectors and a row of blanks with their positions, as many as there
    are tokens, nothing else. So whatever comes back but the length has passed through
    num_latents x d_model numbers.
    """

    def __init__(self, dataset: Dataset, *, num_latents: Width = 4) -> None:
        super().__init__(dataset)
        self.arrangement = Arrangement(causal=False, encoder=True, latents=num_latents)

    @property
    def inputs(self) -> Sequence[str]:
        return [*self.dataset.tokens, BLANK]

    @property
    def outputs(self) -> Sequence[str]:
        return self.inputs

    def training_batch(self, batch: Batch) -> Batch:
        inputs = batch.inputs
        targets = inputs if batch.valid is None else inputs.where(batch.valid, IGNORE)
        blanks = torch.full_like(inputs, len(self.dataset.tokens))
        return Batch(inputs, targets, None, batch.valid, blanks, batch.valid)
