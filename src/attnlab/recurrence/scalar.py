"""A sum of key-value products that fades by one factor per head and position.

The state is S_t = a_t S_{t-1} + k_t v_t^T and the output o_t = S_t^T q_t, with a_t = exp(log_decay)
in (0, 1], or 1 where there is none: linear attention (Katharopoulos et al. 2020), retention (Sun et
al. 2023) and Mamba-2 (Dao & Gu 2024). Heads may share queries and keys.
"""

from functools import partial

from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from attnlab.recurrence.base import (
    add_chunk_padding,
    carry,
    exactly,
    join,
    kernel,
    remaining,
    split,
)


def scan(
    query: Float[Tensor, "#batch #head seq d_key"],
    key: Float[Tensor, "#batch #head seq d_key"],
    value: Float[Tensor, "batch head seq d_value"],
    log_decay: Float[Tensor, "#batch head seq"] | None,
    state: Float[Tensor, "batch head d_key d_value"] | None = None,
) -> tuple[Float[Tensor, "batch head seq d_value"], Float[Tensor, "batch head d_key d_value"]]:
    """Give every output and the last state, in linear time (the chunked form, Sun et al., eq. 7).

    No product leaves the floating-point range, however strong the decay: only sums of log-decays
    from an earlier position to a later one are exponentiated, and these are at most 0.
    """
    fused = kernel("simple_gla", query)
    if fused is None:
        return _chunked(query, key, value, log_decay, state)
    gates = {} if log_decay is None else {"g": log_decay}
    return fused(query, key, value, state, **gates)


@exactly
def step(
    query: Float[Tensor, "#batch #head 1 d_key"],
    key: Float[Tensor, "#batch #head 1 d_key"],
    value: Float[Tensor, "batch head 1 d_value"],
    log_decay: Float[Tensor, "#batch head 1"] | None,
    state: Float[Tensor, "batch head d_key d_value"] | None,
) -> tuple[Float[Tensor, "batch head 1 d_value"], Float[Tensor, "batch head d_key d_value"]]:
    """Give the output and the state of the next position (no state at the first)."""
    written = _written(key, value)
    if state is None:
        state = written
    elif log_decay is None:
        state = state + written
    else:
        state = rearrange(log_decay.exp(), "b h 1 -> b h 1 1") * state + written
    return _read(query, state), state


@exactly
def everywhere(
    query: Float[Tensor, "#batch #head seq d_key"],
    key: Float[Tensor, "#batch #head seq d_key"],
    value: Float[Tensor, "batch head seq d_value"],
) -> Float[Tensor, "batch head seq d_value"]:
    """Let every position read the sum over the whole sequence, which no position fades."""
    return _read(query, _written(key, value))


@exactly
def _chunked(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    seq = query.shape[2]
    add_chunk_padding(seq, partial(_chunk_flops, query, value))
    query, key, value = split(query), split(key), split(value)
    scores = einsum(query, key, "b h n q d, b h n k d -> b h n q k")
    if log_decay is None:
        written = _written(key, value)
        before, state = carry(written, None, state)
        return join(scores.tril() @ value + _read(query, before), seq), state
    cumulated = split(log_decay).cumsum(dim=-1)
    whole = cumulated[..., -1:]
    left = rearrange((whole - cumulated).exp(), "b h n c -> b h n c 1")
    kept = rearrange(whole.exp(), "b h n 1 -> b h n 1 1")
    before, state = carry(_written(key, value * left), kept, state)
    since = rearrange(cumulated.exp(), "b h n c -> b h n c 1")
    out = (scores * remaining(cumulated)) @ value + _read(query, before) * since
    return join(out, seq), state


def _chunk_flops(query: Tensor, value: Tensor, chunk: int) -> int:
    """Scores, which heads may share; then for each head mixing, what is written, what is read."""
    sharing, heads = query.shape[:2].numel(), value.shape[:2].numel()
    d_key, d_value = query.shape[-1], value.shape[-1]
    each = chunk * chunk * d_value + 2 * chunk * d_key * d_value
    return 2 * (sharing * chunk * chunk * d_key + heads * each)


def _written(key: Tensor, value: Tensor) -> Tensor:
    return einsum(key, value, "b h ... s k, b h ... s v -> b h ... k v")


def _read(query: Tensor, state: Tensor) -> Tensor:
    return einsum(query, state, "b h ... s k, b h ... k v -> b h ... s v")
