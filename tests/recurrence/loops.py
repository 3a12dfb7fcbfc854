"""The recurrences as the papers write them: one position after another, in float64."""

import torch
from torch import Tensor


def loop(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None = None,
    strength: Tensor | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S_t = decay_t S_{t-1} + k_t w_t^T, o_t = S_t^T q_t; w is v, or what the delta rule writes.

    Everything is (batch, seq, head, ...), as the papers and the kernel package have it.
    """
    batch, seq, num_heads, d_value = value.shape
    d_key = key.shape[-1]
    if state is None:
        state = torch.zeros(batch, num_heads, d_key, d_value, dtype=torch.float64)
    outputs = []
    for t in range(seq):
        q, k, v = query[:, t].double(), key[:, t].double(), value[:, t].double()
        if log_decay is not None:
            decay = log_decay[:, t].double().exp()
            decay = decay[..., None] if decay.ndim == 3 else decay[..., None, None]
            state = decay * state
        if strength is not None:
            held = (state * k[..., None]).sum(dim=-2)
            v = strength[:, t, :, None].double() * (v - held)
        state = state + k[..., None] * v[..., None, :]
        outputs.append((state * q[..., None]).sum(dim=-2))
    return torch.stack(outputs, dim=1), state
