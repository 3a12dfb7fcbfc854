"""The harmonic mean of precision and recall."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from attnlab.metric.base import bounded, likeliest_outputs


@bounded(0, 1)
class F1:
    """2 TP / (2 TP + FP + FN) of each class, averaged over the classes (van Rijsbergen 1979).

    Classes that are neither a target nor an answer are left out of the mean.
    """

    def __call__(
        self, logits: Float[Tensor, "batch label output"], targets: Int[Tensor, "batch label"]
    ) -> Float[Tensor, "batch label 3 output"]:
        """Return three one-hot rows for each label: its hit, its predicted class, its target."""
        num_classes = logits.shape[-1]
        # An extra class, which is cut off again, holds the predictions of logits that are nan.
        predicted_one_hot = F.one_hot(
            likeliest_outputs(logits) % (num_classes + 1), num_classes + 1
        )[..., :num_classes]
        target_one_hot = F.one_hot(targets.clamp(min=0), num_classes)
        return torch.stack(
            (predicted_one_hot * target_one_hot, predicted_one_hot, target_one_hot), dim=-2
        ).float()

    def finish(self, sums: Float[Tensor, "3 output"]) -> Float[Tensor, ""]:
        """Return the mean F1 of the classes that occur."""
        hits, num_predicted, num_targets = sums
        is_present = (num_predicted + num_targets) > 0
        return (2 * hits / (num_predicted + num_targets).clamp(min=1))[is_present].mean()
