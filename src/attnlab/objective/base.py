"""What every objective is: who may see whom, what is asked where, what an error costs."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from attnlab.dataset.base import IGNORE, Batch, Dataset


class Objective(ABC):
    """Turns a dataset's batch into what the model is asked.

    `causal` decides the arrangement of the model: True builds a decoder, False an encoder.
    """

    causal: bool

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    @property
    @abstractmethod
    def outputs(self) -> Sequence[str]:
        """Name what the model chooses from, in order."""

    @abstractmethod
    def ask(self, batch: Batch) -> Batch:
        """Say which positions must answer what."""

    def loss(
        self,
        logits: Float[Tensor, "batch label output"],
        targets: Int[Tensor, "batch label"],
        reduction: str = "mean",
    ) -> Float[Tensor, "*label"]:
        """Cross-entropy in nats, over the targets that count; with "none", 0 where one does not."""
        return F.cross_entropy(
            logits.flatten(0, 1).float(),
            targets.flatten(),
            ignore_index=IGNORE,
            reduction=reduction,
        )
