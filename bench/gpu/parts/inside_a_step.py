"""Whether anything in a training step makes the host wait, and which kernels attend."""

from collections.abc import Sequence
from pathlib import Path

from attnlab.config import conf_dir
from attnlab.errors import ConfigError
from bench.gpu import events
from bench.gpu.models import mixer_words, mixers
from bench.gpu.part import Found, Given, Part, Row


def ffns() -> list[str]:
    """List the feed-forward networks of conf/, but for that of the other arms."""
    there = {path.stem for path in Path(conf_dir(), "model/ffn").glob("*.yaml")}
    return sorted(there - {"mlp"})


def measure(given: Given) -> Found:
    """Look into steps of a small causal model with each mixer, and with each network."""
    settings = given.settings
    shape = [
        f"model.num_layers={settings['num_layers']}",
        f"model.d_model={settings['d_model']}",
        f"batch_size={settings['batch']}",
    ]
    arms = {name: mixer_words(name, settings["num_heads"]) for name in settings["mixers"]}
    heads = mixer_words("multihead", settings["num_heads"])
    arms |= {f"multihead, {name}": [*heads, f"model/ffn={name}"] for name in settings["ffns"]}
    # The library's grouped product is known to wait in float32.
    arms["multihead, moe, fp32"] = [*heads, "model/ffn=moe", "trainer.precision=32-true"]
    rows, notes = [], []
    for name, words in arms.items():
        try:
            rows.append(_row(name, [*words, *shape], given))
        except ConfigError as refusal:
            notes.append(f"{name}: refused for a causal model ({refusal.faults[0]})")
    return Found(rows, notes)


def _row(name: str, words: Sequence[str], given: Given) -> Row:
    # Lightning takes seconds to import, which no other part needs.
    from bench.gpu.watched import MARK, STEPS, watch

    seen = watch(words, given.settings["length"], given.device)
    inside = events.within(seen.events, MARK)
    waits, copies = events.waits(inside), events.copies(inside)
    return {
        "mixer": name,
        "waits a step": sum(waits.values()) / STEPS,
        "in": ", ".join(sorted(waits)) or "-",
        "called at": ", ".join(f"{place} x{n}" for place, n in seen.places.most_common(3)) or "-",
        "copies a step": ", ".join(f"{name} x{n / STEPS:g}" for name, n in copies.items()) or "-",
        "launches a step": events.launches(inside) / STEPS,
        "fused attention": events.attention(seen.events),
    }


PARTS = [
    Part(
        name="inside_a_step",
        says=(
            "Steps of `attnlab train`, under bf16 autocast unless the name says otherwise, between "
            "logged ones: how often the host waited for the device (the goal is 0), in which "
            "calls, and from which lines torch says that they come; copies between the two; and "
            "the kernels of fused attention."
        ),
        seconds=110,
        real={
            "mixers": mixers(),
            "ffns": ffns(),
            "num_layers": 2,
            "d_model": 256,
            "num_heads": 4,
            "batch": 16,
            "length": 256,
        },
        dry={
            "mixers": ["multihead", "gated_delta"],
            "ffns": ["moe", "expert_choice"],
            "num_layers": 1,
            "d_model": 16,
            "num_heads": 2,
            "batch": 2,
            "length": 8,
        },
        measure=measure,
    )
]
