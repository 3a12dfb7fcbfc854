"""Retention."""

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.mixer.base import Mixer, State
from attnlab.position.base import Position
from attnlab.ranges import Expansion, Width, ranged
from attnlab.recurrence import scalar
from attnlab.recurrence.base import mix
from attnlab.tap import Mixing


@ranged
class Retention(Mixer):
    """Sums up the past under a fixed decay for each head (Sun et al. 2023, sec. 2.1-2.2).

        S_t = g S_{t-1} + k_t v_t^T;  g = 1 - 2^(-5 - head)
        o_t = S_t^T q_t / sqrt(d_key);  y_t = W_O (swish(W_G x_t) * norm(o_t))

    Queries and keys are turned by the position scheme (the paper's is rope). The norm is over each
    head by itself and without parameters.

    Of the paper's normalisations the 1/sqrt(d_key) is here. The two that divide each output of a
    head by a positive number (the root of its decays' sum; its absolute sum of scores) are not: the
    norm behind them undoes both, but for its epsilon. The tap `mixing` has the weight of v_s in
    o_t, g^(t - s) q_t . k_s / sqrt(d_key).
    """

    unidirectional = True
    position_inputs = frozenset({"rotate"})

    def __init__(
        self,
        d_model: int,
        position: Position | None = None,
        causal: bool = True,
        layer: int = 0,
        *,
        num_heads: Width = 4,
        value_expansion: Expansion = 2.0,
    ) -> None:
        super().__init__(d_model, position, causal)
        d_values = round(value_expansion * d_model)
        if d_model % num_heads or d_values % num_heads or not d_values:
            raise ValueError(
                f"d_model={d_model} and the values' {d_values} (value_expansion={value_expansion}) "
                f"do not both split into num_heads={num_heads} heads"
            )
        self.num_heads, self.d_key, self.d_values = num_heads, d_model // num_heads, d_values
        self.position.prepare_heads(num_heads, self.d_key)
        self.widths = (d_model, d_model, d_values, d_values)
        self.query_key_value_gate = nn.Linear(d_model, sum(self.widths), bias=False)
        self.output = nn.Linear(d_values, d_model, bias=False)
        self.mixing = Mixing(num_heads)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        positions = torch.arange(x.shape[1], device=x.device)
        query, key, value, log_decay, gate = self._project(x, positions)

        def recur(value: Tensor) -> Tensor:
            return scalar.scan(query, key, value, log_decay)[0]

        return self._merge(mix(self.mixing, recur, value, valid), gate)

    def step(
        self, x: Float[Tensor, "batch 1 d_model"], at: int, state: State = None
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        positions = torch.arange(at, at + 1, device=x.device)
        query, key, value, log_decay, gate = self._project(x, positions)
        retained, state = scalar.step(query, key, value, log_decay, state)
        return self._merge(retained, gate), state

    def state_size(self, length: int) -> int:
        return self.d_key * self.d_values

    def _project(
        self, x: Tensor, positions: Int[Tensor, " seq"]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        *projections, gate = self.query_key_value_gate(x).split(self.widths, dim=-1)
        query, key, value = (
            rearrange(part, "b s (h d) -> b h s d", h=self.num_heads) for part in projections
        )
        query, key = self.position.rotate(query, positions), self.position.rotate(key, positions)
        dtype = torch.promote_types(x.dtype, torch.float32)
        head_index = torch.arange(self.num_heads, device=x.device, dtype=dtype)
        log_decay = repeat(
            torch.log1p(-torch.exp2(-5 - head_index)), "h -> 1 h s", s=len(positions)
        )
        return query, key * self.d_key**-0.5, value, log_decay, gate

    def _merge(self, retained: Tensor, gate: Tensor) -> Tensor:
        normed = F.layer_norm(retained, retained.shape[-1:]).to(self.output.weight)
        return self.output(F.silu(gate) * rearrange(normed, "b h s d -> b s (h d)"))
