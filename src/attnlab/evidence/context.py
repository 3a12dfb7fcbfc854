"""The loss by length of context, and with attention limited to a shorter context."""

from math import inf

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from attnlab.dataset.base import Corpus
from attnlab.evidence.base import Evidence
from attnlab.interp.interventions import limit_reach
from attnlab.objective.autoregressive import Autoregressive
from attnlab.run_record.finding import Curve, Finding, Presentation
from attnlab.split import IGNORE


class ContextUse(Evidence):
    """Measures the loss (nats) by the tokens seen, on the reported split.

    `loss_N` is the mean over positions with N / 2 + 1 to N tokens of context: `loss_1` after one
    token, `loss_2` after two, `loss_4` after three or four, and so on (Kaplan et al. 2020, fig. 7,
    with one number per position). The measure is the same for every kind of model.

    A model with attention also has `within_N`: the mean over the last of these bands if no head of
    any layer sees further back than the last N tokens, its own position included. So at `within_1`
    each token sees only itself, and the band's own loss is that without a bound. Layers stack, so
    two of them still reach 2 N - 1 tokens.
    """

    objective_type, dataset_type = Autoregressive, Corpus
    presentation = Presentation(
        curves=(
            Curve(
                *("seen", "loss_", "loss (nats) by how much of the text was seen"),
                axis="tokens seen, at most",
            ),
            Curve(
                *("within", "within_", "loss (nats) where attention reaches no further"),
                axis="tokens that each head sees",
                ends_with="seen",
            ),
        ),
        reach="within",
    )
    lower_is_better = ("loss_*", "within_*")
    bounds = dict.fromkeys(lower_is_better, (0, inf))

    def measure(self) -> Finding:
        losses = self._position_losses()
        band_ends = context_band_ends(losses.shape[-1])
        scalars = {
            f"loss_{high}": float(losses[:, low:high].nanmean())
            for low, high in zip([0, *band_ends], band_ends, strict=False)
        }
        model = self.subject.model
        if model.attention_layers() and len(band_ends) > 1:
            last_band = slice(band_ends[-2], band_ends[-1])
            for num_visible in band_ends[:-1]:
                with limit_reach(model, num_visible):
                    limited_losses = self._position_losses()
                scalars[f"within_{num_visible}"] = float(limited_losses[:, last_band].nanmean())
        return self.finding(scalars)

    def _position_losses(self) -> Float[Tensor, "window seq"]:
        """Return the loss at each position of each window; NaN where another window counts it."""
        subject, losses_by_batch = self.subject, []
        with subject.observed():
            for batch in subject.batches(subject.dataset.splits[subject.dataset.report_split]):
                logits, _ = subject.model(*batch.model_inputs)
                label_losses = subject.objective.loss(logits, batch.targets, "none")
                window_losses = rearrange(
                    label_losses, "(b s) -> b s", b=len(batch.inputs)
                ).double()
                losses_by_batch.append(
                    window_losses.masked_fill(batch.targets == IGNORE, torch.nan).cpu()
                )
        return torch.cat(losses_by_batch)


def context_band_ends(length: int) -> list[int]:
    """Return [1, 2, 4, ..., length]: the powers of two below a length, and the length."""
    return [*(2**n for n in range(length.bit_length()) if 2**n < length), length]
