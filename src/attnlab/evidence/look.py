"""Who looks at whom, on one sequence: attention where there is some, influence everywhere."""

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from attnlab.evidence.base import device_of, moved, undisturbed
from attnlab.evidence.influence import influence
from attnlab.model.base import Model
from attnlab.objective.base import Objective
from attnlab.split import Batch
from attnlab.tap import record, taps

PATTERNS = "*.pattern"
ENCODERS = "encoder.*.pattern"


class Seen(NamedTuple):
    """What one pass over a sequence shows."""

    inputs: Tensor
    """The tokens that the model was given: (seq,)."""
    asked_at: int
    """The position that it answers from; the last, where it answers at several."""
    answer: Float[Tensor, " output"]
    """The logits there."""
    patterns: dict[str, Float[Tensor, "head query key"]]
    """Attention by the name of its tap, from the lowest layer up; none in an LSTM, and that of the
    encoder alone where there is one: the others' queries are no tokens of the inputs."""
    influence: Float[Tensor, " key"]
    """The share of each token in the answer."""


def look(model: Model, objective: Objective, probe: Batch, precision: Any = nullcontext) -> Seen:
    """Pass a batch of one through a model and see its patterns, and each token's influence.

    Training is bit-equal with and without it.
    """
    asked = moved(objective.probe(probe), device_of(model))
    with undisturbed(model), precision():
        patterns: dict[str, Tensor] = {}
        names = ENCODERS if model.arrangement.encoder else PATTERNS
        if taps(model, names):
            with torch.no_grad(), record(model, names) as patterns:
                model(*asked.given)
        logits, shares = influence(model, asked)
    last = asked.inputs.shape[1] - 1 if asked.at is None else int(asked.at[0, -1])
    seen = {name: pattern[0].float() for name, pattern in patterns.items()}
    return Seen(asked.inputs[0], last, logits[0, -1], seen, shares[0])
