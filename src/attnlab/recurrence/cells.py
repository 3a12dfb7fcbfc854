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

    # The library's own names.
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input: Tensor,  # noqa: A002
        hx: Any = None,
    ) -> tuple[Tensor, Any]:
        if input.device.type != "cpu" or _has_bfloat16():
            return super().forward(input, hx)
        own = next(self.parameters()).dtype
        with torch.autocast("cpu", enabled=False):
            given = input.to(own), hx and tuple(part.to(own) for part in hx)
            if own is not torch.bfloat16:
                return super().forward(*given)
            with _without_mkldnn():
                return super().forward(*given)


@cache
def _has_bfloat16() -> bool:
    there = torch.backends.mkldnn.is_available()
    return not there or torch.ops.mkldnn._is_mkldnn_bf16_supported()


@contextmanager
def _without_mkldnn() -> Iterator[None]:
    # `flags` would also set what is of a GPU, and warn of it.
    enabled, _, _, precision = torch.backends.mkldnn.set_flags(_enabled=False)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=enabled, _fp32_precision=precision)
