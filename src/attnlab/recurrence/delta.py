"""The delta rule: a key's old value is taken out before its new one is written.

The state is S_t = a_t S_{t-1} + b_t k_t (v_t - a_t S_{t-1}^T k_t)^T and the output o_t = S_t^T q_t,
with the write strength b_t in [0, 1], keys of length 1, and a_t = exp(log_decay) in (0, 1], or 1
where there is none: DeltaNet (Yang et al. 2024a, "Parallelizing Linear Transformers with the Delta
Rule over Sequence Length") and Gated DeltaNet (Yang et al. 2024b, eq. 10).
"""

from collections.abc import Sequence
from functools import partial

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from attnlab.recurrence.base import add_chunk_padding, exactly, join, kernel, remaining, split


def scan(
    query: Float[Tensor, "batch head seq d_key"],
    key: Float[Tensor, "batch head seq d_key"],
    value: Float[Tensor, "batch head seq d_value"],
    strength: Float[Tensor, "batch head seq"],
    log_decay: Float[Tensor, "batch head seq"] | None,
    state: Float[Tensor, "batch head d_key d_value"] | None = None,
) -> tuple[Float[Tensor, "batch head seq d_value"], Float[Tensor, "batch head d_key d_value"]]:
    """Return all outputs and the last state, in linear time.

    The chunked form with the UT transform (Yang et al. 2024a, sec. 3; 2024b, sec. 3.3): what each
    position writes depends on what earlier positions of its chunk wrote, a unit-triangular system.
    """
    fused = kernel("delta_rule" if log_decay is None else "gated_delta_rule", query)
    if fused is None:
        return _scan_chunks(query, key, value, strength, log_decay, state)
    gates = {} if log_decay is None else {"g": log_decay}
    return fused(query, key, value, state, beta=strength, **gates)


@exactly
def step(
    query: Float[Tensor, "batch head 1 d_key"],
    key: Float[Tensor, "batch head 1 d_key"],
    value: Float[Tensor, "batch head 1 d_value"],
    strength: Float[Tensor, "batch head 1"],
    log_decay: Float[Tensor, "batch head 1"] | None,
    state: Float[Tensor, "batch head d_key d_value"] | None,
) -> tuple[Float[Tensor, "batch head 1 d_value"], Float[Tensor, "batch head d_key d_value"]]:
    """Return the output and the state of the next position (`state` is None at the first)."""
    column, strength = rearrange(key, "b h 1 k -> b h k 1"), rearrange(strength, "b h 1 -> b h 1 1")
    if state is None:
        state = column * (strength * value)
    else:
        if log_decay is not None:
            state = rearrange(log_decay.exp(), "b h 1 -> b h 1 1") * state
        state = state + column * (strength * (value - key @ state))
    return query @ state, state


@exactly
def _scan_chunks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    strength: Tensor,
    log_decay: Tensor | None,
    state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    seq = query.shape[2]
    add_chunk_padding(seq, partial(_chunk_flops, key, value))
    query, key, value = split(query), split(key), split(value)
    strength = rearrange(split(strength), "b h n c -> b h n c 1")
    scores = einsum(query, key, "b h n q d, b h n k d -> b h n q k")
    overlap = einsum(strength * key, key, "b h n q d, b h n k d -> b h n q k")
    # The keys that read the state before the chunk, the keys that write to the state after it, and
    # the share of the old state that is left after the chunk.
    read_key, write_key, chunk_share = key, key, None
    if log_decay is None:
        scores = scores.tril()
    else:
        cumulated = split(log_decay).cumsum(dim=-1)
        chunk_log_decay = cumulated[..., -1:]
        remaining_share = remaining(cumulated)
        scores, overlap = scores * remaining_share, overlap * remaining_share
        share_since_start = rearrange(cumulated.exp(), "b h n c -> b h n c 1")
        query, read_key = query * share_since_start, key * share_since_start
        write_key = key * rearrange((chunk_log_decay - cumulated).exp(), "b h n c -> b h n c 1")
        chunk_share = rearrange(chunk_log_decay.exp(), "b h n 1 -> b h n 1 1")
    # What a position writes depends on the earlier writes of its chunk. One triangular solve gives
    # all of them, for any state before the chunk; without it, this would loop over all positions.
    # The solver assumes a diagonal of 1 and ignores what is above it.
    solution = torch.linalg.solve_triangular(
        overlap, strength * torch.cat((value, read_key), dim=-1), upper=False, unitriangular=True
    )
    solved_values, solved_keys = solution.split((value.shape[-1], key.shape[-1]), dim=-1)
    states_before, written, state = _carry_state(
        solved_values, solved_keys, write_key, chunk_share, state
    )
    return join(query @ states_before + scores @ written, seq), state


def _chunk_flops(key: Tensor, value: Tensor, chunk: int) -> int:
    """Count the FLOPs of a chunk: scores, overlap, the solve, mixing, and three state products."""
    heads, d_key, d_value = key.shape[:2].numel(), key.shape[-1], value.shape[-1]
    squares = 2 * 2 * d_key + (d_value + d_key) + 2 * d_value
    return heads * (chunk * chunk * squares + 3 * 2 * chunk * d_key * d_value)


def _carry_state(
    solved_values: Tensor,
    solved_keys: Tensor,
    write_keys: Tensor,
    shares: Tensor | None,
    state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the state before each chunk, what each position writes, and the last state.

    `solved_values` and `solved_keys` are the solution of the triangular system: a chunk writes
    `solved_values - solved_keys @ state` at the keys `write_keys`. `shares` has the share of the
    state that is left after each chunk, None for 1.
    """
    zeros = solved_values.new_zeros(
        *solved_values.shape[:2], write_keys.shape[-1], solved_values.shape[-1]
    )
    running_state: Tensor = zeros if state is None else state
    states_before, written = [], []
    write_keys_by_chunk = rearrange(write_keys, "b h n c k -> n b h k c").unbind()
    chunk_shares: Sequence[Tensor | None] = (
        [None] * len(write_keys_by_chunk) if shares is None else shares.unbind(dim=2)
    )
    for chunk_values, chunk_keys, chunk_write_keys, share in zip(
        solved_values.unbind(dim=2),
        solved_keys.unbind(dim=2),
        write_keys_by_chunk,
        chunk_shares,
        strict=True,
    ):
        states_before.append(running_state)
        written.append(chunk_values - chunk_keys @ running_state)
        faded_state = running_state if share is None else share * running_state
        running_state = faded_state + chunk_write_keys @ written[-1]
    return torch.stack(states_before, dim=2), torch.stack(written, dim=2), running_state
