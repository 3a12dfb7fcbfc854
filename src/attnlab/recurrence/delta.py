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
    """Give every output and the last state, in linear time.

    The chunked form with the UT transform (Yang et al. 2024a, sec. 3; 2024b, sec. 3.3): what each
    position writes depends on what the earlier ones of its chunk wrote, a unit-triangular system.
    """
    fused = kernel("delta_rule" if log_decay is None else "gated_delta_rule", query)
    if fused is None:
        return _chunked(query, key, value, strength, log_decay, state)
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
    """Give the output and the state of the next position (no state at the first)."""
    column, strength = rearrange(key, "b h 1 k -> b h k 1"), rearrange(strength, "b h 1 -> b h 1 1")
    if state is None:
        state = column * (strength * value)
    else:
        if log_decay is not None:
            state = rearrange(log_decay.exp(), "b h 1 -> b h 1 1") * state
        state = state + column * (strength * (value - key @ state))
    return query @ state, state


@exactly
def _chunked(
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
    # The key that reads the state before the chunk, the one that writes, and what the chunk keeps.
    reading, writing, kept = key, key, None
    if log_decay is None:
        scores = scores.tril()
    else:
        cumulated = split(log_decay).cumsum(dim=-1)
        whole = cumulated[..., -1:]
        left = remaining(cumulated)
        scores, overlap = scores * left, overlap * left
        since = rearrange(cumulated.exp(), "b h n c -> b h n c 1")
        query, reading = query * since, key * since
        writing = key * rearrange((whole - cumulated).exp(), "b h n c -> b h n c 1")
        kept = rearrange(whole.exp(), "b h n 1 -> b h n 1 1")
    # The solver takes the diagonal for 1 and reads nothing above it.
    solved = torch.linalg.solve_triangular(
        overlap, strength * torch.cat((value, reading), dim=-1), upper=False, unitriangular=True
    )
    new, taken = solved.split((value.shape[-1], key.shape[-1]), dim=-1)
    before, written, state = _carry(new, taken, writing, kept, state)
    return join(query @ before + scores @ written, seq), state


def _chunk_flops(key: Tensor, value: Tensor, chunk: int) -> int:
    """Scores and overlap; the solution; mixing; what is read, taken out and written."""
    heads, d_key, d_value = key.shape[:2].numel(), key.shape[-1], value.shape[-1]
    squares = 2 * 2 * d_key + (d_value + d_key) + 2 * d_value
    return heads * (chunk * chunk * squares + 3 * 2 * chunk * d_key * d_value)


def _carry(
    new: Tensor, taken: Tensor, writing: Tensor, kept: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Give the state before each chunk, what each position writes, and the last state.

    `taken` are the keys at which a chunk takes old values out.
    """
    empty = new.new_zeros(*new.shape[:2], writing.shape[-1], new.shape[-1])
    carried: Tensor = empty if state is None else state
    before, written = [], []
    keys = rearrange(writing, "b h n c k -> n b h k c").unbind()
    shares: Sequence[Tensor | None] = [None] * len(keys) if kept is None else kept.unbind(dim=2)
    for values, places, key, share in zip(
        new.unbind(dim=2), taken.unbind(dim=2), keys, shares, strict=True
    ):
        before.append(carried)
        written.append(values - places @ carried)
        faded = carried if share is None else share * carried
        carried = faded + key @ written[-1]
    return torch.stack(before, dim=2), torch.stack(written, dim=2), carried
