"""A mixture of experts beside a dense network of as many products, and beside Mixtral's."""

import torch
from torch import Tensor, nn

from attnlab.measure import Work, measure_peak_bytes
from bench.gpu.part import Found, Given, Part
from bench.gpu.timing import clean, forward_flops, gigabytes, in_turn
from bench.moe import DENSE, OURS, arms


def measure(given: Given) -> Found:
    """Lead the same tokens through each network in bf16, forwards and backwards."""
    settings, device = given.settings, given.device
    d_model = settings["d_model"]
    shape = (settings["batch"], settings["length"], d_model)
    x = torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True)
    gradient = torch.randn_like(x)
    torch.manual_seed(0)
    networks = {name: made.to(device, torch.bfloat16) for name, made in arms(d_model).items()}
    operations = {name: 3 * forward_flops(made, x.detach()) for name, made in networks.items()}
    works = {name: _pass(network, x, gradient) for name, network in networks.items()}
    peaks = {}
    for name, work in works.items():
        with clean(device):
            peaks[name] = measure_peak_bytes(work, device)
    times = in_turn(works, device, settings["rounds"], settings["least"])
    return Found(
        [
            {
                "network": name,
                "ms": 1e3 * took,
                f"of {DENSE}": took / times[DENSE],
                f"of {OURS}": took / times[OURS],
                "TFLOP/s": 1e-12 * operations[name] / took,
                "GB": gigabytes(peaks[name]),
            }
            for name, took in times.items()
        ]
    )


def _pass(network: nn.Module, x: Tensor, gradient: Tensor) -> Work:
    def work() -> None:
        out, losses = network(x)
        torch.autograd.backward([out, *losses.values()], [gradient, *(None for _ in losses)])
        network.zero_grad()
        x.grad = None

    return work


PARTS = [
    Part(
        name="moe",
        says=(
            "Feed-forward networks of equal active products, bf16 throughout, forwards and "
            "backwards on 16 x 1024 tokens, d=768. The goals: ours at most 1.3 times the dense "
            "one, and no slower than Mixtral's block. GB is what a call allocates at most."
        ),
        seconds=50,
        real={"d_model": 768, "batch": 16, "length": 1024, "rounds": 9, "least": 0.2},
        dry={"d_model": 24, "batch": 2, "length": 8, "rounds": 1, "least": 0.0},
        measure=measure,
    )
]
