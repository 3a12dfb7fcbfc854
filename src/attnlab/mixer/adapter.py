"""A mixer made of somebody else's module."""

from collections.abc import Callable
from inspect import signature
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from attnlab.mixer.base import Mixer, State
from attnlab.position.base import Position

PROBED = 8
"""Tokens of the sequences on which a claim is tried."""
LEAK = 1e-4
"""Share of the largest output that a change may move: rounding in float32 moves some 1e-6."""


class Adapter(Mixer):
    """Lets any module from (batch, seq, d_model) to the same shape stand as a mixer.

    It is built as `module(d_model)`, with `layer_idx` where it has a parameter of that name
    (zoology's interface, Arora et al. 2023). What an output `sees`, the "past" or "all", is tried
    when it is built, on a copy with other weights and sequences of 8 tokens: a wrong claim is
    refused. One that sees the past is one-way, and `step` runs it again on all inputs so far.

    No module needs to know of padding: one that sees all mixes the sequences of each length apart,
    without theirs. `state_size` is the module's own word, `state_size(sequence_length)` in numbers
    for one sequence, since it may have a recurrent form; without one it is the inputs that `step`
    keeps.

    Initialisation: the module's own.
    """

    def __init__(
        self,
        d_model: int,
        position: Position,
        causal: bool,
        layer: int = 0,
        *,
        module: Callable[..., nn.Module],
        sees: Literal["past", "all"],
    ) -> None:
        super().__init__(d_model, position, causal)
        self.d_model, self.sees = d_model, sees
        if causal and sees == "all":
            raise ValueError(
                "the module sees all, and the objective lets a position see the past alone; "
                "choose a bidirectional objective or another mixer"
            )
        self.one_way = sees == "past"  # pyright: ignore[reportAttributeAccessIssue]
        known = {"layer_idx": layer} if "layer_idx" in signature(module).parameters else {}
        _try(lambda: module(d_model, **known), d_model, sees)
        self.module = module(d_model, **known)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        if valid is None or self.one_way:
            return self.module(x)
        out, lengths = torch.zeros_like(x), valid.sum(dim=1)
        for length in lengths.unique().tolist():
            alike = (lengths == length).nonzero()[:, 0]
            if length:
                out[alike, :length] = self.module(x[alike, :length]).to(out.dtype)
        return out

    def step(
        self, x: Float[Tensor, "batch 1 d_model"], at: int, state: State = None
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        if not self.one_way:
            return super().step(x, at, state)
        seen = x if state is None else torch.cat((state, x), dim=1)
        return self.module(seen)[:, -1:], seen

    def state_size(self, length: int) -> int:
        own = getattr(self.module, "state_size", None)
        if callable(own) and "sequence_length" in signature(own).parameters:
            return cast(int, own(sequence_length=length))
        return length * self.d_model


def _try(make: Callable[[], nn.Module], d_model: int, sees: str) -> None:
    """Hold a claim against what a copy of the module does.

    Raises ValueError if it is wrong, or if the module cannot mix a sequence at all.
    """
    # The config check builds on the meta device, which computes nothing; the copy computes.
    device = torch.get_default_device()
    if device.type == "meta":
        # Some modules have kernels for a GPU alone.
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # The trial leaves the random state to what is built after it.
    forked = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with forked, torch.no_grad(), device:
        x = torch.randn(1, PROBED, d_model).expand(PROBED, -1, -1).contiguous()
        later = torch.arange(PROBED) >= torch.arange(PROBED)[:, None]
        # Sequence i has other tokens from position i on.
        changed = torch.where(later[..., None], torch.randn(1, PROBED, d_model), x)
        try:
            module = make().eval()
            # Projections that start at 0 would hide what reaches the output.
            for weights in filter(torch.is_floating_point, module.parameters()):
                weights.add_(torch.randn_like(weights), alpha=0.02)
            before, after = module(x), module(changed)
        except Exception as error:  # Somebody's module can fail in any way.
            raise ValueError(
                f"the module cannot mix a tensor of shape {tuple(x.shape)} on the "
                f"{device.type}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(before, Tensor) or before.shape != x.shape:
            gave = tuple(before.shape) if isinstance(before, Tensor) else type(before).__name__
            raise ValueError(
                f"the module gives {gave} for a tensor of shape {tuple(x.shape)}; expected a "
                "tensor of the same shape, so wrap it"
            )
        if not before.isfinite().all() or not after.isfinite().all():
            raise ValueError("the module gives numbers that are not finite for normal ones")
        moved = (after - before).abs().amax(dim=-1).masked_fill(later, 0.0).max()
        found = "past" if moved <= LEAK * before.abs().max() else "all"
    if found != sees:
        said = "later tokens change" if found == "all" else "no later token changes"
        raise ValueError(f"sees={sees!r}, but {said} what the module gives; use sees={found!r}")
