"""What a model costs: the library's FLOP counter, with the formulas that it lacks."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from attnlab.padding import count_padding


def flops(model: nn.Module, *inputs: Tensor | None) -> int:
    """Count the multiplications and additions of one forward pass, 2 for a product.

    Counts what multiplies matrices, convolves, transforms or solves, on any device; as in the
    library, what works on each number alone (norms, softmax, gates, scans) counts nothing, and
    neither do zeros that fill a shape. A causal attention counts its whole square, as the library
    does on every device, and so does each chunk of a recurrence.
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


def _grouped(x: Any, weights: Any, *_args: Any, **_kwargs: Any) -> int:
    """Every row meets one matrix."""
    return 2 * x[0] * weights[-2] * weights[-1]


def _vector(matrix: Any, *_args: Any, **_kwargs: Any) -> int:
    """A product with a vector, or of two."""
    return 2 * math.prod(matrix)


def _lstm(x: Any, weight_in: Any, weight_hidden: Any, *_args: Any, **_kwargs: Any) -> int:
    """Four gates of a matrix product with the input and one with the state, at every position."""
    return _recurrent(x, (weight_in, weight_hidden))


def _recurrent(x: Any, weights: Any, *_args: Any, **_kwargs: Any) -> int:
    """Every matrix of every layer and direction, at every position; biases are no matrices."""
    return 2 * math.prod(x[:-1]) * sum(math.prod(shape) for shape in weights if len(shape) == 2)


def _solve(matrix: Any, *_args: Any, out_shape: Any, **_kwargs: Any) -> int:
    """n² for each right-hand side, by substitution (Golub & Van Loan 2013, sec. 3.1)."""
    return matrix[-1] * math.prod(out_shape)


def _fourier(signal: Any, dim: Any, *_args: Any, **_kwargs: Any) -> int:
    """5 N log2 N for each complex transform (Frigo & Johnson 2005, sec. III)."""
    return round(5 * math.prod(signal) * math.log2(math.prod(signal[at] for at in dim)))


def _real_fourier(signal: Any, dim: Any, *_args: Any, **_kwargs: Any) -> int:
    """Half of that where the signal is real (the same)."""
    return _fourier(signal, dim) // 2


def _real_inverse(_spectrum: Any, dim: Any, *_args: Any, out_shape: Any, **_kwargs: Any) -> int:
    return _real_fourier(out_shape, dim)


# The library knows matrix products, convolutions and CUDA's attention. A cell of an LSTM that is
# not fused, or is fused but for its products (CUDA's other one), is made of those.
FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._grouped_mm: _grouped,
    torch.ops.aten.mv: _vector,
    torch.ops.aten.dot: _vector,
    torch.ops.aten.mkldnn_rnn_layer: _lstm,
    torch.ops.aten._cudnn_rnn: _recurrent,
    torch.ops.aten.linalg_solve_triangular: _solve,
    torch.ops.aten._fft_c2c: _fourier,
    torch.ops.aten._fft_r2c: _real_fourier,
    torch.ops.aten._fft_c2r: _real_inverse,
}
