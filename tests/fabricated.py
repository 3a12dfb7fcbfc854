"""Finished runs without training: run.json and config.yaml written by hand, as documented."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

PARTS = {
    "vanilla": ("single_head.SingleHead", {}, "mlp.MLP", {"expansion": 4.0}),
    "multihead": ("multihead.MultiHead", {"num_heads": 4}, "mlp.MLP", {"expansion": 4.0}),
    "moe": ("multihead.MultiHead", {"num_heads": 4}, "moe.MoE", {"expansion": 2.0, "top_k": 2}),
}


def model(variant: str, num_layers: int) -> dict[str, Any]:
    if variant not in PARTS:
        return {"_target_": "attnlab.model.recurrent.Recurrent", "num_layers": num_layers}
    mixer, mixer_knobs, ffn, ffn_knobs = PARTS[variant]
    return {
        "_target_": "attnlab.model.transformer.Transformer",
        "num_layers": num_layers,
        "d_model": 64,
        "mixer": {"_target_": f"attnlab.mixer.{mixer}", "_partial_": True, **mixer_knobs},
        "ffn": {"_target_": f"attnlab.ffn.{ffn}", "_partial_": True, **ffn_knobs},
    }


def result(
    variant: str = "vanilla",
    num_layers: int = 2,
    seed: int = 0,
    accuracy: float = 0.5,
    *,
    dataset: str = "mqar",
    knobs: Mapping[str, Any] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Give a run.json; `knobs` sets dotted config keys, and `fields` its own."""
    identity: dict[str, Any] = {
        "seed": seed,
        "batch_size": 64,
        "model": model(variant, num_layers),
        "optimizer": {"_target_": "attnlab.optimizer.adamw.AdamW", "lr": 0.002},
        "trainer": {"_target_": "attnlab.training.Settings", "max_steps": 500},
        "callbacks": {"early_stop": None},
        "dataset": {"name": dataset, "_target_": f"attnlab.dataset.{dataset}.D", "num_pairs": 4},
        "variant": variant,
    }
    for key, value in (knobs or {}).items():
        *path, last = key.split(".")
        node = identity
        for part in path:
            node = node[part]
        node[last] = value
    return {
        "schema": 1,
        "status": "finished",
        "attempt": 1,
        "started": "2026-01-01T00:00:00Z",
        "identity": identity,
        "variant": variant,
        "dataset": dataset,
        "num_layers": num_layers,
        "network_depth": num_layers + 2,
        "seed": seed,
        "data_hash": f"{dataset}-bytes",
        "parameters": 50_000 * num_layers,
        "active_parameters": 40_000 * num_layers,
        "flops_per_token": 1e5,
        "tokens": 640_000,
        "budget_tokens": 640_000,
        "seconds": 2.0,
        "metrics": {"test/accuracy": accuracy, "test/loss": 1 - accuracy},
        "headline": "test/accuracy",
        "higher_is_better": True,
        **fields,
    }


def write(runs_dir: Path, name: str, content: Mapping[str, Any]) -> Path:
    """Write a run.json as the record of a run."""
    path = runs_dir / name
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(content["identity"]))
    (path / "run.json").write_text(json.dumps(content))
    return path


def as_first_recorded(run_dir: Path) -> None:
    """Take the sums out of a run's claims, as if attnlab 0.1 had written them."""
    for path in run_dir.glob("attempts/*/claim.json"):
        claim = json.loads(path.read_text())
        kept = ("host", "pid", "process_start", "at", "resumed_from")
        path.unlink()
        path.write_text(json.dumps({"schema": 1, **{key: claim[key] for key in kept}}))
