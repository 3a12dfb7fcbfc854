"""The interface of objectives: the model's arrangement, its inputs and targets, and the loss."""

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
"""The token before the first token of an answer, where answers are sequences of their own."""

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: the step of SplitMix64's counter."""


class Objective(ABC):
    """Turns a dataset's batch into the inputs and targets of the model.

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
        """The model's input tokens in order: those of the data, then those of the objective."""
        return self.dataset.tokens

    @property
    @abstractmethod
    def outputs(self) -> Sequence[str]:
        """The names of the model's outputs, in order."""

    @property
    def begin(self) -> int | None:
        """The id of the token before an answer that is a sequence of its own; None without one."""
        return None

    @property
    def max_length(self) -> int:
        """Positions in the longest sequence that the model reads."""
        return self.dataset.max_length

    @abstractmethod
    def training_batch(self, batch: Batch) -> Batch:
        """Return the batch as the model is trained on it: inputs, targets and their positions."""

    def batch_of_text(self, text: str) -> Batch:
        """Return a batch of a person's text. Raises ValueError as `Dataset.batch_of_text` does."""
        return self.dataset.batch_of_text(text)

    def inspection_batch(self, batch: Batch) -> Batch:
        """Return the batch for a sequence that is inspected: a person's text, or one of the data.

        For an answer that is a sequence, the only target is its first token.
        """
        return self.training_batch(batch)

    def loss(
        self,
        logits: Float[Tensor, "batch label output"],
        targets: Int[Tensor, "batch label"],
        reduction: str = "mean",
    ) -> Float[Tensor, "*label"]:
        """Return the cross-entropy in nats over the targets that count; "none" sets others to 0."""
        return cross_entropy(logits, targets, reduction)

    @property
    def smooths(self) -> bool:
        """Whether `train_loss` differs from `loss`, which a run reports."""
        return type(self).train_loss is not Objective.train_loss

    def train_loss(
        self,
        logits: Float[Tensor, "batch label output"],
        targets: Int[Tensor, "batch label"],
        reduction: str = "mean",
    ) -> Float[Tensor, ""]:
        """Return what training minimises: the loss itself, unless an objective overrides this."""
        return self.loss(logits, targets, reduction)

    def derived_metrics(self, split: str, loss: float) -> dict[str, float]:
        """Return the numbers, by name, that are computed from the mean loss on a split."""
        return {}


def cross_entropy(
    logits: Float[Tensor, "batch label output"],
    targets: Int[Tensor, "batch label"],
    reduction: str,
    smoothing: float = 0.0,
) -> Float[Tensor, "*label"]:
    """Compute the cross-entropy in nats over the targets that count, in float32 at least."""
    precise_type = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(
        logits.flatten(0, 1).to(precise_type),
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
    positions = torch.arange(seq, device=key.device)
    random_bits = _splitmix(_splitmix(key + _as_int64(draw * GOLDEN))[:, None] + positions)
    # The upper 24 bits, which float32 holds exactly: with more of them, the largest would round to
    # 1.0, and a token drawn by it would lie outside of the vocabulary.
    return _shift_right_unsigned(random_bits, 40).float() * 2.0**-24


def _splitmix(x: Int[Tensor, "*any"]) -> Int[Tensor, "*any"]:
    """Return one output of SplitMix64 for each number (Steele et al. 2014, fig. 16)."""
    x = x + _as_int64(GOLDEN)
    x = (x ^ _shift_right_unsigned(x, 30)) * _as_int64(0xBF58476D1CE4E5B9)
    x = (x ^ _shift_right_unsigned(x, 27)) * _as_int64(0x94D049BB133111EB)
    return x ^ _shift_right_unsigned(x, 31)


def _shift_right_unsigned(x: Int[Tensor, "*any"], bits: int) -> Int[Tensor, "*any"]:
    """Shift 64 unsigned bits to the right: torch's own shift of int64 would repeat the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _as_int64(number: int) -> int:
    """Return the int64 with the last 64 bits of a number."""
    return (number + 2**63) % 2**64 - 2**63
