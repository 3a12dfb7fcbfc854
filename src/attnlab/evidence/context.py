"""How much of the text before it a model uses, and what is left where it sees less."""

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from attnlab.dataset.base import Corpus
from attnlab.evidence.base import device_of, moved, undisturbed
from attnlab.evidence.intervene import attention_layers, blind
from attnlab.model.base import Model
from attnlab.objective.autoregressive import Autoregressive
from attnlab.split import IGNORE

BATCH = 256


def context(model: Model, objective: Autoregressive, dataset: Corpus) -> dict[str, float]:
    """Measure the loss (nats) by the tokens seen, on the reported split.

    `loss_N` is the mean where a window has shown N tokens, or down to N / 2 + 1: `loss_1` after one
    token, `loss_2` after two, `loss_4` after three or four, and so on (Kaplan et al. 2020, fig. 7,
    for one number a position). It is the same measure for every kind of model.

    A model with attention has more: `within_N` is the mean over the last of these bands where no
    layer and no head sees further back than the last N tokens, its own place included. So
    `within_1` leaves each token alone, and the band's own loss is that without a bound. Layers
    stack, so two of them still reach 2 N - 1 tokens.
    """
    losses = _losses(model, objective, dataset)
    edges = doublings(losses.shape[-1])
    found = {
        f"loss_{high}": float(losses[:, low:high].nanmean())
        for low, high in zip([0, *edges], edges, strict=False)
    }
    if attention_layers(model) and len(edges) > 1:
        last = slice(edges[-2], edges[-1])
        for bound in edges[:-1]:
            with blind(model, bound):
                cut = _losses(model, objective, dataset)
            found[f"within_{bound}"] = float(cut[:, last].nanmean())
    return found


def doublings(length: int) -> list[int]:
    """Count 1, 2, 4, ... up to a length, which is the last."""
    return [*(2**n for n in range(length.bit_length()) if 2**n < length), length]


# A function's attribute says of which of its numbers less is better (`runs.direction`).
context.lower_is_better = ("loss_*", "within_*")  # pyright: ignore[reportFunctionMemberAccess]


def _losses(
    model: Model, objective: Autoregressive, dataset: Corpus
) -> Float[Tensor, "window seq"]:
    """Give the loss at each position of each window; NaN where a token is asked in another one."""
    split, device, found = dataset.splits[dataset.reported], device_of(model), []
    with undisturbed(model), torch.no_grad():
        for start in range(0, len(split), BATCH):
            index = np.arange(start, min(start + BATCH, len(split)))
            asked = moved(objective.ask(split.batch(index)), device)
            logits, _ = model(*asked.given)
            flat = objective.loss(logits, asked.targets, "none")
            losses = rearrange(flat, "(b s) -> b s", b=len(index)).double()
            found.append(losses.masked_fill(asked.targets == IGNORE, torch.nan).cpu())
    return torch.cat(found)
