"""Finished runs without training: run.json and config.yaml written by hand, as documented."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from attnlab.run_record.layers import FILE, Layers
from attnlab.run_record.result import AttemptError, FailedAttempt, InterruptedAttempt, RunResult

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
) -> RunResult:
    """Give a result; `knobs` sets dotted config keys, and `fields` its own."""
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
    return RunResult(
        **known(identity, variant, dataset, num_layers, seed)
        | {
            "network_depth": num_layers + 2,
            "seconds": 2.0,
            "device": None,
            "peak_memory_bytes": None,
            "data_hash": f"{dataset}-bytes",
            "steps": 500,
            "stopped_early": False,
            "tokens": 640_000,
            "budget_tokens": 640_000,
            "parameters": 50_000 * num_layers,
            "active_parameters": 40_000 * num_layers,
            "flops_per_token": 1e5,
            "state_size": None,
            "headline": "test/accuracy",
            "higher_is_better": True,
            "metrics": {"test/accuracy": accuracy, "test/loss": 1 - accuracy},
            **fields,
        }
    )


def interrupted(step: int = 0, **fields: Any) -> InterruptedAttempt:
    """Give what an attempt says that was told to stop."""
    return InterruptedAttempt(**known() | fields, step=step)


def failed(
    cause: str = "error", step: int = 3, message: str = "it broke", **fields: Any
) -> FailedAttempt:
    """Give what an attempt says that ended in an error."""
    error = AttemptError(type="ValueError", message=message, step=step, cause=cause)
    return FailedAttempt(**known() | fields, error=error)


def known(
    identity: Mapping[str, Any] | None = None,
    variant: str = "vanilla",
    dataset: str = "mqar",
    num_layers: int = 2,
    seed: int = 0,
) -> dict[str, Any]:
    """Give what is known of an attempt however it ends."""
    return {
        "attempt": 1,
        "started": "2026-01-01T00:00:00Z",
        "identity": identity or {"variant": variant, "seed": seed},
        "variant": variant,
        "dataset": dataset,
        "num_layers": num_layers,
        "seed": seed,
        "code": {},
        "git": None,
        "versions": {},
    }


def write(runs_dir: Path, name: str, content: RunResult) -> Path:
    """Write the record of a run of which nothing but the result is left."""
    path = runs_dir / name
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(content.identity))
    (path / "run.json").write_text(json.dumps(content.to_json()))
    return path


def state_layers(attempt: Path, layers: Layers) -> None:
    """Write what an attempt says of its model, as training does."""
    (attempt / FILE).write_text(json.dumps(layers.to_json()))


def as_first_recorded(run_dir: Path) -> None:
    """Take the sums out of a run's claims, and its layers, as if attnlab 0.1 had written it."""
    for path in run_dir.glob(f"attempts/*/{FILE}"):
        path.unlink()
    for path in run_dir.glob("attempts/*/claim.json"):
        claim = json.loads(path.read_text())
        kept = ("host", "pid", "process_start", "at", "resumed_from")
        path.unlink()
        path.write_text(json.dumps({"schema": 1, **{key: claim[key] for key in kept}}))
