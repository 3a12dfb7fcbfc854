"""A mixer by itself, and with or without the optional kernels of flash-linear-attention."""

from contextlib import AbstractContextManager
from unittest.mock import patch

from torch import Tensor, nn

from attnlab.measure import Work
from attnlab.recurrence import base
from bench.gpu.timing import autocast

KERNELS = (
    *("linear_attention", "retention", "gated_linear"),
    *("delta_rule", "gated_delta", "selective_state_space"),
)
"""The mixers that those kernels can serve."""


def plain() -> AbstractContextManager:
    """Leave the kernels out, as where their package is not installed."""
    return patch.object(base, "_is_installed", lambda: False)


def passes(mixer: nn.Module, x: Tensor, gradient: Tensor) -> Work:
    """Lead a sequence through a mixer under bf16 autocast, forwards and backwards."""

    def work() -> None:
        with autocast(x.device):
            y = mixer(x)
        y.backward(gradient.to(y))
        mixer.zero_grad()
        x.grad = None

    return work
