"""Capture one forward pass: attention patterns where a model has them, and token influence."""

from contextlib import nullcontext
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from attnlab.interp.attention_taps import record_patterns
from attnlab.interp.attribution import logits_and_influence, mixing_matrices, row_shares
from attnlab.interp.observe import isolated_evaluation, to_device
from attnlab.interp.subject import Subject
from attnlab.layers import AttentionLayer, Axes, Layer
from attnlab.split import Batch


@dataclass(frozen=True, eq=False)
class ActivationCapture:
    """The activations of one forward pass over one sequence."""

    inputs: Tensor
    """The tokens of the model's input: (seq,)."""
    prefix: Tensor | None
    """The tokens of the decoder's prefix, if an encoder reads the inputs."""
    answer_position: int
    """The position of the answer; the last one, if the model answers at several."""
    answer: Float[Tensor, " output"]
    """The logits at that position."""
    weights: dict[Layer, Float[Tensor, "head query key"]]
    """The attention patterns in the order of the pass, then for each mixer that is linear in its
    values the shares of its mixing matrix."""
    influence: Float[Tensor, " key"]
    """The share of each token in the answer."""

    @property
    def patterns(self) -> dict[AttentionLayer, Float[Tensor, "head query key"]]:
        """The patterns of self-attention over the inputs."""
        return {
            layer: weights
            for layer, weights in self.weights.items()
            if isinstance(layer, AttentionLayer) and layer.axes == Axes("inputs", "inputs")
        }


def capture(subject: Subject, probe: Batch) -> ActivationCapture:
    """Return the patterns and each token's influence on a batch of one sequence.

    Training is bit-equal with and without it.
    """
    model = subject.model
    batch = to_device(subject.objective.inspection_batch(probe), subject.device)
    has_attention = bool(model.attention_layers())
    with isolated_evaluation(model), subject.precision():
        with record_patterns(model) if has_attention else nullcontext({}) as patterns:
            logits, (token_shares,) = logits_and_influence(model, batch)
        weights: dict[Layer, Tensor] = {
            layer: pattern[0].float() for layer, pattern in patterns.items()
        }
        matrices = mixing_matrices(model, batch, traced=False)
        weights |= {layer: row_shares(matrix) for layer, matrix in matrices.items()}
    prefix = None if batch.prefix is None else batch.prefix[0]
    answer_position = batch.inputs.shape[1] - 1 if batch.at is None else int(batch.at[0, -1])
    return ActivationCapture(
        batch.inputs[0], prefix, answer_position, logits[0, -1], weights, token_shares
    )
