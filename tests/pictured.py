"""Finished runs of `pronoun` with curves and patterns that could be theirs, without training."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from attnlab.dataset.base import Dataset
from attnlab.dataset.pronoun import Pronoun
from attnlab.evidence.base import Evidence
from attnlab.evidence.context import ContextUse
from attnlab.evidence.pronoun import PronounResolution
from attnlab.evidence.recall import RecallCircuit
from attnlab.layers import AttentionLayer, Axes, Layer
from attnlab.run_record import write
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.finding import Finding
from attnlab.run_record.layers import FILE, Layers
from attnlab.run_record.pattern_table import Pattern, PatternWeights
from tests.fabricated import result

TWINS = {
    adjective: f"the animal did not cross the street because it was too {adjective} .".split()
    for adjective in ("tired", "wide")
}
ARMS = (("vanilla", 1), ("multihead", 1), ("multihead", 2), ("moe", 2), ("lstm", 2))
EVIDENCE: dict[str, type[Evidence]] = {
    "pronoun": PronounResolution,
    "recall": RecallCircuit,
    "context": ContextUse,
}
STEPS = (0, 1, 3, 10, 30, 100, 300, 500)


def pictured(
    runs_dir: Path,
    variant: str = "multihead",
    num_layers: int = 2,
    seed: int = 0,
    *,
    sentences: Mapping[str, Sequence[str]] | None = None,
    steps: Sequence[int] = STEPS,
    dataset: str = "pronoun",
    knobs: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Path:
    """Write a finished run that learned to look at the noun that is meant, if it has two layers."""
    random = np.random.default_rng([seed, num_layers, len(variant)])
    heads = {"vanilla": 1, "lstm": 0}.get(variant, 4)
    metrics = _metrics(random, heads, num_layers) if dataset == "pronoun" else {}
    metrics = {"test/accuracy": 1 - random.uniform(0, 0.01), "test/loss": 0.1, **metrics}
    known: dict[str, Any] = {
        "metrics": metrics,
        "data_hash": "83ae31f065bfc6b7c585b01501cbba64",
        "git": {"commit": "36c089ae0dfafd149adce4a6b4b824498fcfc705", "dirty": False},
    }
    kind = {"dataset._target_": f"attnlab.dataset.{dataset}.{dataset.title()}"}
    fields = known | fields
    found = findings(fields["metrics"])
    # The numbers of layers and heads are among the named heads, and no metrics.
    numbers = {key: value for key, value in fields["metrics"].items() if not _is_index(key)}
    fields = {"findings": found, **fields, "metrics": numbers}
    content = result(
        variant, num_layers, seed, dataset=dataset, knobs={**kind, **(knobs or {})}, **fields
    )
    name = f"{dataset}-{variant}-{num_layers}x64-s{seed}-{len(list(runs_dir.glob('*'))):03}"
    attempt = Attempt.claim(runs_dir / name, content.identity)
    slow = 250 if variant == "lstm" else 120
    for step in range(50, 501, 50):
        accuracy = 1 / (1 + np.exp(-(step - slow) / 40)) - random.uniform(0, 0.03)
        row = {"step": step, "loss": 2 * (1 - accuracy), "accuracy": accuracy}
        attempt.append("validation", [row])
    layers = Layers([attention(layer, heads) for layer in range(num_layers if heads else 0)])
    write.create_file(attempt.path / FILE, json.dumps(layers.to_json()).encode())
    roles = Pronoun.token_roles if dataset == "pronoun" else Dataset.token_roles
    for step in steps:
        for probe, tokens in (sentences or TWINS).items():
            for pattern in _patterns(random, step, probe, tokens, layers):
                pattern = replace(pattern, roles=roles(tokens))
                attempt.append("patterns", [pattern.to_row()])
    attempt.finish(content)
    return runs_dir / name


MIXERS = ("multihead.MultiHead", "retention.Retention", "min_lstm.MinLSTM")
POSITIONS = ("learned.Learned", "base.Position")


def sweep(runs_dir: Path, seeds: int = 2, **fields: Any) -> Path:
    """Write a sweep of 24 arms: mixers, positions, learning rates and weight decays."""
    cells = list(product(MIXERS, POSITIONS, (0.001, 0.005), (0.0, 0.1), range(seeds)))
    for place, (mixer, position, lr, decay, seed) in enumerate(cells):
        knobs = {
            "model.mixer": {"_target_": f"attnlab.mixer.{mixer}", "_partial_": True},
            "model.position": {"_target_": f"attnlab.position.{position}", "_partial_": True},
            "optimizer.lr": lr,
            "optimizer.weight_decay": decay,
        }
        accuracy = 0.5 + 0.45 * np.random.default_rng(place).uniform()
        pictured(
            runs_dir,
            seed=seed,
            knobs=knobs,
            started=f"2026-11-23T00:{place // 60:02}:{place % 60:02}Z",
            metrics={"test/accuracy": accuracy, "test/loss": 1 - accuracy},
            **fields,
        )
    return runs_dir


def demo(runs_dir: Path, seeds: int = 3, **fields: Any) -> Path:
    """Write every arm with several seeds."""
    started = 0
    for variant, num_layers in ARMS:
        for seed in range(seeds):
            started += 1
            when = f"2026-11-23T00:00:{started:02}Z"
            pictured(runs_dir, variant, num_layers, seed, started=when, **fields)
    return runs_dir


def _metrics(random: np.random.Generator, heads: int, num_layers: int) -> dict[str, float]:
    influences = {
        "pronoun/influence_right": 0.45 + random.normal(0, 0.02),
        "pronoun/influence_wrong": 0.2 + random.normal(0, 0.02),
        "pronoun/twins": 1 - random.uniform(0, 0.02),
    }
    if not heads:
        return influences
    flips = num_layers > 1
    return influences | {
        "pronoun/right": (0.5 if flips else 0.21) + random.normal(0, 0.02),
        "pronoun/wrong": (0.04 if flips else 0.21) + random.normal(0, 0.01),
        "pronoun/pointer": 0.95 if flips else 0.5,
        "pronoun/flip": 0.7 + random.normal(0, 0.03) if flips else 0.0,
        "pronoun/cut_right": 0.35 + random.normal(0, 0.04),
        "pronoun/cut_wrong": 1.0,
        "pronoun/layer": num_layers - 1,
        "pronoun/head": seed_head(random, heads),
    }


def attention(index: int, num_heads: int) -> AttentionLayer:
    """Return an attention layer as a Transformer states it."""
    return AttentionLayer(index, f"blocks.{index}.mixer.attend", num_heads, Axes())


def findings(metrics: Mapping[str, float]) -> dict[str, Finding]:
    """Return what evidence found, told by its metrics as records of 0.1 tell them."""
    found = {}
    for name, kind in EVIDENCE.items():
        prefix = f"{name}/"
        scalars = {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)}
        if scalars:
            found[name] = kind.finding_from_old_record(scalars)
    return found


def _is_index(metric: str) -> bool:
    return metric.startswith(tuple(EVIDENCE)) and metric.endswith(("layer", "head"))


def seed_head(random: np.random.Generator, heads: int) -> int:
    """Choose a head."""
    return int(random.integers(heads))


def _patterns(
    random: np.random.Generator,
    step: int,
    probe: str,
    tokens: Sequence[str],
    layers: Layers,
) -> list[Pattern]:
    size = len(tokens)
    at = tokens.index("it") if "it" in tokens else size - 1
    meant = [p for p, t in enumerate(tokens) if t == ("animal" if probe == "tired" else "street")]
    num_layers = len(layers.attention)
    learned = step / (step + 60) if num_layers > 1 else 0

    def row(weights: Float[np.ndarray, "head query key"], layer: Layer | None, queries: list[int]):
        data = PatternWeights(weights.astype(np.float32))
        return Pattern(step, probe, layer, tokens, queries, at, data)

    made = []
    for layer in layers.attention:
        weights = random.dirichlet(np.full(size, 4.0), size=(layer.num_heads, size))
        if layer.index == num_layers - 1 and meant:
            peak = np.zeros(size)
            peak[meant[0]] = 1
            share = learned * random.uniform(0.4, 0.7, size=(layer.num_heads, 1))
            weights[:, at] = (1 - share) * weights[:, at] + share * peak
        made.append(row(weights, layer, list(range(size))))
    influence = random.dirichlet(np.full(size, 2.0), size=(1, 1))
    if meant:
        influence[:, :, meant[0]] += 0.5
    return [*made, row(influence / influence.sum(-1, keepdims=True), None, [at])]
