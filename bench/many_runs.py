"""Write records of many runs without training, for timings of what reads them.

``python -m bench.many_runs DIR [--runs 1000] [--steps 10000]``: runs as attnlab writes them, with
the same forms and checksums: 4 variants x 2 depths x 5 learning rates, as many seeds as that needs.
The curves are drawn from a seeded random stream; weights, patterns and checkpoints are missing.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from itertools import count, islice, product
from pathlib import Path
from typing import Any

import numpy as np

from attnlab.run_record.attempt import Attempt
from attnlab.run_record.history import todays_form
from attnlab.run_record.identity import identity_hash
from attnlab.run_record.result import RunResult

VARIANTS = {
    "vanilla": "attnlab.mixer.single_head.SingleHead",
    "multihead": "attnlab.mixer.multihead.MultiHead",
    "gated_delta": "attnlab.mixer.gated_delta.GatedDelta",
    "sliding_window": "attnlab.mixer.sliding_window.SlidingWindow",
}
LEARNING_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
NUM_LAYERS = (1, 2)
VALIDATIONS = 100
"""The validations of a run."""
BATCHES = 100
"""The messages into which a table's rows are divided, as a run that trains writes them."""
TOKENS_PER_STEP = 2048


def main() -> int:
    """Write the runs, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.many_runs", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=10_000)
    options = parser.parse_args()
    if options.directory.exists():
        parser.error(f"{options.directory} exists; name a directory that does not")
    write_runs(options.directory, options.runs, options.steps)
    print(f"{options.runs} runs of {options.steps} steps are in {options.directory}")
    return 0


def write_runs(runs_dir: Path, num_runs: int, num_steps: int) -> None:
    """Write `num_runs` finished runs of `num_steps` training rows each."""
    for variant, num_layers, learning_rate, seed in islice(_cells(), num_runs):
        identity = _identity(variant, num_layers, learning_rate, seed, num_steps)
        name = f"mqar-{variant}-{num_layers}x64-lr{learning_rate:g}-s{seed}"
        attempt = Attempt.claim(runs_dir / f"{name}-{identity_hash(identity)}", identity)
        curves = _curves(variant, num_layers, learning_rate, seed, num_steps)
        for table, columns in curves.items():
            steps = columns["step"]
            for rows in np.array_split(np.arange(len(steps)), min(BATCHES, len(steps))):
                attempt.append(
                    table,
                    [{name: column[i].item() for name, column in columns.items()} for i in rows],
                )
        final = {name: float(column[-1]) for name, column in curves["validation"].items()}
        attempt.finish(_result(identity, final))


def _cells() -> Iterator[tuple[str, int, float, int]]:
    """Yield (variant, num_layers, learning rate, seed), all arms of a seed before the next."""
    for seed in count():
        for variant, num_layers, rate in product(VARIANTS, NUM_LAYERS, LEARNING_RATES):
            yield variant, num_layers, rate, seed


def _curves(
    variant: str, num_layers: int, learning_rate: float, seed: int, num_steps: int
) -> dict[str, dict[str, np.ndarray]]:
    """Return the columns of the train and validation tables."""
    arm = (*VARIANTS,).index(variant), num_layers, LEARNING_RATES.index(learning_rate)
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([*arm, seed])))
    half_time = num_steps / (4 + arm[0] + 3 * num_layers)
    train_steps = np.arange(1, num_steps + 1)
    interval = max(1, num_steps // VALIDATIONS)
    validation_steps = np.arange(interval, num_steps + 1, interval)

    def loss(steps: np.ndarray, noise: float) -> np.ndarray:
        return 4 / (1 + steps / half_time) + random.normal(0, noise, len(steps)) ** 2

    train_loss, validation_loss = loss(train_steps, 0.2), loss(validation_steps, 0.05)
    return {
        "train": {
            "step": train_steps,
            "loss": train_loss,
            "accuracy": np.exp(-train_loss),
            "grad_norm": random.lognormal(0, 0.3, num_steps),
            "lr": learning_rate * np.minimum(1, train_steps / 100),
        },
        "validation": {
            "step": validation_steps,
            "loss": validation_loss,
            "accuracy": np.exp(-validation_loss),
        },
    }


def _identity(
    variant: str, num_layers: int, learning_rate: float, seed: int, num_steps: int
) -> dict[str, Any]:
    mixer = {"_target_": VARIANTS[variant], "_partial_": True, "num_heads": 4}
    identity = {
        "seed": seed,
        "batch_size": 64,
        "model": {
            "_target_": "attnlab.model.transformer.Transformer",
            "num_layers": num_layers,
            "d_model": 64,
            "mixer": mixer,
            "ffn": {"_target_": "attnlab.ffn.mlp.MLP", "_partial_": True, "expansion": 4.0},
        },
        "optimizer": {"_target_": "attnlab.optimizer.adamw.AdamW", "lr": learning_rate},
        "trainer": {"_target_": "attnlab.training.Settings", "max_steps": num_steps},
        "dataset": {"_target_": "attnlab.dataset.mqar.MQAR", "name": "mqar", "num_pairs": 4},
        "variant": variant,
    }
    return todays_form(identity)


def _result(identity: Mapping[str, Any], final: Mapping[str, float]) -> RunResult:
    """Return a result whose metrics are those of the last validation."""
    num_layers, num_steps = identity["model"]["num_layers"], identity["trainer"]["max_steps"]
    return RunResult(
        attempt=1,
        started="2026-01-01T00:00:00Z",
        identity=identity,
        variant=identity["variant"],
        dataset="mqar",
        num_layers=num_layers,
        seed=identity["seed"],
        code={},
        git=None,
        versions={},
        choices={"variant": identity["variant"], "dataset": "mqar"},
        network_depth=num_layers + 2,
        seconds=100.0 * num_layers,
        device=None,
        peak_memory_bytes=None,
        data_hash="0" * 64,
        steps=num_steps,
        stopped_early=False,
        tokens=num_steps * TOKENS_PER_STEP,
        budget_tokens=num_steps * TOKENS_PER_STEP,
        parameters=50_000 * num_layers,
        active_parameters=50_000 * num_layers,
        flops_per_token=1e5 * num_layers,
        state_size=None,
        headline="test/accuracy",
        higher_is_better=True,
        lower_is_better=("*loss",),
        bounds={"*accuracy": (0.0, 1.0), "*loss": (0.0, None)},
        metrics={f"test/{name}": final[name] for name in ("accuracy", "loss")},
    )


if __name__ == "__main__":
    sys.exit(main())
