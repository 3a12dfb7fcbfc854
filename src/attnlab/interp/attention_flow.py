"""How much of each input can reach each position at all: attention as pipes of limited width."""

from collections.abc import Sequence

import numpy as np
import torch
from einops import reduce
from jaxtyping import Bool, Float
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from torch import Tensor

LONGEST = 64
"""Tokens. Every two positions are a flow of their own, through edges as many again by layer."""
UNITS = 2**30
"""A capacity of 1, in the integers that flows are made of; all that leaves a position is near 1."""


def attention_flow(
    patterns: Sequence[Float[Tensor, "batch _ seq seq"]],
    valid: Bool[Tensor, "batch seq"] | None = None,
) -> Float[Tensor, "batch seq seq"]:
    """Give the maximum flow from each position at the top to each input, 0 to 1.

    Layers are levels of a graph, from the lowest up; an edge goes from a position to one a level
    below, as wide as (A + I) / 2 of the heads' mean A (Abnar & Zuidema 2020, sec. 3, "attention
    flow"). A path is as wide as its narrowest edge, where a rollout multiplies. Unlike a rollout's,
    a row does not sum to 1: each input is a flow by itself. Of padding, row and column are 0.

    Capacities are whole numbers of 2**-30, and a flow is off by at most 2**-31 for each edge of
    the graph: 1e-5 for 6 layers of 64 tokens, at worst. Raises ValueError for no layers, layers of
    unequal shape, and more than 64 tokens.
    """
    if not patterns:
        raise ValueError("no patterns were given; a flow needs those of at least one layer")
    batch, _, length, _ = patterns[0].shape
    for pattern in patterns:
        if (len(pattern), *pattern.shape[2:]) != (batch, length, length):
            raise ValueError(
                f"patterns of {tuple(patterns[0].shape)} and {tuple(pattern.shape)} are no layers "
                "of one graph; give square ones of one length"
            )
    if length > LONGEST:
        raise ValueError(
            f"a flow between every two of {length} tokens takes too long; give at most {LONGEST}, "
            "or take the rollout (`attnlab.interp.circuits.rollout`)"
        )
    means = [reduce(p.detach().double(), "b h q k -> b q k", "mean").cpu() for p in patterns]
    stay = torch.eye(length, dtype=torch.float64)
    widths = torch.stack([(mean + stay) / 2 for mean in means], dim=1).numpy()
    real = np.ones((batch, length), bool) if valid is None else valid.cpu().numpy()
    flows = [_flows(layers, there) for layers, there in zip(widths, real, strict=True)]
    return torch.from_numpy(np.stack(flows)).to(patterns[0].device)


def _flows(
    widths: Float[np.ndarray, "layer seq seq"], real: Bool[np.ndarray, " seq"]
) -> Float[np.ndarray, "seq seq"]:
    """Give the flows of one sequence, of which padding is no part."""
    at = np.flatnonzero(real)
    found, graph = np.zeros(widths.shape[1:], np.float32), _graph(widths[:, at[:, None], at])
    top = len(widths) * len(at)
    for query, row in enumerate(at):
        for key, column in enumerate(at):
            found[row, column] = maximum_flow(graph, top + query, key).flow_value / UNITS
    return found


def _graph(widths: Float[np.ndarray, "layer seq seq"]) -> csr_array:
    """Join the levels: position p after so many layers is node layers * seq + p."""
    num_layers, length, _ = widths.shape
    layer, query, key = np.nonzero(np.rint(widths * UNITS))
    capacity = np.rint(widths * UNITS)[layer, query, key].astype(np.int32)
    ends = ((layer + 1) * length + query, layer * length + key)
    return csr_array((capacity, ends), shape=2 * ((num_layers + 1) * length,))
