"""A sum of key-value products that fades by one factor per key channel and position.

The state is S_t = diag(a_t) S_{t-1} + k_t v_t^T and the output o_t = S_t^T q_t, with
a_t = exp(log_decay) in (0, 1]: gated linear attention (Yang et al. 2023, eq. 3).
"""

from functools import partial

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from attnlab.recurrence.base import CHUNK, add_chunk_padding, carry, exactly, join, kernel, split

PAIRWISE = 4
"""Number of positions whose pairs are weighed explicitly, one number per channel."""


def scan(
    query: Float[Tensor, "batch head seq d_key"],
    key: Float[Tensor, "batch head seq d_key"],
    value: Float[Tensor, "batch head seq d_value"],
    log_decay: Float[Tensor, "batch head seq d_key"],
    state: Float[Tensor, "batch head d_key d_value"] | None = None,
) -> tuple[Float[Tensor, "batch head seq d_value"], Float[Tensor, "batch head d_key d_value"]]:
    """Return all outputs and the last state, in linear time (chunked form, Yang et al., eq. 4).

    Any decay is safe: see `_read_within_chunk`.
    """
    fused = kernel("gla", query)
    if fused is None:
        return _scan_chunks(query, key, value, log_decay, state)
    return fused(query, key, value, state, g=log_decay)


@exactly
def step(
    query: Float[Tensor, "batch head 1 d_key"],
    key: Float[Tensor, "batch head 1 d_key"],
    value: Float[Tensor, "batch head 1 d_value"],
    log_decay: Float[Tensor, "batch head 1 d_key"],
    state: Float[Tensor, "batch head d_key d_value"] | None,
) -> tuple[Float[Tensor, "batch head 1 d_value"], Float[Tensor, "batch head d_key d_value"]]:
    """Return the output and the state of the next position (`state` is None at the first)."""
    written = rearrange(key, "b h 1 k -> b h k 1") * value
    if state is None:
        state = written
    else:
        state = rearrange(log_decay.exp(), "b h 1 k -> b h k 1") * state + written
    return query @ state, state


@exactly
def _scan_chunks(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    seq = query.shape[2]
    add_chunk_padding(seq, partial(_chunk_flops, key, value))
    query, key, value = split(query), split(key), split(value)
    cumulated = split(log_decay).cumsum(dim=-2)
    chunk_log_decay = cumulated[..., -1:, :]
    fading_key = key * (chunk_log_decay - cumulated).exp()
    written = einsum(fading_key, value, "b h n c k, b h n c v -> b h n k v")
    chunk_share = rearrange(chunk_log_decay.exp(), "b h n 1 k -> b h n k 1")
    states_before, state = carry(written, chunk_share, state)
    outputs = (
        _read_within_chunk(query, key, value, cumulated) + (query * cumulated.exp()) @ states_before
    )
    return join(outputs, seq), state


def _chunk_flops(key: Tensor, value: Tensor, chunk: int) -> int:
    """Count the FLOPs of a chunk: writing and reading the state, `_read_within_chunk`."""
    heads, d_key, d_value = key.shape[:2].numel(), key.shape[-1], value.shape[-1]
    flops, half = 2 * 2 * chunk * d_key * d_value, CHUNK // 2
    while half >= PAIRWISE:
        for start in range(0, chunk, 2 * half):
            earlier = min(half, chunk - start)
            later = min(half, max(0, chunk - start - half))
            flops += 2 * later * earlier * (d_key + d_value)
        half //= 2
    for start in range(0, chunk, PAIRWISE):
        flops += 2 * min(PAIRWISE, chunk - start) ** 2 * d_value
    return heads * flops


def _read_within_chunk(query: Tensor, key: Tensor, value: Tensor, cumulated: Tensor) -> Tensor:
    """Return what each position of a chunk reads from the chunk's positions up to itself.

    With G the sum of log-decays, a product of q exp(G) and k exp(-G) would overflow. So a chunk is
    halved: the second half reads the first one with G relative to the border between them,
    q exp(G - G_border) and k exp(G_border - G), where no exponent is positive. Each half is then
    split in the same way, down to runs of `PAIRWISE` positions.
    """
    if query.shape[-2] == PAIRWISE:
        return _read_pairwise(query, key, value, cumulated)
    query, key, value, cumulated = (
        rearrange(x, "b h ... (half c) d -> b h half ... c d", half=2)
        for x in (query, key, value, cumulated)
    )
    border = cumulated[:, :, 0, ..., -1:, :]
    later = query[:, :, 1] * (cumulated[:, :, 1] - border).exp()
    earlier = key[:, :, 0] * (border - cumulated[:, :, 0]).exp()
    from_first_half = (
        einsum(later, earlier, "b h ... q d, b h ... k d -> b h ... q k") @ value[:, :, 0]
    )
    first_half, second_half = _read_within_chunk(query, key, value, cumulated).unbind(dim=2)
    return torch.cat((first_half, second_half + from_first_half), dim=-2)


def _read_pairwise(query: Tensor, key: Tensor, value: Tensor, cumulated: Tensor) -> Tensor:
    """Compute `_read_within_chunk` with an explicit weight for each pair and channel."""
    query, query_cumulated = (rearrange(x, "... q d -> ... q 1 d") for x in (query, cumulated))
    key, key_cumulated = (rearrange(x, "... k d -> ... 1 k d") for x in (key, cumulated))
    future = torch.ones(PAIRWISE, PAIRWISE, dtype=torch.bool, device=query.device).triu(1)
    share = (
        (query_cumulated - key_cumulated)
        .masked_fill(rearrange(future, "q k -> q k 1"), -torch.inf)
        .exp()
    )
    return (query * key * share).sum(dim=-1) @ value
