"""The optional kernels of flash-linear-attention against the plain forms: parity and time."""

from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.gpu.models import layer
from bench.gpu.part import Found, Given, Part, Row
from bench.gpu.scans import KERNELS, passes, plain
from bench.gpu.timing import autocast, in_turn

PACKAGE = "flash-linear-attention"


def installed() -> str | None:
    """Give the version of the package that has the kernels; None where it is not installed."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return None


def lacks(given: Given) -> str | None:
    """Ask for the package, but on a CPU, where the plain form stands in for it."""
    if given.device.type == "cpu" or installed():
        return None
    return f"{PACKAGE} is not installed"


def measure(given: Given) -> Found:
    """Hold both forms of each mixer against float32, then let them take turns."""
    settings, device = given.settings, given.device
    rows = []
    for name in settings["mixers"]:
        mixer = layer(name, settings["d_model"], settings["num_heads"]).to(device)
        for length in settings["lengths"]:
            shape = (settings["tokens"] // length, length, settings["d_model"])
            x = torch.randn(shape, device=device, requires_grad=True)
            gradient = torch.randn_like(x)
            with plain():
                exact, rounded = (_answer(mixer, x, gradient, low) for low in (False, True))
            fused = _answer(mixer, x, gradient, True)
            forward = passes(mixer, x, gradient)

            def slow(work=forward) -> None:
                with plain():
                    work()

            works = {"plain": slow, "kernels": forward}
            times = in_turn(works, device, settings["rounds"], settings["least"])
            rows.append({"mixer": name, "length": length, **_row(exact, rounded, fused, times)})
    return Found(rows, [f"{PACKAGE} {installed() or 'is not installed'}"])


class Answer(NamedTuple):
    """What a mixer gives for a sequence, and the gradients of its input and parameters."""

    output: Tensor
    gradient: Tensor
    """All in one vector."""


def _answer(mixer: nn.Module, x: Tensor, gradient: Tensor, low: bool) -> Answer:
    with autocast(x.device) if low else nullcontext():
        y = mixer(x)
    asked = [x, *mixer.parameters()]
    found = torch.autograd.grad(y, asked, gradient.to(y))
    return Answer(y.detach().float(), torch.cat([part.flatten().float() for part in found]))


def _row(exact: Answer, rounded: Answer, fused: Answer, times: dict[str, float]) -> Row:
    errors = {
        f"{what}, {form}": _error(getattr(answer, field), getattr(exact, field))
        for what, field in (("output", "output"), ("gradients", "gradient"))
        for form, answer in (("plain", rounded), ("kernels", fused))
    }
    worst = max(errors[f"{what}, kernels"] / errors[f"{what}, plain"] for what in WHAT)
    return {
        **errors,
        "largest difference": float((fused.output - rounded.output).abs().max()),
        "agree": "yes" if worst <= TIMES else "no",
        "ms, plain": 1e3 * times["plain"],
        "ms, kernels": 1e3 * times["kernels"],
        "plain / kernels": times["plain"] / times["kernels"],
    }


WHAT = ("output", "gradients")
TIMES = 2.0
"""How many times as far from float32 as the plain form the kernels may be to agree."""


def _error(found: Tensor, exact: Tensor) -> float:
    """Give the size of a difference as a share of what it should be."""
    return float((found - exact).norm() / exact.norm())


PARTS = [
    Part(
        name="kernels",
        says=(
            f"The kernels of {PACKAGE} against the plain forms under bf16 autocast: d=768, 12 "
            "heads, 16,384 tokens a call. Errors are sizes of differences to the plain form in "
            "float32 over the size of that, of the output and of all gradients; the forms agree "
            f"where the kernels' are at most {TIMES:g} times those of the plain form in bf16. The "
            "largest difference is between the two in bf16. Times are forwards and backwards."
        ),
        seconds=200,
        real={
            "mixers": list(KERNELS),
            "lengths": [512, 2048, 8192, 16384],
            "tokens": 16384,
            "d_model": 768,
            "num_heads": 12,
            "rounds": 3,
            "least": 0.05,
            "package": installed(),
        },
        dry={
            "mixers": list(KERNELS),
            "lengths": [8, 16],
            "tokens": 16,
            "d_model": 16,
            "num_heads": 2,
            "rounds": 1,
            "least": 0.0,
            "package": None,
        },
        measure=measure,
        lacks=lacks,
    )
]
