"""A training step beside those of other libraries, eager and compiled."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace

import torch
from torch import Tensor, nn

from attnlab.measure import Work, measure_peak_bytes
from bench.gpu import events
from bench.gpu.models import Answers, compiled, decoder, mixer_words, training_step
from bench.gpu.part import Found, Given, Part, Row
from bench.gpu.timing import clean, forward_flops, gigabytes, in_turn, seconds_of
from bench.peers import MEDIUM, NUM_TOKENS, PEERS, TINY, Shape

LARGE = Shape(num_layers=12, d_model=768, num_heads=12, batch=16, length=1024)
EXPLICIT = ("masked_fill", "additive mask", "explicit", "eager")
"""How the peers are called that do without fused attention, which nobody wants on a GPU."""
FUSED = [name for name in PEERS if not name.endswith(EXPLICIT)]
OURS, LEAN = "attnlab", "lean GPT, SDPA"
COMPILED = (OURS, LEAN)


def measure(given: Given) -> Found:
    """Let all arms of a shape take turns, and look at one step of each by itself."""
    settings, device = given.settings, given.device
    shape = Shape(**settings["shape"])
    tokens = torch.randint(NUM_TOKENS, (shape.batch, shape.length + 1), device=device)
    works: dict[str, Work] = {}
    rows: dict[str, dict[str, str | float | None]] = {}
    notes: list[str] = []
    for name, make in _arms(settings["peers"]).items():
        try:
            model = make(shape).to(device)
        except ModuleNotFoundError as error:
            notes.append(f"{name}: {error.name} is not installed")
            continue
        operations = 3 * forward_flops(model, tokens[:, :-1])
        forms = {f"{name}, eager": model}
        if name in COMPILED:
            forms[f"{name}, compiled"] = compiled(model, settings["backend"])
        for form, called in forms.items():
            works[form] = work = training_step(called, tokens, model)
            rows[form] = {"arm": form, "TFLOP": 1e-12 * operations, **_alone(work, device)}
    times = in_turn(works, device, settings["rounds"], settings["least"])
    return Found([_row(rows[form], took, tokens) for form, took in times.items()], notes)


def _arms(peers: list[str]) -> Mapping[str, Callable[[Shape], nn.Module]]:
    return {OURS: _ours, **{name: PEERS[name] for name in peers}}


def _ours(shape: Shape) -> nn.Module:
    words = [f"model.num_layers={shape.num_layers}", f"model.d_model={shape.d_model}"]
    heads = mixer_words("multihead", shape.num_heads)
    return Answers(decoder([*heads, *words], NUM_TOKENS, shape.length))


def _alone(work: Work, device: torch.device) -> dict[str, str | float | None]:
    """See what one step of an arm takes, and which kernels attend in it."""
    with clean(device):
        first = seconds_of(work, device)
        taken = gigabytes(measure_peak_bytes(work, device))
    with events.profiled(device) as found:
        work()
    return {"s, first": first, "GB": taken, "fused attention": events.attention(found)}


def _row(row: dict[str, str | float | None], took: float, tokens: Tensor) -> Row:
    operations = row["TFLOP"]
    assert isinstance(operations, float)
    return {
        "arm": row["arm"],
        "ms a step": 1e3 * took,
        "tokens a second": tokens[:, 1:].numel() / took,
        "TFLOP/s": operations / took,
        "GB": row["GB"],
        "s, first step": row["s, first"],
        "fused attention": row["fused attention"],
    }


def _part(name: str, shape: Shape, seconds: float, backend: str = "inductor") -> Part:
    peers = {"backend": backend, "peers": FUSED}
    return Part(
        name=f"step-{name}",
        says=(
            f"A training step under bf16 autocast: {shape.num_layers} layers, d={shape.d_model}, "
            f"{shape.num_heads} heads, {shape.batch} x {shape.length} tokens of {NUM_TOKENS}, "
            "AdamW, clipped. The loop is bare and the same for all. GB is what a step allocates "
            "at most on top of parameters, gradients and AdamW's averages; the first step "
            "compiles. FLOPs are three times those of an arm's own forward pass."
        ),
        seconds=seconds,
        real={"shape": asdict(shape), "rounds": 7, "least": 0.2, **peers},
        dry={
            "shape": asdict(replace(TINY, num_layers=1, d_model=16, batch=2, length=8)),
            "rounds": 1,
            "least": 0.0,
            **peers,
            # Inductor needs a compiler for the CPU, which not every machine has.
            "backend": "aot_eager",
        },
        measure=measure,
    )


PARTS = [
    _part("tiny", TINY, 80),
    _part("medium", MEDIUM, 90),
    _part("large", LARGE, 160),
]
