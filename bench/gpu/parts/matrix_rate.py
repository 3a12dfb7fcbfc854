"""How fast the card multiplies: what all other speeds are a share of."""

import torch

from bench.gpu.part import Found, Given, Part
from bench.gpu.timing import in_turn

KINDS = {
    "bf16": (torch.bfloat16, "highest"),
    "fp32, tf32 products": (torch.float32, "high"),
    "fp32": (torch.float32, "highest"),
}
"""The type of the matrices, and torch's precision for products of float32."""


def measure(given: Given) -> Found:
    """Multiply two large square matrices of random numbers."""
    size = given.settings["size"]
    before = torch.get_float32_matmul_precision()

    def product(name: str):
        dtype, precision = KINDS[name]
        left, right = (torch.randn(size, size, device=given.device, dtype=dtype) for _ in "ab")

        def work() -> None:
            torch.set_float32_matmul_precision(precision)
            torch.mm(left, right)

        return work

    works = {name: product(name) for name in KINDS}
    try:
        times = in_turn(works, given.device, given.settings["rounds"], given.settings["least"])
    finally:
        torch.set_float32_matmul_precision(before)
    return Found(
        [
            {"product": name, "size": size, "ms": 1e3 * took, "TFLOP/s": 2e-12 * size**3 / took}
            for name, took in times.items()
        ]
    )


PARTS = [
    Part(
        name="matrix_rate",
        says="Products of two square matrices of unit normal numbers.",
        seconds=20,
        real={"size": 8192, "rounds": 7, "least": 0.2},
        dry={"size": 16, "rounds": 1, "least": 0.0},
        measure=measure,
    )
]
