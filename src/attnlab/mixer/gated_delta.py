"""The gated delta rule."""

import math

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.mixer.base import Mixer, State
from attnlab.position.base import Position
from attnlab.ranges import Expansion, Width, ranged
from attnlab.recurrence import delta
from attnlab.recurrence.base import exact, mix
from attnlab.recurrence.convolution import causal_convolution, convolution_step
from attnlab.tap import Mixing


@ranged
class GatedDelta(Mixer):
    """Forgets, then replaces the value that a key stands for (Yang et al. 2024b, sec. 3; fig. 1).

        S_t = a_t S_{t-1} + b_t k_t (v_t - a_t S_{t-1}^T k_t)^T
        b_t = sigmoid(W_b x_t);  a_t = exp(-exp(A_log) softplus(W_a x_t + dt_bias))
        o_t = S_t^T q_t;  y_t = W_O (silu(W_G x_t) * norm(o_t))

    The decay a is that of Mamba-2, the norm over each head. Queries, keys and values go through a
    short causal convolution and SiLU; queries and keys then have length 1. The tap `mixing` has the
    weight of v_s, as it is after them, in o_t: with b_s, and all that is taken out later.

    `scale_queries` divides queries by the root of d_key, as the authors' code does; the norm undoes
    that, but for its epsilon.

    Initialisation:
        convolution | U(1/sqrt(kernel_size))
        A_log | log U(1, 16)
        dt_bias | softplus inverse of log-uniform (0.001, 0.1)
    """

    unidirectional = True

    def __init__(
        self,
        d_model: int,
        position: Position | None = None,
        causal: bool = True,
        layer: int = 0,
        *,
        num_heads: Width = 4,
        key_expansion: Expansion = 0.75,
        value_expansion: Expansion = 1.5,
        kernel_size: Width = 4,
        scale_queries: bool = False,
    ) -> None:
        super().__init__(d_model, position, causal)
        d_keys, d_values = round(key_expansion * d_model), round(value_expansion * d_model)
        if d_keys % num_heads or d_values % num_heads or not d_keys * d_values:
            raise ValueError(
                f"the keys' width {d_keys} (key_expansion={key_expansion} of d_model={d_model}) "
                f"and the values' {d_values} (value_expansion={value_expansion}) do not both split "
                f"into num_heads={num_heads} heads"
            )
        self.num_heads, self.kernel_size = num_heads, kernel_size
        self.widths = (d_keys, d_keys, d_values)
        self.scale = (d_keys // num_heads) ** -0.5 if scale_queries else 1.0
        self.query_key_value = nn.Linear(d_model, sum(self.widths), bias=False)
        self.strength = nn.Linear(d_model, num_heads, bias=False)
        self.decay = nn.Linear(d_model, num_heads, bias=False)
        self.gate = nn.Linear(d_model, d_values, bias=False)
        limit = kernel_size**-0.5
        self.convolution = nn.Parameter(
            torch.empty(sum(self.widths), kernel_size).uniform_(-limit, limit)
        )
        self.A_log = nn.Parameter(torch.empty(num_heads).uniform_(1, 16).log())
        dt = torch.empty(num_heads).uniform_(math.log(0.001), math.log(0.1)).exp()
        self.dt_bias = nn.Parameter(dt.expm1().log())
        self.norm = nn.RMSNorm(d_values // num_heads, eps=1e-5)
        self.output = nn.Linear(d_values, d_model, bias=False)
        self.mixing = Mixing(num_heads)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        convolved = causal_convolution(self.query_key_value(x), self.convolution, None)
        (query, key, value), gates = self._split_heads(convolved), self._gates(x)

        def recur(value: Tensor) -> Tensor:
            return delta.scan(query, key, value, *gates)[0]

        return self._merge(mix(self.mixing, recur, value, valid), x)

    def step(
        self, x: Float[Tensor, "batch 1 d_model"], at: int, state: State = None
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        window, memory = (None, None) if state is None else state
        convolved, window = convolution_step(
            self.query_key_value(x), self.convolution, None, window
        )
        mixed, memory = delta.step(*self._split_heads(convolved), *self._gates(x), memory)
        return self._merge(mixed, x), (window, memory)

    def state_size(self, length: int) -> int:
        d_keys, _, d_values = self.widths
        return sum(self.widths) * (self.kernel_size - 1) + d_keys * d_values // self.num_heads

    def _split_heads(self, convolved: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value by heads, query and key normalised to length 1."""
        query, key, value = (
            rearrange(part, "b s (h d) -> b h s d", h=self.num_heads)
            for part in F.silu(exact(convolved)).split(self.widths, dim=-1)
        )
        return self.scale * F.normalize(query, dim=-1), F.normalize(key, dim=-1), value

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the write strengths and the log-decays, each (batch, head, seq)."""
        strength = exact(self.strength(x)).sigmoid()
        log_decay = -self.A_log.exp() * F.softplus(exact(self.decay(x)) + self.dt_bias)
        return rearrange(strength, "b s h -> b h s"), rearrange(log_decay, "b s h -> b h s")

    def _merge(self, mixed: Tensor, x: Tensor) -> Tensor:
        normed = self.norm(rearrange(mixed, "b h s d -> b s h d").to(self.output.weight))
        return self.output(F.silu(self.gate(x)) * rearrange(normed, "b s h d -> b s (h d)"))
