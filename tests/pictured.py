"""Finished runs of `pronoun` with curves and patterns that could be theirs, without training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from attnlab.runs.attempt import Attempt
from attnlab.runs.patterns import INFLUENCE, Pattern
from tests.fabricated import result

TWINS = {
    adjective: f"the animal did not cross the street because it was too {adjective} .".split()
    for adjective in ("tired", "wide")
}
ARMS = (("vanilla", 1), ("multihead", 1), ("multihead", 2), ("moe", 2), ("lstm", 2))
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
    **fields: Any,
) -> Path:
    """Write a finished run that learned to look at the noun that is meant, if it has two layers."""
    random = np.random.default_rng([seed, num_layers, len(variant)])
    heads = {"vanilla": 1, "lstm": 0}.get(variant, 4)
    content = result(variant, num_layers, seed, dataset=dataset)
    metrics = _metrics(random, heads, num_layers) if dataset == "pronoun" else {}
    content["metrics"] = {"test/accuracy": 1 - random.uniform(0, 0.01), "test/loss": 0.1, **metrics}
    content["identity"]["dataset"]["_target_"] = f"attnlab.dataset.{dataset}.{dataset.title()}"
    content |= {"data_hash": "83ae31f065bfc6b7c585b01501cbba64", **fields}
    content["git"] = {"commit": "36c089ae0dfafd149adce4a6b4b824498fcfc705", "dirty": False}
    name = f"{dataset}-{variant}-{num_layers}x64-s{seed}-{len(list(runs_dir.glob('*'))):03}"
    attempt = Attempt.claim(runs_dir / name, content["identity"])
    slow = 250 if variant == "lstm" else 120
    for step in range(50, 501, 50):
        accuracy = 1 / (1 + np.exp(-(step - slow) / 40)) - random.uniform(0, 0.03)
        row = {"step": step, "loss": 2 * (1 - accuracy), "accuracy": accuracy}
        attempt.append("validation", [row])
    for step in steps:
        for probe, tokens in (sentences or TWINS).items():
            for pattern in _patterns(random, step, probe, tokens, heads, num_layers):
                attempt.append("patterns", [pattern.row()])
    attempt.finish({k: v for k, v in content.items() if k not in ("schema", "status", "attempt")})
    return runs_dir / name


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


def seed_head(random: np.random.Generator, heads: int) -> int:
    """Choose a head."""
    return int(random.integers(heads))


def _patterns(
    random: np.random.Generator,
    step: int,
    probe: str,
    tokens: Sequence[str],
    heads: int,
    num_layers: int,
) -> list[Pattern]:
    size = len(tokens)
    at = tokens.index("it") if "it" in tokens else size - 1
    meant = [p for p, t in enumerate(tokens) if t == ("animal" if probe == "tired" else "street")]
    learned = step / (step + 60) if num_layers > 1 else 0

    def row(weights: Float[np.ndarray, "head query key"], source: str, queries: list[int]):
        return Pattern(step, probe, source, tokens, queries, at, weights.astype(np.float32))

    made = []
    for layer in range(num_layers if heads else 0):
        weights = random.dirichlet(np.full(size, 4.0), size=(heads, size))
        if layer == num_layers - 1 and meant:
            peak = np.zeros(size)
            peak[meant[0]] = 1
            share = learned * random.uniform(0.4, 0.7, size=(heads, 1))
            weights[:, at] = (1 - share) * weights[:, at] + share * peak
        made.append(row(weights, f"blocks.{layer}.mixer.attend.pattern", list(range(size))))
    influence = random.dirichlet(np.full(size, 2.0), size=(1, 1))
    if meant:
        influence[:, :, meant[0]] += 0.5
    return [*made, row(influence / influence.sum(-1, keepdims=True), INFLUENCE, [at])]
