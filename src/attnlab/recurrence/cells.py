"""The library's LSTM cells, on every CPU in every precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn


class Cells(nn.LSTM):
    """`nn.LSTM`, which a CPU without products in bfloat16 cannot run in bfloat16 by itself.

    oneDNN refuses it there. Under autocast, the cells then work in the precision of their weights;
    weights that are bfloat16 themselves go through the library's own loop over positions.
    """

    # The parameter names of `nn.LSTM`.
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input: Tensor,  # noqa: A002
        hx: Any = None,
    ) -> tuple[Tensor, Any]:
        if input.device.type != "cpu" or _has_bfloat16():
            return super().forward(input, hx)
        dtype = next(self.parameters()).dtype
        with torch.autocast("cpu", enabled=False):
            inputs = input.to(dtype), hx and tuple(part.to(dtype) for part in hx)
            if dtype is not torch.bfloat16:
                return super().forward(*inputs)
            with _without_mkldnn():
                return super().forward(*inputs)


@cache
def _has_bfloat16() -> bool:
    """Return whether the library can run LSTM cells in bfloat16 on this CPU."""
    has_mkldnn = torch.backends.mkldnn.is_available()
    return not has_mkldnn or torch.ops.mkldnn._is_mkldnn_bf16_supported()


@contextmanager
def _without_mkldnn() -> Iterator[None]:
    # `torch.backends.mkldnn.flags` would also set the GPU's precision, and warn about it.
    enabled, _, _, precision = torch.backends.mkldnn.set_flags(_enabled=False)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=enabled, _fp32_precision=precision)
