"""A selective state space."""

import math

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.mixer.base import Mixer, State
from attnlab.position.base import Position
from attnlab.ranges import Expansion, Width, ranged
from attnlab.recurrence import scalar
from attnlab.recurrence.base import exact, mix
from attnlab.recurrence.convolution import causal_convolution, convolution_step
from attnlab.tap import Mixing


@ranged
class SelectiveStateSpace(Mixer):
    """Keeps a state that the input writes, reads and fades (Mamba-2; Dao & Gu 2024, sec. 7).

        S_t = exp(-dt_t exp(A_log)) S_{t-1} + dt_t B_t u_t^T;  dt_t = softplus(W_dt x_t + dt_bias)
        o_t = S_t^T C_t + D u_t;  y_t = W_O norm(o_t * silu(z_t))

    u is what the paper calls x, of expansion x d_model channels in heads. All heads share B and C,
    of width `d_state`; u, B and C go through a short causal convolution and SiLU. The norm is an
    RMS norm over all channels. The tap `mixing` has the weight of u_s, after the convolution, in
    o_t: with dt_s, and with D on its diagonal.

    Initialisation:
        convolution, convolution_bias | U(1/sqrt(kernel_size))
        A_log | log U(1, 16)
        dt_bias | softplus inverse of log-uniform (0.001, 0.1)
        D | 1
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
        d_state: Width = 64,
        expansion: Expansion = 2.0,
        kernel_size: Width = 4,
    ) -> None:
        super().__init__(d_model, position, causal)
        d_inner = round(expansion * d_model)
        if d_inner % num_heads or not d_inner:
            raise ValueError(
                f"the inner width {d_inner} (expansion={expansion} of d_model={d_model}) does not "
                f"split into num_heads={num_heads} heads"
            )
        self.num_heads, self.kernel_size = num_heads, kernel_size
        self.d_inner, self.d_state = d_inner, d_state
        d_convolved = d_inner + 2 * d_state
        self.widths = (d_inner, d_convolved, num_heads)
        self.project = nn.Linear(d_model, sum(self.widths), bias=False)
        limit = kernel_size**-0.5
        self.convolution = nn.Parameter(
            torch.empty(d_convolved, kernel_size).uniform_(-limit, limit)
        )
        self.convolution_bias = nn.Parameter(torch.empty(d_convolved).uniform_(-limit, limit))
        self.A_log = nn.Parameter(torch.empty(num_heads).uniform_(1, 16).log())
        dt = torch.empty(num_heads).uniform_(math.log(0.001), math.log(0.1)).exp()
        self.dt_bias = nn.Parameter(dt.expm1().log())
        self.D = nn.Parameter(torch.ones(num_heads))
        self.norm = nn.RMSNorm(d_inner, eps=1e-5)
        self.output = nn.Linear(d_inner, d_model, bias=False)
        self.mixing = Mixing(num_heads)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        z, channels, dt = self.project(x).split(self.widths, dim=-1)
        channels = causal_convolution(channels, self.convolution, self.convolution_bias)
        inner, read, write, dt, log_decay = self._recurrence_inputs(channels, dt)

        def recur(inner: Tensor) -> Tensor:
            mixed, _ = scalar.scan(read, write, inner * dt, log_decay)
            return self._add_skip(mixed, inner)

        return self._merge(mix(self.mixing, recur, inner, valid), z)

    def step(
        self, x: Float[Tensor, "batch 1 d_model"], at: int, state: State = None
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        window, memory = (None, None) if state is None else state
        z, channels, dt = self.project(x).split(self.widths, dim=-1)
        channels, window = convolution_step(
            channels, self.convolution, self.convolution_bias, window
        )
        inner, read, write, dt, log_decay = self._recurrence_inputs(channels, dt)
        mixed, memory = scalar.step(read, write, inner * dt, log_decay, memory)
        return self._merge(self._add_skip(mixed, inner), z), (window, memory)

    def state_size(self, length: int) -> int:
        window = (self.d_inner + 2 * self.d_state) * (self.kernel_size - 1)
        return window + self.d_inner * self.d_state

    def _recurrence_inputs(
        self, channels: Tensor, dt: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return u by heads, C (read), B (write), dt with a last axis of 1, and log-decays."""
        inner, write, read = F.silu(exact(channels)).split(
            (self.d_inner, self.d_state, self.d_state), dim=-1
        )
        inner = rearrange(inner, "b s (h d) -> b h s d", h=self.num_heads)
        read, write = (rearrange(part, "b s n -> b 1 s n") for part in (read, write))
        dt = rearrange(F.softplus(exact(dt) + self.dt_bias), "b s h -> b h s")
        log_decay = -dt * rearrange(self.A_log.exp(), "h -> h 1")
        return inner, read, write, rearrange(dt, "b h s -> b h s 1"), log_decay

    def _add_skip(self, mixed: Tensor, inner: Tensor) -> Tensor:
        return mixed + inner * rearrange(self.D, "h -> h 1 1")

    def _merge(self, mixed: Tensor, z: Tensor) -> Tensor:
        mixed = rearrange(mixed.to(self.output.weight), "b h s d -> b s (h d)")
        return self.output(self.norm(mixed * F.silu(z)))
