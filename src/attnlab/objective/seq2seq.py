"""Answer a sequence with another one, token by token."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnlab.dataset.base import Dataset
from attnlab.model.base import ENCODER_DECODER
from attnlab.objective.base import BEGIN, Objective, cross_entropy
from attnlab.ranges import ShareBelowOne, ranged
from attnlab.split import IGNORE, Batch


@ranged
class Seq2Seq(Objective):
    """An encoder reads the inputs, a decoder answers from left to right (Sutskever et al. 2014).

    In training the decoder has the right tokens before it. `label_smoothing` spreads that share of
    each target evenly over all outputs (Szegedy et al. 2016, sec. 7; Vaswani et al. 2017, sec. 5.4)
    in training alone: losses that are reported have none.
    """

    arrangement = ENCODER_DECODER

    def __init__(self, dataset: Dataset, *, label_smoothing: ShareBelowOne = 0.0) -> None:
        super().__init__(dataset)
        if dataset.answer_length is None:
            raise ValueError(
                f"{type(dataset).__name__} has no answers that are sequences of their own; use "
                "dataset=reversal, or another objective"
            )
        self.label_smoothing = label_smoothing

    @property
    def inputs(self) -> Sequence[str]:
        return [*self.dataset.tokens, BEGIN]

    @property
    def outputs(self) -> Sequence[str]:
        return self.inputs

    @property
    def max_length(self) -> int:
        return max(self.dataset.max_length, self.dataset.answer_length or 0)

    @property
    def begin(self) -> int:
        """The id of the token before the first token of every answer."""
        return len(self.dataset.tokens)

    def training_batch(self, batch: Batch) -> Batch:
        begin = torch.full_like(batch.targets[:, :1], self.begin)
        prefix = torch.cat((begin, batch.targets[:, :-1]), dim=1)
        # Positions after the end of an answer have no target, so any token may fill them.
        prefix = prefix.masked_fill(prefix == IGNORE, self.begin)
        # They are padding: no position attends to them, and they take no capacity of an expert.
        prefix_valid = batch.targets != IGNORE
        prefix_valid[:, 0] = True
        return batch._replace(prefix=prefix, prefix_valid=prefix_valid)

    def inspection_batch(self, batch: Batch) -> Batch:
        return self.training_batch(batch._replace(targets=batch.targets[:, :1]))

    @property
    def smooths(self) -> bool:
        return self.label_smoothing > 0

    def train_loss(
        self,
        logits: Float[Tensor, "batch label output"],
        targets: Int[Tensor, "batch label"],
        reduction: str = "mean",
    ) -> Float[Tensor, ""]:
        return cross_entropy(logits, targets, reduction, self.label_smoothing)
