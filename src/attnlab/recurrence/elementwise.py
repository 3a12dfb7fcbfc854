"""An elementwise linear recurrence, all positions at once."""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def scan(
    decay: Float[Tensor, "batch seq width"],
    update: Float[Tensor, "batch seq width"],
    state: Float[Tensor, "batch width"] | None = None,
) -> tuple[Float[Tensor, "batch seq width"], Float[Tensor, "batch width"]]:
    """Return h_t = decay_t h_{t-1} + update_t at every position, and the last h.

    `state` is the h before the first position, None for zeros. Decays must be at most 1 in size,
    so that their products only shrink; nothing is divided by a decay, so decays may be 0.
    """
    if state is not None:
        first = torch.addcmul(update[:, :1], decay[:, :1], rearrange(state, "b w -> b 1 w"))
        update = torch.cat((first, update[:, 1:]), dim=1)
    states: Tensor = Scan.apply(decay, update)  # pyright: ignore[reportAssignmentType]
    return states, states[:, -1]


class Scan(torch.autograd.Function):
    """The recurrence and its gradient, which is the same recurrence from the last position back.

    The gradient of update_t is g_t = dh_t + decay_{t+1} g_{t+1}, that of decay_t is g_t h_{t-1}. So
    only decays and states are saved, where autograd would save every intermediate product.
    """

    @staticmethod
    def forward(decay: Tensor, update: Tensor) -> Tensor:
        return _states(decay, update)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        decay, states = ctx.saved_tensors
        (grad,) = grads
        next_decay = torch.cat((decay[:, 1:], torch.zeros_like(decay[:, :1])), dim=1)
        update_grad: Tensor = Scan.apply(next_decay.flip(1), grad.flip(1))  # pyright: ignore
        update_grad = update_grad.flip(1)
        states_before = torch.cat((torch.zeros_like(states[:, :1]), states[:, :-1]), dim=1)
        return update_grad * states_before, update_grad


def _states(
    decay: Float[Tensor, "batch seq width"], update: Float[Tensor, "batch seq width"]
) -> Float[Tensor, "batch seq width"]:
    """Return all states: merge pairs of steps, solve for those, fill in between (Blelloch 1990).

    2 log2(seq) rounds whose sizes halve, so work and memory are linear in the length.
    """
    seq = decay.shape[1]
    if seq < 2:
        # An autograd function must not return its own input.
        return update.clone()
    halves = slice(0, seq - 1, 2), slice(1, seq, 2)
    (decay_1, decay_2), (update_1, update_2) = (
        [part[:, half] for half in halves] for part in (decay, update)
    )
    states = torch.empty_like(update)
    states[:, 1::2] = odd_states = _states(
        decay_2 * decay_1, torch.addcmul(update_2, decay_2, update_1)
    )
    states[:, 0] = update[:, 0]
    previous = odd_states[:, : (seq - 1) // 2]
    states[:, 2::2] = torch.addcmul(update[:, 2::2], decay[:, 2::2], previous)
    return states
