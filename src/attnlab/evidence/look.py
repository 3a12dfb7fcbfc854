"""Who looks at whom, on one sequence: attention where there is some, influence everywhere."""

from contextlib import nullcontext
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from attnlab.evidence.axes import Axes, axes
from attnlab.evidence.base import device_of, moved, undisturbed
from attnlab.evidence.influence import MIXING, influence, mixing, shares
from attnlab.model.base import Model
from attnlab.objective.base import Objective
from attnlab.split import Batch
from attnlab.tap import record, taps

PATTERNS = "*.pattern"


class Seen(NamedTuple):
    """What one pass over a sequence shows."""

    inputs: Tensor
    """The tokens that the model was given: (seq,)."""
    prefix: Tensor | None
    """The tokens that the answering stack has before it, where an encoder reads the inputs."""
    asked_at: int
    """The position that it answers from; the last, where it answers at several."""
    answer: Float[Tensor, " output"]
    """The logits there."""
    maps: dict[str, tuple[Float[Tensor, "head query key"], Axes]]
    """Who looks at whom, and what reads what there, by the name of the tap, from below:
    attention ("*.pattern"), then of mixers that are linear in their values the shares of what they
    mix ("*.mixing")."""
    influence: Float[Tensor, " key"]
    """The share of each token in the answer."""

    @property
    def patterns(self) -> dict[str, Float[Tensor, "head query key"]]:
        """The attention in which tokens of the inputs read one another."""
        return {
            name: weights
            for name, (weights, axes) in self.maps.items()
            if axes == ("inputs", "inputs") and name.endswith(".pattern")
        }


def look(model: Model, objective: Objective, probe: Batch, precision: Any = nullcontext) -> Seen:
    """Pass a batch of one through a model and see its patterns, and each token's influence.

    Training is bit-equal with and without it.
    """
    asked = moved(objective.probe(probe), device_of(model))
    with undisturbed(model), precision():
        listening = record(model, PATTERNS) if taps(model, PATTERNS) else nullcontext({})
        with listening as patterns:
            logits, (of_each,) = influence(model, asked)
        seen = {name: pattern[0].float() for name, pattern in patterns.items()}
        if taps(model, MIXING):
            seen |= {n: shares(m) for n, m in mixing(model, asked, traced=False).items()}
    prefix = None if asked.prefix is None else asked.prefix[0]
    last = asked.inputs.shape[1] - 1 if asked.at is None else int(asked.at[0, -1])
    maps = {name: (weights, axes(model, name)) for name, weights in seen.items()}
    return Seen(asked.inputs[0], prefix, last, logits[0, -1], maps, of_each)
