"""How mixers grow with the length, in the forms that run everywhere."""

import torch

from attnlab.analysis.growth import fit_exponent
from attnlab.measure import measure_peak_bytes
from bench.gpu.models import layer
from bench.gpu.part import Found, Given, Part, Row
from bench.gpu.scans import KERNELS, passes, plain
from bench.gpu.timing import clean, gigabytes, in_turn


def measure(given: Given) -> Found:
    """Lead as many tokens through each mixer, in ever fewer and longer sequences."""
    settings, device = given.settings, given.device
    d_model, lengths = settings["d_model"], settings["lengths"]
    layers = {
        name: layer(name, d_model, settings["num_heads"]).to(device) for name in settings["mixers"]
    }
    times: dict[str, list[float]] = {name: [] for name in layers}
    peaks: dict[str, list[float]] = {name: [] for name in layers}
    for length in lengths:
        batch = settings["tokens"] // length
        x = torch.randn(batch, length, d_model, device=device, requires_grad=True)
        works = {name: passes(mixer, x, torch.randn_like(x)) for name, mixer in layers.items()}
        with plain():
            for name, work in works.items():
                with clean(device):
                    peaks[name].append(measure_peak_bytes(work, device) / batch)
            turns = in_turn(works, device, settings["rounds"], settings["least"])
        for name, took in turns.items():
            times[name].append(took / batch)
    return Found([_row(name, lengths, times[name], peaks[name]) for name in layers])


def _row(name: str, lengths: list[int], times: list[float], peaks: list[float]) -> Row:
    time, memory = fit_exponent(lengths, times), fit_exponent(lengths, peaks)
    return {
        "mixer": name,
        **{f"ms, {length}": 1e3 * took for length, took in zip(lengths, times, strict=True)},
        "exponent of time": time and time.value,
        f"GB, {lengths[-1]}": gigabytes(peaks[-1]),
        "exponent of memory": memory and memory.value,
    }


PARTS = [
    Part(
        name="linear",
        says=(
            "One sequence of each length through a mixer by itself, forwards and backwards, under "
            "bf16 autocast: d=768, 12 heads, 16,384 tokens a call, plain PyTorch. The goal for "
            "exponents of linear mixers is at most 1.15; multihead is there to compare."
        ),
        seconds=90,
        real={
            "mixers": [
                *("multihead", "sliding_window", *KERNELS),
                *("min_lstm", "lstm", "short_convolution", "long_convolution"),
            ],
            "lengths": [512, 1024, 2048, 4096, 8192, 16384],
            "tokens": 16384,
            "d_model": 768,
            "num_heads": 12,
            "rounds": 3,
            "least": 0.05,
        },
        dry={
            "mixers": ["multihead", "gated_delta"],
            "lengths": [8, 16],
            "tokens": 16,
            "d_model": 16,
            "num_heads": 2,
            "rounds": 1,
            "least": 0.0,
        },
        measure=measure,
    )
]
