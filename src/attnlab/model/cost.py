"""What a model costs: the library's FLOP counter, with the formulas that it lacks."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def flops(model: nn.Module, *inputs: Tensor | None) -> int:
    """Count the multiplications and additions of one forward pass on the CPU, 2 for a product.

    A causal attention counts its whole square, as the library does on every device.
    """
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        was_training = model.training
        model.eval()(*inputs)
        model.train(was_training)
    return counter.get_total_flops()


def _attention(query: Any, key: Any, value: Any, *_args: Any, **_kwargs: Any) -> int:
    *batch, num_queries, d_head = query
    return 2 * math.prod(batch) * num_queries * key[-2] * (d_head + value[-1])


def _grouped(x: Any, weights: Any, *_args: Any, **_kwargs: Any) -> int:
    """Every row meets one matrix."""
    return 2 * x[0] * weights[-2] * weights[-1]


def _lstm(x: Any, weight_in: Any, weight_hidden: Any, *_args: Any, **_kwargs: Any) -> int:
    """Four gates of a matrix product with the input and one with the state, at every position."""
    positions, batch, _ = x
    return 2 * positions * batch * (math.prod(weight_in) + math.prod(weight_hidden))


FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._grouped_mm: _grouped,
    torch.ops.aten.mkldnn_rnn_layer: _lstm,
}
