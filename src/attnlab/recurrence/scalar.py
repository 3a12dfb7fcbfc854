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
    """Return all outputs and the last state, in linear time (chunked form, Sun et al., eq. 7).

    No product leaves the floating-point range, however strong the decay: only sums of log-decays
    from an earlier position to a later one are exponentiated, and these are at most 0.
    """
    fused = kernel("simple_gla", query)
    if fused is None:
        return _scan_chunks(query, key, value, log_decay, state)
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
    """Return the output and the state of the next position (`state` is None at the first)."""
    written = _write_state(key, value)
    if state is None:
        state = written
    elif log_decay is None:
        state = state + written
    else:
        state = rearrange(log_decay.exp(), "b h 1 -> b h 1 1") * state + written
    return _read_state(query, state), state


@exactly
def everywhere(
    query: Float[Tensor, "#batch #head seq d_key"],
    key: Float[Tensor, "#batch #head seq d_key"],
    value: Float[Tensor, "batch head seq d_value"],
) -> Float[Tensor, "batch head seq d_value"]:
    """Return what every position reads from the sum over the whole sequence, without decay."""
    return _read_state(query, _write_state(key, value))


@exactly
def _scan_chunks(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    seq = query.shape[2]
    add_chunk_padding(seq, partial(_chunk_flops, query, value))
    query, key, value = split(query), split(key), split(value)
    scores = einsum(query, key, "b h n q d, b h n k d -> b h n q k")
    if log_decay is None:
        written = _write_state(key, value)
        states_before, state = carry(written, None, state)
        return join(scores.tril() @ value + _read_state(query, states_before), seq), state
    cumulated = split(log_decay).cumsum(dim=-1)
    chunk_log_decay = cumulated[..., -1:]
    value_share = rearrange((chunk_log_decay - cumulated).exp(), "b h n c -> b h n c 1")
    chunk_share = rearrange(chunk_log_decay.exp(), "b h n 1 -> b h n 1 1")
    states_before, state = carry(_write_state(key, value * value_share), chunk_share, state)
    share_since_start = rearrange(cumulated.exp(), "b h n c -> b h n c 1")
    outputs = (scores * remaining(cumulated)) @ value + _read_state(
        query, states_before
    ) * share_since_start
    return join(outputs, seq), state


def _chunk_flops(query: Tensor, value: Tensor, chunk: int) -> int:
    """Count the FLOPs of a chunk: scores, which heads may share; mixing, writing and reading."""
    num_score_heads, num_value_heads = query.shape[:2].numel(), value.shape[:2].numel()
    d_key, d_value = query.shape[-1], value.shape[-1]
    flops_per_head = chunk * chunk * d_value + 2 * chunk * d_key * d_value
    return 2 * (num_score_heads * chunk * chunk * d_key + num_value_heads * flops_per_head)


def _write_state(key: Tensor, value: Tensor) -> Tensor:
    return einsum(key, value, "b h ... s k, b h ... s v -> b h ... k v")


def _read_state(query: Tensor, state: Tensor) -> Tensor:
    return einsum(query, state, "b h ... s k, b h ... k v -> b h ... s v")
