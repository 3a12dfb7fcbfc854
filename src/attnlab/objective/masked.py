"""Restore what was hidden: the masked language model."""

from collections.abc import Sequence

import torch

from attnlab.dataset.base import IGNORE, Batch, Dataset
from attnlab.model.base import ENCODER
from attnlab.objective.base import Objective, noise, require_positions

MASK = "[MASK]"


class Masked(Objective):
    """Hides a share of the tokens, and asks for those (Devlin et al. 2019, sec. 3.1).

    Of the asked ones, a share `kept` stands as it is and a share `swapped` is another token of the
    vocabulary, drawn uniformly; the rest reads `[MASK]`, a token that data do not have. Every
    sequence hides at least one. A text that a person gives is read as it is, and asked everywhere.
    """

    arrangement = ENCODER

    def __init__(
        self, dataset: Dataset, *, rate: float = 0.15, kept: float = 0.1, swapped: float = 0.1
    ) -> None:
        super().__init__(dataset)
        require_positions(dataset, "objective=masked")
        if not 0 < rate <= 1:
            raise ValueError(f"rate={rate} must be a share above 0 and at most 1")
        if kept < 0 or swapped < 0 or kept + swapped > 1:
            raise ValueError(
                f"kept={kept} and swapped={swapped} must be shares of at most 1 in all"
            )
        self.rate, self.kept, self.swapped = rate, kept, swapped

    @property
    def inputs(self) -> Sequence[str]:
        return [*self.dataset.tokens, MASK]

    @property
    def outputs(self) -> Sequence[str]:
        return self.inputs

    def ask(self, batch: Batch) -> Batch:
        inputs = batch.inputs
        if batch.key is None:
            return Batch(inputs, torch.full_like(inputs, IGNORE), None, batch.valid)
        size = len(self.dataset.tokens)
        place, fate, other = (noise(batch.key, inputs.shape[1], draw) for draw in range(3))
        if batch.valid is not None:
            place = place.masked_fill(~batch.valid, 2.0)
        hidden = place <= place.amin(dim=1, keepdim=True).clamp(min=self.rate)
        read = torch.where(fate < self.swapped, (other * size).long(), size)
        read = torch.where(fate >= 1 - self.kept, inputs, read)
        asked = torch.where(hidden, inputs, IGNORE)
        return Batch(torch.where(hidden, read, inputs), asked, None, batch.valid)
