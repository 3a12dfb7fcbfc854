"""The FLOPs of a model: the library's counter, with the formulas that it lacks."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from attnlab.padding import count_padding


def flops(model: nn.Module, *inputs: Tensor | None) -> int:
    """Count the multiplications and additions of one forward pass, 2 for a product.

    Counts products of matrices, convolutions, Fourier transforms and linear solves, on any device.
    As in the library, elementwise operations (norms, softmax, gates, scans) count 0; so do zeros
    that pad a shape. A causal attention counts its whole square of scores, as the library does on
    every device, and so does each chunk of a recurrence.
    """
    with (
        torch.no_grad(),
        FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter,
        count_padding() as padding,
    ):
        was_training = model.training
        model.eval()(*inputs)
        model.train(was_training)
    return counter.get_total_flops() - padding.flops


def _attention(query: Any, key: Any, value: Any, *_args: Any, **_kwargs: Any) -> int:
    *batch, num_queries, d_head = query
    return 2 * math.prod(batch) * num_queries * key[-2] * (d_head + value[-1])


def _grouped_product(x: Any, weights: Any, *_args: Any, **_kwargs: Any) -> int:
    """Count a grouped product: each row is multiplied with one matrix."""
    return 2 * x[0] * weights[-2] * weights[-1]


def _vector_product(matrix: Any, *_args: Any, **_kwargs: Any) -> int:
    """Count a product of a matrix, or of a vector, with a vector."""
    return 2 * math.prod(matrix)


def _lstm(x: Any, weight_in: Any, weight_hidden: Any, *_args: Any, **_kwargs: Any) -> int:
    """Count two matrix products a position, with the input and the state, for all four gates."""
    return _recurrent(x, (weight_in, weight_hidden))


def _recurrent(x: Any, weights: Any, *_args: Any, **_kwargs: Any) -> int:
    """Count the product with every matrix of each layer and direction, at every position."""
    return 2 * math.prod(x[:-1]) * sum(math.prod(shape) for shape in weights if len(shape) == 2)


def _solve(matrix: Any, *_args: Any, out_shape: Any, **_kwargs: Any) -> int:
    """Count n² for each right-hand side, by substitution (Golub & Van Loan 2013, sec. 3.1)."""
    return matrix[-1] * math.prod(out_shape)


def _fourier(signal: Any, dim: Any, *_args: Any, **_kwargs: Any) -> int:
    """Count 5 N log2 N for each complex transform (Frigo & Johnson 2005, sec. III)."""
    return round(5 * math.prod(signal) * math.log2(math.prod(signal[axis] for axis in dim)))


def _real_fourier(signal: Any, dim: Any, *_args: Any, **_kwargs: Any) -> int:
    """Count half of a complex transform, for a real signal (the same)."""
    return _fourier(signal, dim) // 2


def _inverse_real_fourier(
    _spectrum: Any, dim: Any, *_args: Any, out_shape: Any, **_kwargs: Any
) -> int:
    return _real_fourier(out_shape, dim)


# The library's counter has formulas for matrix products, convolutions and CUDA's attention. LSTM
# cells that are not fused, or whose products are not (CUDA's other cell), consist of those.
FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._grouped_mm: _grouped_product,
    torch.ops.aten.mv: _vector_product,
    torch.ops.aten.dot: _vector_product,
    torch.ops.aten.mkldnn_rnn_layer: _lstm,
    torch.ops.aten._cudnn_rnn: _recurrent,
    torch.ops.aten.linalg_solve_triangular: _solve,
    torch.ops.aten._fft_c2c: _fourier,
    torch.ops.aten._fft_r2c: _real_fourier,
    torch.ops.aten._fft_c2r: _inverse_real_fourier,
}
