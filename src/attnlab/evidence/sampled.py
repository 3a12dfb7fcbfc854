"""The loss as papers estimate it: on a few batches at random places."""

import numpy as np
import torch

from attnlab.dataset.base import Corpus
from attnlab.evidence.base import device_of, moved, undisturbed
from attnlab.model.base import Model
from attnlab.objective.autoregressive import Autoregressive
from attnlab.ranges import Count, Seed, ranged
from attnlab.split import Windows


@ranged
def sampled(
    model: Model,
    objective: Autoregressive,
    dataset: Corpus,
    *,
    batches: Count = 20,
    batch_size: Count = 12,
    seed: Seed = 0,
) -> dict[str, float]:
    """Measure `loss` (nats): the mean over batches of windows that begin anywhere in validation.

    nanoGPT's estimate (its `estimate_loss`), with places of our own. The loss of the whole split is
    what it estimates; `sampled` is there to be held beside numbers that were published so.
    """
    split, device = dataset.splits["validation"], device_of(model)
    assert isinstance(split, Windows)
    anywhere = Windows(split.tokens, split.length, 1)
    draw, losses = np.random.Generator(np.random.Philox(key=seed)), []
    with undisturbed(model), torch.no_grad():
        for _ in range(batches):
            batch = anywhere.batch(draw.integers(len(anywhere), size=batch_size))
            asked = moved(objective.ask(batch), device)
            logits, _ = model(*asked.given)
            losses.append(objective.loss(logits, asked.targets).double())
    return {"loss": float(torch.stack(losses).mean())}
