"""How fast models write, with what they have read in a cached state."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from attnlab.measure import Work
from attnlab.model.base import Model
from bench.gpu.models import decoder, mixer_words
from bench.gpu.part import Found, Given, Part
from bench.gpu.timing import autocast, clean, in_turn
from bench.peers import NUM_TOKENS


def measure(given: Given) -> Found:
    """Let models read a text step by step, then write on from there, one sequence or many."""
    settings, device = given.settings, given.device
    longest = settings["read"] + settings["write"]
    shape = [f"model.num_layers={settings['num_layers']}", f"model.d_model={settings['d_model']}"]
    models, states, rows = {}, {}, []
    for name in settings["mixers"]:
        words = [*mixer_words(name, settings["num_heads"]), *shape]
        models[name] = decoder(words, NUM_TOKENS, longest).to(device).eval()
        states[name] = write(models[name], device, 1, 0, settings["read"], None)
    for batch in settings["batches"]:
        with clean(device):
            works: dict[str, Work] = {
                name: partial(
                    *(write, model, device, batch, settings["read"], settings["write"]),
                    repeated(states[name], batch),
                )
                for name, model in models.items()
            }
            times = in_turn(works, device, settings["rounds"], settings["least"])
            works.clear()
        rows += [
            {
                "mixer": name,
                "sequences": batch,
                "ms a step": 1e3 * took / settings["write"],
                "tokens a second": batch * settings["write"] / took,
                "numbers a sequence keeps": models[name].state_size(settings["read"]),
            }
            for name, took in times.items()
        ]
    return Found(rows)


def write(model: Model, device: torch.device, batch: int, at: int, steps: int, state: Any) -> Any:
    """Go on from a state by so many steps; gives the state then."""
    token = torch.zeros(batch, 1, dtype=torch.long, device=device)
    # One context for all steps, so that it casts the parameters once.
    with torch.no_grad(), autocast(device):
        for place in range(at, at + steps):
            _, state = model.step(token, place, state)
    return state


def repeated(state: Any, batch: int) -> Any:
    """Give the state of so many sequences that have read the same; the batch is its first axis."""
    return tree_map_only(Tensor, lambda part: part.repeat_interleave(batch, dim=0), state)


PARTS = [
    Part(
        name="decode",
        says=(
            "Steps with a cached state after 1,024 tokens, for one sequence and for 64: 12 "
            "layers, d=768, 12 heads, under bf16 autocast. Picking a token from the logits is "
            "not in it."
        ),
        seconds=110,
        real={
            "mixers": [
                "multihead",
                "grouped_query",
                "latent",
                "sliding_window",
                "gated_delta",
                "selective_state_space",
                "lstm",
            ],
            "num_layers": 12,
            "d_model": 768,
            "num_heads": 12,
            "read": 1024,
            "write": 32,
            "batches": [1, 64],
            "rounds": 5,
            "least": 0.1,
        },
        dry={
            "mixers": ["multihead", "latent", "sliding_window", "gated_delta", "lstm"],
            "num_layers": 1,
            "d_model": 16,
            "num_heads": 2,
            "read": 4,
            "write": 2,
            "batches": [1, 3],
            "rounds": 1,
            "least": 0.0,
        },
        measure=measure,
    )
]
