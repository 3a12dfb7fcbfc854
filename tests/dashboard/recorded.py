"""Finished runs with all that the pages of records show, written without training."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from attnlab.dashboard.app import build_app
from attnlab.dashboard.guard import Access
from attnlab.dashboard.run_store import RunStore
from attnlab.layers import AttentionLayer, Axes, ExpertLayer, HeadRef, LSTMLayer, MixingLayer
from attnlab.run_record import evidence_history, head_scores, vectors, write
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.finding import Finding, NamedHead
from attnlab.run_record.layers import FILE, Layers
from attnlab.run_record.pattern_table import TABLE, Pattern, PatternWeights
from tests.fabricated import result

TOKENS = ("k1", "v2", "the", "<end>", ",", "7")
STEPS = (0, 10, 20)
NUM_HEADS, NUM_EXPERTS = 2, 4
PORT = 8790


def layers_of(variant: str) -> Layers:
    """Return the layers of a model of two heads, of a linear mixer or of an LSTM."""
    if variant == "lstm":
        return Layers(lstm=[LSTMLayer(0, "layers.0.forwards", False)])
    if variant == "linear":
        mixing = MixingLayer(0, "blocks.0.mixer", "blocks.0.mixer.mixing", 1, Axes(), True)
        return Layers(mixing=[mixing])
    attention = [AttentionLayer(0, "blocks.0.mixer.attend", NUM_HEADS, Axes())]
    experts = [ExpertLayer(0, "blocks.0.ffn", NUM_EXPERTS)] if variant == "moe" else []
    return Layers(attention, experts=experts)


def recorded(
    runs_dir: Path,
    variant: str = "multihead",
    seed: int = 0,
    *,
    name: str = "",
    tokens: Sequence[str] = TOKENS,
    role: str = "reads the key",
    scores: Sequence[float] | None = None,
    measures_evidence: bool = True,
    **fields: Any,
) -> Path:
    """Write a finished run; its numbers are drawn from the seed and the variant."""
    random = np.random.default_rng([seed, len(variant)])
    layers = layers_of(variant)
    findings = {}
    if layers.attention:
        head = NamedHead(HeadRef(0, seed % NUM_HEADS), role, 0.7, {"head out": 0.2 + seed / 100})
        findings = {"recall": Finding({"read": 0.7}, {"read": head})}
    if variant == "lstm":
        findings = {"gates": Finding({"layer0/time": 4.0 + seed, "layer0/forget": 0.75})}
    loads = random.dirichlet(np.ones(NUM_EXPERTS), size=len(STEPS)).tolist()
    loads[-1][0], loads[-1][1] = 0.0, loads[-1][0] + loads[-1][1]
    gauges = [
        {f"blocks.0.ffn.load.{n}": share for n, share in enumerate(load)}
        | {"blocks.0.ffn.drops": 0.0}
        for load in (loads if layers.experts else [[]])
        if layers.experts
    ]
    metrics = {"test/accuracy": 0.9 + seed / 100, "test/loss": 0.1}
    if gauges:
        metrics |= {f"test/{key}": value for key, value in gauges[-1].items()}
    found = fields.pop("findings", findings)
    metrics |= {f"{e}/{key}": v for e, f in found.items() for key, v in f.scalars.items()}
    content = result(
        variant if variant != "linear" else "multihead",
        *(1, seed),
        knobs=None if variant != "linear" else {"model.mixer._target_": "attnlab.mixer.linear.L"},
        metrics=fields.pop("metrics", metrics),
        findings=found,
        **fields,
    )
    path = runs_dir / (name or f"mqar-{variant}-1x64-s{seed}")
    attempt = Attempt.claim(path, content.identity)
    write.create_file(attempt.path / FILE, json.dumps(layers.to_json()).encode())
    for place, step in enumerate(STEPS):
        gauge = gauges[place] if gauges else {}
        attempt.append("validation", [{"step": step, "loss": 1.0, **gauge}])
        drawn = random.normal(size=(len(tokens), 4))
        attempt.append(vectors.TABLE, [vectors.vectors_row(step, drawn, tokens)])
        for layer in layers.attention:
            values = scores or random.uniform(0, 0.4, size=NUM_HEADS).tolist()
            rows = [head_scores.measure_row(step, layer, m, values) for m in ("previous", "sink")]
            attempt.append(head_scores.TABLE, rows)
        for evidence, finding in findings.items() if measures_evidence else ():
            rows = evidence_history.evidence_rows(step, evidence, finding)
            attempt.append(evidence_history.TABLE, rows)
        for pattern in _patterns(random, step, tokens, layers):
            attempt.append(TABLE, [pattern.to_row()])
    attempt.finish(content)
    attempt.close()
    return path


def _patterns(
    random: np.random.Generator, step: int, tokens: Sequence[str], layers: Layers
) -> list[Pattern]:
    """Return causal rows of each layer, and the influence on the last token."""
    size = len(tokens)

    def rows(num_heads: int, queries: Sequence[int]) -> np.ndarray:
        weights = np.zeros((num_heads, len(queries), size), np.float32)
        for head in range(num_heads):
            for place, query in enumerate(queries):
                weights[head, place, : query + 1] = random.dirichlet(np.ones(query + 1))
        return weights

    made = [
        Pattern(
            *(step, "validation-0", layer, tokens, range(size), size - 1),
            data=PatternWeights(rows(layer.num_heads, range(size))),
        )
        for layer in (*layers.attention, *layers.mixing)
    ]
    influence = PatternWeights(rows(1, [size - 1]))
    return [*made, Pattern(step, "validation-0", None, tokens, [size - 1], size - 1, influence)]


def ask(runs_dir: Path) -> TestClient:
    """Return a browser without scripts that asks a dashboard of these runs."""
    app = build_app(RunStore((), runs_dir), Access.on_loopback(PORT))
    return TestClient(app, base_url=f"http://127.0.0.1:{PORT}", follow_redirects=False)
