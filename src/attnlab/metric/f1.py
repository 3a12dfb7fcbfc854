"""The harmonic mean of precision and recall."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from attnlab.metric.base import likeliest


class F1:
    """2 TP / (2 TP + FP + FN) of each class, averaged over the classes (van Rijsbergen 1979).

    Classes that are neither a target nor an answer are left out of the mean.
    """

    def __call__(
        self, logits: Float[Tensor, "batch label output"], targets: Int[Tensor, "batch label"]
    ) -> Float[Tensor, "batch label 3 output"]:
        """Mark for each label its class as hit, as answered, and as asked."""
        classes = logits.shape[-1]
        # One more class than there are holds the answers that are no numbers.
        answered = F.one_hot(likeliest(logits) % (classes + 1), classes + 1)[..., :classes]
        asked = F.one_hot(targets.clamp(min=0), classes)
        return torch.stack((answered * asked, answered, asked), dim=-2).float()

    def finish(self, sums: Float[Tensor, "3 output"]) -> Float[Tensor, ""]:
        """Average over the classes that occur."""
        hit, answered, asked = sums
        occurs = (answered + asked) > 0
        return (2 * hit / (answered + asked).clamp(min=1))[occurs].mean()
