"""The precisions of a run: what each makes of the parameters, and of products in a forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch

Precision = Literal["32-true", "bf16-mixed", "bf16-true", "16-mixed", "64-true"]
"""As Lightning names them."""
MatmulPrecision = Literal["highest", "high", "medium"]
"""How torch may compute a product of float32 matrices (`torch.set_float32_matmul_precision`)."""


class Types(NamedTuple):
    """The data types of a precision; None leaves them as torch has them."""

    parameters: torch.dtype | None
    products: torch.dtype | None
    """What autocast computes products in."""


TYPES: dict[str, Types] = {
    "32-true": Types(None, None),
    "64-true": Types(torch.float64, None),
    "bf16-true": Types(torch.bfloat16, None),
    "bf16-mixed": Types(None, torch.bfloat16),
    "16-mixed": Types(None, torch.float16),
}


def parameter_type(precision: str) -> torch.dtype | None:
    """Return the data type that a model's parameters get; None leaves them as they were built."""
    return TYPES[precision].parameters


@contextmanager
def forward_context(
    precision: str, device_type: str, matmul_precision: MatmulPrecision | None = None
) -> Iterator[None]:
    """Compute forward passes inside the block as training does on that type of device.

    It is what Lightning's precision plugin does: autocast for a mixed precision, and another
    default type for parameters of another type. On a CPU both mixed precisions are bfloat16.
    Without a `matmul_precision`, that of the process stays.
    """
    precision_types = TYPES[precision]
    product_type = (
        torch.bfloat16
        if precision_types.products and device_type == "cpu"
        else precision_types.products
    )
    default_type, process_precision = (
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
    )
    torch.set_float32_matmul_precision(matmul_precision or process_precision)
    torch.set_default_dtype(precision_types.parameters or default_type)
    try:
        with torch.autocast(device_type, product_type, enabled=product_type is not None):
            yield
    finally:
        torch.set_default_dtype(default_type)
        torch.set_float32_matmul_precision(process_precision)
