"""A decoder of GPT-2's smallest shape, as large a batch as fits."""

import torch

from attnlab.model.base import parameters
from bench.gpu.models import Answers, compiled, decoder, mixer_words, training_step
from bench.gpu.part import Found, Given, Part, Row
from bench.gpu.timing import (
    clean,
    forward_flops,
    gigabytes,
    in_turn,
    largest,
    seconds_of,
)


def measure(given: Given) -> Found:
    """Train it on random tokens, eager and compiled."""
    settings, device = given.settings, given.device
    num_tokens, length = settings["num_tokens"], settings["length"]
    shape = [
        f"model.num_layers={settings['num_layers']}",
        f"model.d_model={settings['d_model']}",
        "model.tied=true",
        "init=gpt2",
    ]
    words = [*mixer_words("multihead", settings["num_heads"]), *shape]
    model = Answers(decoder(words, num_tokens, length)).to(device)
    sizes = [settings["batch"] // 2**half for half in range(4)]

    def tokens(batch: int) -> torch.Tensor:
        return torch.randint(num_tokens, (batch, length + 1), device=device)

    def attempt(batch: int) -> None:
        with clean(device):
            training_step(model, tokens(batch))()

    batch = largest([size for size in sizes if size], attempt)
    inputs = tokens(batch)
    operations = 3 * forward_flops(model, inputs[:, :-1])
    rows: list[Row] = []
    for form in ("eager", "compiled"):
        called = model if form == "eager" else compiled(model, settings["backend"])
        with clean(device):
            work = training_step(called, inputs, model)
            first = seconds_of(work, device)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            took = in_turn({form: work}, device, settings["rounds"], settings["least"])[form]
            cuda = device.type == "cuda"
            held = gigabytes(torch.cuda.max_memory_allocated(device)) if cuda else None
        row = {
            "form": form,
            "batch": batch,
            "parameters": parameters(model),
            "ms a step": 1e3 * took,
            "tokens a second": batch * length / took,
            "TFLOP/s": 1e-12 * operations / took,
            "GB held at most": held,
            "s, first step": first,
        }
        rows.append(row)
    return Found(rows)


PARTS = [
    Part(
        name="decoder_124m",
        says=(
            "Training steps of a decoder of GPT-2's smallest shape (12 layers, d=768, 12 heads, "
            "50,304 tokens, tied) at length 1024, under bf16 autocast with fused AdamW, on random "
            "tokens. Memory is all that torch's allocator has given, the model included."
        ),
        seconds=130,
        real={
            "num_layers": 12,
            "d_model": 768,
            "num_heads": 12,
            "num_tokens": 50304,
            "length": 1024,
            "batch": 32,
            "rounds": 5,
            "least": 1.0,
            "backend": "inductor",
        },
        dry={
            "num_layers": 1,
            "d_model": 16,
            "num_heads": 2,
            "num_tokens": 64,
            "length": 8,
            "batch": 2,
            "rounds": 1,
            "least": 0.0,
            "backend": "aot_eager",
        },
        measure=measure,
    )
]
