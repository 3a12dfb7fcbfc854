"""The harmonic mean of precision and recall."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from attnlab.metric.base import bounded, likeliest


@bounded(0, 1)
class F1:
    """2 TP / (2 TP + FP + FN) of each class, averaged over the classes (van Rijsbergen 1979).

    Classes that are neither a target nor an answer are left out of the mean.
    """

    def __call__(
        self, logits: Float[Tensor, "batch label output"], targets: Int[Tensor, "batch label"]
    ) -> Float[Tensor, "batch label 3 output"]:
        """Return three one-hot rows for each label: its hit, its predicted class, its target."""
        classes = logits.shape[-1]
        # An extra class, which is cut off again, holds the predictions of logits that are nan.
        predicted = F.one_hot(likeliest(logits) % (classes + 1), classes + 1)[..., :classes]
        targeted = F.one_hot(targets.clamp(min=0), classes)
        return torch.stack((predicted * targeted, predicted, targeted), dim=-2).float()

    def finish(self, sums: Float[Tensor, "3 output"]) -> Float[Tensor, ""]:
        """Return the mean F1 of the classes that occur."""
        hits, predicted, targeted = sums
        occurs = (predicted + targeted) > 0
        return (2 * hits / (predicted + targeted).clamp(min=1))[occurs].mean()
