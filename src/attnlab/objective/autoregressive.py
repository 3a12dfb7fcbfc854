"""Predict a token from the earlier ones."""

from collections.abc import Sequence

import torch

from attnlab.dataset.base import IGNORE, Batch, Dataset
from attnlab.model.base import DECODER
from attnlab.objective.base import Objective, require_positions


class Autoregressive(Objective):
    """Answers with tokens, each from what stands before it (Bengio et al. 2003, eq. 1).

    A dataset whose labels are tokens (recall tasks, text) asks its own. One whose labels are
    classes is read as plain sequences, and every next token is asked.
    """

    arrangement = DECODER

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        require_positions(dataset, "objective=autoregressive")

    @property
    def outputs(self) -> Sequence[str]:
        return self.dataset.tokens

    def ask(self, batch: Batch) -> Batch:
        if self.dataset.classes is None:
            return batch
        targets = batch.inputs[:, 1:]
        valid = None
        if batch.valid is not None:
            targets = torch.where(batch.valid[:, 1:], targets, IGNORE)
            valid = batch.valid[:, :-1]
        return Batch(batch.inputs[:, :-1], targets, None, valid)
