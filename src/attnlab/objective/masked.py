"""Restore what was hidden: the masked language model."""

import copy
from collections.abc import Sequence

import torch

from attnlab.dataset.base import Dataset
from attnlab.model.base import ENCODER
from attnlab.objective.base import Objective, noise
from attnlab.ranges import Share, ranged
from attnlab.split import IGNORE, Batch

MASK = "[MASK]"


@ranged
class Masked(Objective):
    """Hides a share of the tokens, and asks for those (Devlin et al. 2019, sec. 3.1).

    Of the asked ones, a share `kept` stands as it is and a share `swapped` is a token drawn
    uniformly from the vocabulary, itself included; the rest reads `[MASK]`, a token that data do
    not have. Every sequence hides at least one. What is looked at is read as it is: a person's text
    is asked at its own `[MASK]`s, or everywhere where it has none.
    """

    arrangement = ENCODER

    def __init__(
        self, dataset: Dataset, *, rate: Share = 0.15, kept: Share = 0.1, swapped: Share = 0.1
    ) -> None:
        super().__init__(dataset)
        if not rate:
            raise ValueError(f"rate={rate} must be above 0: nothing would be asked")
        if kept + swapped > 1:
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

    def training_batch(self, batch: Batch) -> Batch:
        inputs = batch.inputs
        if batch.noise_key is None:
            return self.inspection_batch(batch)
        mask_id = len(self.dataset.tokens)
        hide_noise, replacement_noise, token_noise = (
            noise(batch.noise_key, inputs.shape[1], draw) for draw in range(3)
        )
        if batch.valid is not None:
            hide_noise = hide_noise.masked_fill(~batch.valid, 2.0)
        # The lowest number of a sequence hides its token even if it exceeds the rate.
        hidden = hide_noise <= hide_noise.amin(dim=1, keepdim=True).clamp(min=self.rate)
        random_tokens = (token_noise * mask_id).long()
        replacements = torch.where(replacement_noise < self.swapped, random_tokens, mask_id)
        replacements = torch.where(replacement_noise >= 1 - self.kept, inputs, replacements)
        targets = torch.where(hidden, inputs, IGNORE)
        return Batch(torch.where(hidden, replacements, inputs), targets, None, batch.valid)

    def batch_of_text(self, text: str) -> Batch:
        dataset_with_holes = copy.copy(self.dataset)
        dataset_with_holes.tokens = [*dataset_with_holes.tokens, HOLE]
        dataset_with_holes.label_positions = _hole_positions
        try:
            return dataset_with_holes.batch_of_text(text.replace(MASK, HOLE))
        except ValueError as error:
            raise ValueError(str(error).replace(repr(HOLE)[1:-1], MASK)) from error

    def inspection_batch(self, batch: Batch) -> Batch:
        targets = torch.full_like(batch.inputs if batch.at is None else batch.at, IGNORE)
        return Batch(batch.inputs, targets, batch.at, batch.valid)


HOLE = "\0"
"""Stands for `[MASK]` in a text that is tokenized: one character that no tokenizer splits."""


def _hole_positions(words: Sequence[str]) -> list[int] | None:
    return [position for position, word in enumerate(words) if word == HOLE] or None
