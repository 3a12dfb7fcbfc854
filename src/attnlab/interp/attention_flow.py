"""Attention flow: the most of each input that can reach each position, by maximum flow."""

from collections.abc import Sequence

import numpy as np
import torch
from einops import reduce
from jaxtyping import Bool, Float
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from torch import Tensor

LONGEST = 64
"""Tokens. Each pair of positions needs a maximum flow of its own, over all edges of all layers."""
UNITS = 2**30
"""The integer that stands for a capacity of 1; the edges out of a position sum to about 1."""


def attention_flow(
    patterns: Sequence[Float[Tensor, "batch _ seq seq"]],
    valid: Bool[Tensor, "batch seq"] | None = None,
) -> Float[Tensor, "batch seq seq"]:
    """Compute the maximum flow from each position of the top layer to each input, 0 to 1.

    Layers are levels of a graph, from the lowest up. An edge leads from a position to a position
    one level below; its capacity is that entry of (A + I) / 2, with A the mean over heads (Abnar &
    Zuidema 2020, sec. 3, "attention flow"). A path carries as much as its narrowest edge, where a
    rollout multiplies the edges. Each input has a flow of its own, so a row does not sum to 1, as
    a rollout's does. Rows and columns of padding are 0.

    Capacities are rounded to multiples of 2**-30, so a flow is off by at most 2**-31 for each edge
    of the graph: 1e-5 for 6 layers of 64 tokens, at worst. Raises ValueError for no layers, layers
    of unequal shape, and more than 64 tokens.
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
    mean_patterns = [
        reduce(pattern.detach().double(), "b h q k -> b q k", "mean").cpu() for pattern in patterns
    ]
    identity = torch.eye(length, dtype=torch.float64)
    capacities = torch.stack([(mean + identity) / 2 for mean in mean_patterns], dim=1).numpy()
    is_token = np.ones((batch, length), bool) if valid is None else valid.cpu().numpy()
    flows = [
        _max_flows(layer_capacities, sequence_is_token)
        for layer_capacities, sequence_is_token in zip(capacities, is_token, strict=True)
    ]
    return torch.from_numpy(np.stack(flows)).to(patterns[0].device)


def _max_flows(
    capacities: Float[np.ndarray, "layer seq seq"], is_token: Bool[np.ndarray, " seq"]
) -> Float[np.ndarray, "seq seq"]:
    """Return the maximum flows of one sequence; padding is left out of the graph."""
    positions = np.flatnonzero(is_token)
    graph = _build_graph(capacities[:, positions[:, None], positions])
    flows = np.zeros(capacities.shape[1:], np.float32)
    first_top_node = len(capacities) * len(positions)
    for query, query_position in enumerate(positions):
        for key, key_position in enumerate(positions):
            flow = maximum_flow(graph, first_top_node + query, key).flow_value
            flows[query_position, key_position] = flow / UNITS
    return flows


def _build_graph(capacities: Float[np.ndarray, "layer seq seq"]) -> csr_array:
    """Build the graph; position p of level n (0: the inputs) is node n * seq + p."""
    num_layers, length, _ = capacities.shape
    layer, query, key = np.nonzero(np.rint(capacities * UNITS))
    edge_capacities = np.rint(capacities * UNITS)[layer, query, key].astype(np.int32)
    edge_ends = ((layer + 1) * length + query, layer * length + key)
    return csr_array((edge_capacities, edge_ends), shape=2 * ((num_layers + 1) * length,))
