"""A mixer that wraps a module from elsewhere."""

from collections.abc import Callable
from inspect import signature
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from attnlab.mixer.base import Mixer, State, later_tokens_reach_back
from attnlab.position.base import Position


class Adapter(Mixer):
    """Lets any module from (batch, seq, d_model) to the same shape stand as a mixer.

    It is built as `module(d_model)`, with `layer_idx` where it has a parameter of that name
    (zoology's interface, Arora et al. 2023). What an output `sees`, the "past" or "all", is tried
    when it is built, on a copy with other weights and sequences of 8 tokens: a wrong claim is
    refused. One that sees the past is unidirectional; `step` runs it again on all inputs so far.

    No module needs to know of padding: one that sees all mixes the sequences of each length apart,
    without theirs. `state_size` is the module's own word, `state_size(sequence_length)` in numbers
    for one sequence, since it may have a recurrent form; without one it is the inputs that `step`
    keeps.

    Initialisation: the module's own.
    """

    def __init__(
        self,
        d_model: int,
        position: Position | None = None,
        causal: bool = True,
        layer: int = 0,
        *,
        module: Callable[..., nn.Module],
        sees: Literal["past", "all"],
    ) -> None:
        super().__init__(d_model, position, causal)
        self.d_model, self.sees = d_model, sees
        if causal and sees == "all":
            raise ValueError(
                "the module sees all, and causal=true lets a position see the past alone; "
                "choose a bidirectional objective or another mixer"
            )
        self.unidirectional = sees == "past"  # pyright: ignore[reportAttributeAccessIssue]
        layer_argument = {"layer_idx": layer} if "layer_idx" in signature(module).parameters else {}
        _check_sees(lambda: module(d_model, **layer_argument), d_model, sees)
        self.module = module(d_model, **layer_argument)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        if valid is None or self.unidirectional:
            return self.module(x)
        out, lengths = torch.zeros_like(x), valid.sum(dim=1)
        for length in lengths.unique().tolist():
            same_length = (lengths == length).nonzero()[:, 0]
            if length:
                out[same_length, :length] = self.module(x[same_length, :length]).to(out.dtype)
        return out

    def step(
        self, x: Float[Tensor, "batch 1 d_model"], at: int, state: State = None
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        if not self.unidirectional:
            return super().step(x, at, state)
        inputs = x if state is None else torch.cat((state, x), dim=1)
        return self.module(inputs)[:, -1:], inputs

    def state_size(self, length: int) -> int:
        count_numbers = getattr(self.module, "state_size", None)
        if callable(count_numbers) and "sequence_length" in signature(count_numbers).parameters:
            return cast(int, count_numbers(sequence_length=length))
        return length * self.d_model


def _check_sees(build: Callable[[], nn.Module], d_model: int, sees: str) -> None:
    """Check that a module's outputs depend on the tokens that `sees` names, on a copy of it.

    Raises ValueError if they do not, or if the module cannot mix a sequence at all.
    """
    observed_sees = "all" if later_tokens_reach_back(build, d_model, "the module") else "past"
    if observed_sees != sees:
        effect = "later tokens change" if observed_sees == "all" else "no later token changes"
        raise ValueError(
            f"sees={sees!r}, but {effect} what the module gives; use sees={observed_sees!r}"
        )
