"""Which tokens the queries and the keys of a layer are."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from attnlab.mixer.base import Attention
from attnlab.model.base import Model
from attnlab.split import Batch
from attnlab.tap import taps

Sequence = Literal["inputs", "prefix", "latents"]
"""What the model is given, what an answering stack has before it, what a bottleneck leaves."""


class Axes(NamedTuple):
    """Where the queries and the keys of a layer come from."""

    queries: Sequence
    keys: Sequence

    @property
    def across(self) -> bool:
        """Whether one sequence reads another."""
        return self.queries != self.keys


def axes(model: Model, path: str) -> Axes:
    """Say of a layer, or of a tap in it, what reads what.

    An encoder's queries and keys are the inputs and a decoder's the prefix; what stands between
    reads the one with the other, or with what a bottleneck made of it.
    """
    parts = path.split(".")
    if not model.arrangement.encoder or parts[0] == "encoder":
        return Axes("inputs", "inputs")
    if parts[0] == "bottleneck":
        return Axes("latents", "inputs")
    if "cross" in parts or parts[0] == "attention":
        return Axes("prefix", "inputs" if model.arrangement.latents is None else "latents")
    return Axes("prefix", "prefix")


def tokens_of(sequence: Sequence, asked: Batch) -> Tensor | None:
    """Give the tokens of a sequence, (batch, position); latents have none."""
    return {"inputs": asked.inputs, "prefix": asked.prefix, "latents": None}[sequence]


def valid_of(sequence: Sequence, asked: Batch, size: int) -> Bool[Tensor, "batch position"]:
    """Say what of a sequence of `size` positions is no padding."""
    valid = {"inputs": asked.valid, "prefix": asked.prefix_valid, "latents": None}[sequence]
    if valid is not None:
        return valid
    return torch.ones(len(asked.inputs), size, dtype=torch.bool, device=asked.inputs.device)


def worked_on(
    model: Model, path: str, asked: Batch
) -> tuple[Int[Tensor, "batch position"], Bool[Tensor, "batch position"]]:
    """Give the tokens that a layer works on one by one, and which of them are no padding."""
    tokens = tokens_of(axes(model, path).queries, asked)
    assert tokens is not None
    return tokens, valid_of(axes(model, path).queries, asked, tokens.shape[1])


def stated_heads(model: Model) -> dict[str, int | None]:
    """Count the heads of each attention layer without a pass; None of a mixer that is not ours."""
    paths = [name.removesuffix(".pattern") for name in taps(model, "*.pattern")]
    mixers = {path: model.get_submodule(path.rpartition(".")[0]) for path in paths}
    return {
        path: mixer.num_heads * mixer.patterns_per_head if isinstance(mixer, Attention) else None
        for path, mixer in mixers.items()
    }
