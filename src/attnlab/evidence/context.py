"""How much of the text before it a model uses, and what is left where it sees less."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from attnlab.dataset.base import Corpus
from attnlab.evidence.base import Evidence
from attnlab.interp.interventions import blind
from attnlab.objective.autoregressive import Autoregressive
from attnlab.run_record.finding import Curve, Finding, Presentation
from attnlab.split import IGNORE


class ContextUse(Evidence):
    """Measures the loss (nats) by the tokens seen, on the reported split.

    `loss_N` is the mean where a window has shown N tokens, or down to N / 2 + 1: `loss_1` after one
    token, `loss_2` after two, `loss_4` after three or four, and so on (Kaplan et al. 2020, fig. 7,
    for one number a position). It is the same measure for every kind of model.

    A model with attention has more: `within_N` is the mean over the last of these bands where no
    layer and no head sees further back than the last N tokens, its own place included. So
    `within_1` leaves each token alone, and the band's own loss is that without a bound. Layers
    stack, so two of them still reach 2 N - 1 tokens.
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

    def measure(self) -> Finding:
        losses = self._losses()
        edges = doublings(losses.shape[-1])
        scalars = {
            f"loss_{high}": float(losses[:, low:high].nanmean())
            for low, high in zip([0, *edges], edges, strict=False)
        }
        model = self.subject.model
        if model.attention_layers() and len(edges) > 1:
            last = slice(edges[-2], edges[-1])
            for bound in edges[:-1]:
                with blind(model, bound):
                    bounded = self._losses()
                scalars[f"within_{bound}"] = float(bounded[:, last].nanmean())
        return self.finding(scalars)

    def _losses(self) -> Float[Tensor, "window seq"]:
        """Return the loss at each position of each window; NaN where it is asked in another one."""
        subject, losses = self.subject, []
        with subject.observed():
            for asked in subject.ask(subject.dataset.splits[subject.dataset.reported]):
                logits, _ = subject.model(*asked.given)
                flat = subject.objective.loss(logits, asked.targets, "none")
                by_window = rearrange(flat, "(b s) -> b s", b=len(asked.inputs)).double()
                losses.append(by_window.masked_fill(asked.targets == IGNORE, torch.nan).cpu())
        return torch.cat(losses)


def doublings(length: int) -> list[int]:
    """Count 1, 2, 4, ... up to a length, which is the last."""
    return [*(2**n for n in range(length.bit_length()) if 2**n < length), length]
