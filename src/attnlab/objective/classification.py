"""Name the class that the sequence asks for."""

from collections.abc import Sequence

import torch

from attnlab.dataset.base import Dataset
from attnlab.model.base import DECODER, ENCODER
from attnlab.objective.base import Objective
from attnlab.split import Batch


class Classification(Objective):
    """Answers with a class at the position that the dataset asks about.

    With `causal`, no position sees a later one, so the answer is read at the last token: the first
    place where everything has been seen.
    """

    def __init__(self, dataset: Dataset, *, causal: bool = False) -> None:
        super().__init__(dataset)
        if dataset.classes is None:
            raise ValueError(
                f"{type(dataset).__name__} has no classes: its labels are tokens; "
                "use objective=autoregressive"
            )
        self.arrangement = DECODER if causal else ENCODER

    @property
    def outputs(self) -> Sequence[str]:
        return self.dataset.classes or ()

    def training_batch(self, batch: Batch) -> Batch:
        if not self.causal:
            return batch
        if batch.valid is None:
            last_position = torch.full_like(batch.targets, batch.inputs.shape[1] - 1)
        else:
            last_position = (batch.valid.sum(dim=1, keepdim=True) - 1).expand_as(batch.targets)
        return batch._replace(at=last_position)
