"""The gated long convolution with an implicit filter."""

import math

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.mixer.base import Mixer, State
from attnlab.position.base import Position
from attnlab.ranges import Count, Positive, Width, ranged
from attnlab.recurrence.convolution import causal_convolution, convolution_step

TARGET, FAST, SLOW = 0.01, 0.3, 1.5
"""A channel's window falls to TARGET of its start within FAST timescales (the first: SLOW)."""


@ranged
class LongConvolution(Mixer):
    """Gates, convolves over the whole past, gates: Hyena of order 2 (Poli et al. 2023, sec. 3).

        u_t = k_t * v_t
        y_t = W_O (q_t * (skip * u_t + sum_{s <= t} h_{t-s} * u_s))

    q, k and v are each a short convolution of a projection. The long convolution is a product of
    Fourier transforms of twice the length, in float32 under autocast. The filter h depends on time
    alone, never on the length given, so a shorter sequence gets the same outputs; the paper's time
    runs from 0 to 1 over the longest sequence, ours over `timescale` tokens, which should be near
    the training length. `hyena_filter` makes it of the waves and the frequency of the authors' code
    (see `ImplicitFilter`). `step` convolves the past that it keeps, and makes the filter anew: work
    linear in the position.

    Initialisation:
        short, short_bias | U(1/sqrt(kernel_size))
        skip | N(0, 1)
    """

    unidirectional = True

    def __init__(
        self,
        d_model: int,
        position: Position | None = None,
        causal: bool = True,
        layer: int = 0,
        *,
        timescale: Count = 256,
        d_filter: Width = 32,
        num_waves: Width = 8,
        frequency: Positive = 10.0,
        kernel_size: Width = 3,
        hyena_filter: bool = False,
    ) -> None:
        super().__init__(d_model, position, causal)
        self.d_model, self.kernel_size = d_model, kernel_size
        self.query_key_value = nn.Linear(d_model, 3 * d_model)
        self.short = nn.Parameter(torch.empty(3 * d_model, kernel_size))
        self.short_bias = nn.Parameter(torch.empty(3 * d_model))
        for weights in (self.short, self.short_bias):
            nn.init.uniform_(weights, -(kernel_size**-0.5), kernel_size**-0.5)
        self.filter = ImplicitFilter(
            d_model, timescale, d_filter, num_waves, frequency, hyena=hyena_filter
        )
        self.skip = nn.Parameter(torch.randn(d_model))
        self.output = nn.Linear(d_model, d_model)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        projected = causal_convolution(self.query_key_value(x), self.short, self.short_bias)
        query, gated = _query_and_gated_value(projected)
        mixed = convolved(gated, self.filter(x.shape[1], x.device))
        return self._merge(query, mixed, gated)

    def step(
        self, x: Float[Tensor, "batch 1 d_model"], at: int, state: State = None
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        window, past = (None, None) if state is None else state
        projected, window = convolution_step(
            self.query_key_value(x), self.short, self.short_bias, window
        )
        query, gated = _query_and_gated_value(projected)
        past = gated if past is None else torch.cat((past, gated), dim=1)
        weights = self.filter(past.shape[1], x.device).flip(0)
        mixed = reduce(past * weights, "b s d -> b 1 d", "sum")
        return self._merge(query, mixed, gated), (window, past)

    def state_size(self, length: int) -> int:
        return (3 * (self.kernel_size - 1) + length) * self.d_model

    def _merge(self, query: Tensor, mixed: Tensor, gated: Tensor) -> Tensor:
        return self.output(query * (mixed + gated * self.skip).to(query.dtype))


class ImplicitFilter(nn.Module):
    """Makes the filter of any length from time (Poli et al. 2023, sec. 3.3 and appendix D.3).

    Two hidden layers of sines see time and `num_waves` waves of it; a window that decays at another
    rate in each channel multiplies the result. The waves run once, twice, ... over the time scale,
    and the sines' `frequency` is fixed. In the authors' code (safari, standalone_hyena.py), and
    here with `hyena`, the first wave nearly stands (1e-4 of a turn), the others are
    spread up to num_waves - 1, and each hidden unit learns a frequency for all its sines.
    """

    def __init__(
        self,
        d_model: int,
        timescale: int,
        d_filter: int,
        num_waves: int,
        frequency: float,
        *,
        hyena: bool = False,
    ) -> None:
        super().__init__()
        self.d_model, self.timescale = d_model, timescale
        self.num_waves, self.hyena = num_waves, hyena
        self.frequency: float | Tensor = frequency
        if hyena:
            self.frequency = nn.Parameter(torch.full((d_filter,), frequency))
        self.first = nn.Linear(1 + 2 * num_waves, d_filter)
        self.second = nn.Linear(d_filter, d_filter)
        self.last = nn.Linear(d_filter, d_model, bias=False)

    def forward(self, length: int, device: torch.device) -> Float[Tensor, "seq d_model"]:
        dtype = torch.promote_types(self.last.weight.dtype, torch.float32)
        time = torch.arange(length, device=device, dtype=dtype) / self.timescale
        time = rearrange(time, "s -> s 1")
        turns = torch.arange(1, self.num_waves + 1, device=device)
        if self.hyena:
            turns = torch.linspace(1e-4, self.num_waves - 1, self.num_waves, device=device)
        waves = 2 * math.pi * time * turns
        # In low precision neighbouring positions would share a time.
        with torch.autocast(device.type, enabled=False):
            hidden = torch.cat((time, waves.cos(), waves.sin()), dim=-1)
            for layer in (self.first, self.second):
                hidden = F.linear(hidden, layer.weight.to(dtype), layer.bias.to(dtype))
                hidden = torch.sin(self.frequency * hidden)
            slowest, fastest = (-math.log(TARGET) / share for share in (SLOW, FAST))
            rates = torch.linspace(slowest, fastest, self.d_model, device=device, dtype=dtype)
            return F.linear(hidden, self.last.weight.to(dtype)) * torch.exp(-time * rates)


def convolved(
    x: Float[Tensor, "batch seq channel"], weights: Float[Tensor, "seq channel"]
) -> Float[Tensor, "batch seq channel"]:
    """Return the causal convolution of each channel, by Fourier transforms of twice the length."""
    length = x.shape[1]
    # Twice the length, so that the end of a sequence does not wrap around to its start. Transforms
    # over the last axis took half the time of those over the middle one.
    spectrum = torch.fft.rfft(rearrange(x, "b s c -> b c s"), 2 * length)
    spectrum = spectrum * torch.fft.rfft(rearrange(weights, "s c -> c s"), 2 * length)
    return rearrange(torch.fft.irfft(spectrum, 2 * length)[..., :length], "b c s -> b s c")


def _query_and_gated_value(
    projected: Float[Tensor, "batch seq three_d_model"],
) -> tuple[Tensor, Tensor]:
    """Return the query, and key times value in at least float32."""
    query, key, value = projected.chunk(3, dim=-1)
    return query, (key * value).to(torch.promote_types(projected.dtype, torch.float32))
