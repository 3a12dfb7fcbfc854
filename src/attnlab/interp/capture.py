"""Who looks at whom, on one sequence: attention where there is some, influence everywhere."""

from contextlib import nullcontext
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from attnlab.interp.attention import record_patterns
from attnlab.interp.attribution import influence, mixing, shares
from attnlab.interp.observe import moved, undisturbed
from attnlab.interp.subject import Subject
from attnlab.layers import AttentionLayer, Axes, MixingLayer
from attnlab.split import Batch

Layer = AttentionLayer | MixingLayer


@dataclass(frozen=True, eq=False)
class ActivationCapture:
    """What one pass over a sequence shows."""

    inputs: Tensor
    """The tokens that the model was given: (seq,)."""
    prefix: Tensor | None
    """The tokens that the answering stack has before it, where an encoder reads the inputs."""
    asked_at: int
    """The position that it answers from; the last, where it answers at several."""
    answer: Float[Tensor, " output"]
    """The logits there."""
    weights: dict[Layer, Float[Tensor, "head query key"]]
    """Who reads whom: attention in the order of a pass, then of mixers that are linear in their
    values the shares of what they mix."""
    influence: Float[Tensor, " key"]
    """The share of each token in the answer."""

    @property
    def patterns(self) -> dict[AttentionLayer, Float[Tensor, "head query key"]]:
        """The attention in which tokens of the inputs read one another."""
        return {
            layer: weights
            for layer, weights in self.weights.items()
            if isinstance(layer, AttentionLayer) and layer.axes == Axes("inputs", "inputs")
        }


def capture(subject: Subject, probe: Batch) -> ActivationCapture:
    """Pass a batch of one through a model, and return its patterns and each token's influence.

    Training is bit-equal with and without it.
    """
    model = subject.model
    asked = moved(subject.objective.probe(probe), subject.device)
    attends = bool(model.attention_layers())
    with undisturbed(model), subject.precision():
        with record_patterns(model) if attends else nullcontext({}) as patterns:
            logits, (of_each,) = influence(model, asked)
        weights: dict[Layer, Tensor] = {layer: p[0].float() for layer, p in patterns.items()}
        weights |= {layer: shares(m) for layer, m in mixing(model, asked, traced=False).items()}
    prefix = None if asked.prefix is None else asked.prefix[0]
    last = asked.inputs.shape[1] - 1 if asked.at is None else int(asked.at[0, -1])
    return ActivationCapture(asked.inputs[0], prefix, last, logits[0, -1], weights, of_each)
