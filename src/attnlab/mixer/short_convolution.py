"""The gated short convolution."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from attnlab.mixer.base import Mixer, State
from attnlab.position.base import Position
from attnlab.ranges import Width, ranged
from attnlab.recurrence.convolution import causal_convolution, convolution_step


@ranged
class ShortConvolution(Mixer):
    """Weighs the last `kernel_size` positions of each channel, times a gate (Arora et al. 2023).

        y_t = W_O ((W x_t + b) * (c + sum_{i < kernel_size} h_i * x_{t-i}))

    Their BaseConv, with an explicit filter for each channel; the projection into the stream is
    ours, as every mixer here has one. A position hears nothing from before the filter.

    Initialisation:
        filter, filter_bias | U(1/sqrt(kernel_size))
    """

    unidirectional = True

    def __init__(
        self,
        d_model: int,
        position: Position | None = None,
        causal: bool = True,
        layer: int = 0,
        *,
        kernel_size: Width = 4,
    ) -> None:
        super().__init__(d_model, position, causal)
        if kernel_size < 2:
            raise ValueError(f"kernel_size={kernel_size} must be at least 2, to reach a neighbour")
        self.d_model, self.kernel_size = d_model, kernel_size
        self.filter = nn.Parameter(torch.empty(d_model, kernel_size))
        self.filter_bias = nn.Parameter(torch.empty(d_model))
        for weights in (self.filter, self.filter_bias):
            nn.init.uniform_(weights, -(kernel_size**-0.5), kernel_size**-0.5)
        self.gate = nn.Linear(d_model, d_model)
        self.output = nn.Linear(d_model, d_model)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        return self.output(self.gate(x) * causal_convolution(x, self.filter, self.filter_bias))

    def step(
        self, x: Float[Tensor, "batch 1 d_model"], at: int, state: State = None
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        mixed, state = convolution_step(x, self.filter, self.filter_bias, state)
        return self.output(self.gate(x) * mixed), state

    def state_size(self, length: int) -> int:
        return (self.kernel_size - 1) * self.d_model
