"""What every objective is: who may see whom, what is asked where, what an error costs."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from attnlab.dataset.base import Dataset
from attnlab.model.base import Arrangement
from attnlab.split import IGNORE, Batch

BEGIN = "[BEGIN]"
"""The token from which an answer begins that is a sequence of its own."""

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: how far apart SplitMix64 counts."""


class Objective(ABC):
    """Turns a dataset's batch into what the model is asked.

    `arrangement` decides the stacks of the model: a decoder, an encoder, or both.
    """

    arrangement: Arrangement

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    @property
    def causal(self) -> bool:
        return self.arrangement.causal

    @property
    def inputs(self) -> Sequence[str]:
        """Name what the model reads, in order: the data's tokens, then those of the objective."""
        return self.dataset.tokens

    @property
    @abstractmethod
    def outputs(self) -> Sequence[str]:
        """Name what the model chooses from, in order."""

    @property
    def begin(self) -> int | None:
        """The number of the token from which an answer begins that is a sequence of its own."""
        return None

    @property
    def max_length(self) -> int:
        """Positions in the longest sequence that the model reads."""
        return self.dataset.max_length

    @abstractmethod
    def ask(self, batch: Batch) -> Batch:
        """Say which positions must answer what."""

    def read(self, text: str) -> Batch:
        """Make a batch of a text that a person gives. Raises ValueError (`Dataset.read`)."""
        return self.dataset.read(text)

    def probe(self, batch: Batch) -> Batch:
        """Say what is asked of a sequence that is looked at: a person's text, or one of the data.

        Of an answer that is a sequence, it is the first token.
        """
        return self.ask(batch)

    def loss(
        self,
        logits: Float[Tensor, "batch label output"],
        targets: Int[Tensor, "batch label"],
        reduction: str = "mean",
    ) -> Float[Tensor, "*label"]:
        """Cross-entropy in nats, over the targets that count; with "none", 0 where one does not."""
        return cross_entropy(logits, targets, reduction)

    @property
    def smooths(self) -> bool:
        """Whether `train_loss` is another number than `loss`."""
        return False

    def train_loss(
        self,
        logits: Float[Tensor, "batch label output"],
        targets: Int[Tensor, "batch label"],
        reduction: str = "mean",
    ) -> Float[Tensor, ""]:
        """What training minimises, where that is not the loss itself."""
        return self.loss(logits, targets, reduction)

    def derived(self, split: str, loss: float) -> dict[str, float]:
        """Name what follows from the mean loss on a split."""
        return {}


def cross_entropy(
    logits: Float[Tensor, "batch label output"],
    targets: Int[Tensor, "batch label"],
    reduction: str,
    smoothing: float = 0.0,
) -> Float[Tensor, "*label"]:
    """Compute the cross-entropy in nats over the targets that count, in float32 at least."""
    exact = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(
        logits.flatten(0, 1).to(exact),
        targets.flatten(),
        ignore_index=IGNORE,
        reduction=reduction,
        label_smoothing=smoothing,
    )


def noise(key: Int[Tensor, " batch"], seq: int, draw: int) -> Float[Tensor, "batch seq"]:
    """Draw a uniform number in [0, 1) for each position of each example.

    A pure function of (key, position, draw), the same on every device: the finaliser of SplitMix64
    (Steele et al. 2014, fig. 16) on a counter. Different `draw`s are independent.
    """
    at = torch.arange(seq, device=key.device)
    mixed = _mix(_mix(key + _signed(draw * GOLDEN))[:, None] + at)
    return _shifted(mixed, 40).float() * 2.0**-24


def _mix(x: Int[Tensor, "*any"]) -> Int[Tensor, "*any"]:
    x = x + _signed(GOLDEN)
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _shifted(x: Int[Tensor, "*any"], bits: int) -> Int[Tensor, "*any"]:
    """Shift to the right without the sign: torch's own shift of int64 would repeat it."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """Write 64 bits as torch's int64 has them."""
    return (number + 2**63) % 2**64 - 2**63
