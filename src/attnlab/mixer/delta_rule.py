"""The delta rule."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.mixer.base import Mixer, State
from attnlab.position.base import Position
from attnlab.ranges import Width, ranged
from attnlab.recurrence import delta
from attnlab.recurrence.base import exact, mix
from attnlab.recurrence.convolution import causal_convolution, convolution_step
from attnlab.tap import Mixing


@ranged
class DeltaRule(Mixer):
    """Replaces the value that a key stands for (DeltaNet; Yang et al. 2024, sec. 2.2 and 3.3).

        S_t = S_{t-1} + b_t k_t (v_t - S_{t-1}^T k_t)^T;  b_t = sigmoid(W_b x_t)
        o_t = S_t^T q_t;  y_t = W_O norm(o_t)

    The norm is over each head. Queries, keys and values go through a short causal convolution
    (`kernel_size` positions; null for none) and SiLU; queries and keys then have length 1. The tap
    `mixing` has the weight of v_s, as it is after them, in o_t: with b_s, and all that is taken out
    later.

    `scale_queries` divides queries by the root of d_key, as the authors' code does; the norm undoes
    that, but for its epsilon.

    Initialisation:
        convolution | U(1/sqrt(kernel_size))
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
        kernel_size: Width | None = 4,
        scale_queries: bool = False,
    ) -> None:
        super().__init__(d_model, position, causal)
        if d_model % num_heads:
            raise ValueError(f"d_model={d_model} does not split into num_heads={num_heads} heads")
        self.d_model, self.num_heads, self.kernel_size = d_model, num_heads, kernel_size
        self.scale = (d_model // num_heads) ** -0.5 if scale_queries else 1.0
        self.query_key_value = nn.Linear(d_model, 3 * d_model, bias=False)
        self.strength = nn.Linear(d_model, num_heads, bias=False)
        self.convolution = None
        if kernel_size is not None:
            limit = kernel_size**-0.5
            weights = torch.empty(3 * d_model, kernel_size).uniform_(-limit, limit)
            self.convolution = nn.Parameter(weights)
        self.norm = nn.RMSNorm(d_model // num_heads, eps=1e-5)
        self.output = nn.Linear(d_model, d_model, bias=False)
        self.mixing = Mixing(num_heads)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        projected = self.query_key_value(x)
        if self.convolution is not None:
            projected = causal_convolution(projected, self.convolution, None)
        (query, key, value), strength = self._split_heads(projected), self._write_strength(x)

        def recur(value: Tensor) -> Tensor:
            return delta.scan(query, key, value, strength, None)[0]

        return self._merge(mix(self.mixing, recur, value, valid))

    def step(
        self, x: Float[Tensor, "batch 1 d_model"], at: int, state: State = None
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        window, memory = (None, None) if state is None else state
        projected = self.query_key_value(x)
        if self.convolution is not None:
            projected, window = convolution_step(projected, self.convolution, None, window)
        else:
            window = projected[:, :0]
        mixed, memory = delta.step(
            *self._split_heads(projected), self._write_strength(x), None, memory
        )
        return self._merge(mixed), (window, memory)

    def state_size(self, length: int) -> int:
        window = 3 * self.d_model * ((self.kernel_size or 1) - 1)
        return window + self.d_model * (self.d_model // self.num_heads)

    def _split_heads(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value by heads, query and key normalised to length 1."""
        query, key, value = (
            rearrange(part, "b s (h d) -> b h s d", h=self.num_heads)
            for part in F.silu(exact(projected)).chunk(3, dim=-1)
        )
        return self.scale * F.normalize(query, dim=-1), F.normalize(key, dim=-1), value

    def _write_strength(self, x: Tensor) -> Tensor:
        return rearrange(exact(self.strength(x)).sigmoid(), "b s h -> b h s")

    def _merge(self, mixed: Tensor) -> Tensor:
        normed = self.norm(rearrange(mixed, "b h s d -> b s h d").to(self.output.weight))
        return self.output(rearrange(normed, "b s h d -> b s (h d)"))
