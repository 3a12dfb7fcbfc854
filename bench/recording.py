"""What looking costs: patterns, statistics of heads and vectors beside training, and their size."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from attnlab.callbacks.base import Recorder
from attnlab.callbacks.training_callback import RowListener, TrainingCallback
from attnlab.config import compose, search_path
from attnlab.experiment import Experiment
from attnlab.fit import fit
from attnlab.interp.head_stats import head_statistics
from attnlab.interp.observe import isolated_evaluation
from attnlab.run_record.attempt import Attempt
from attnlab.split import Batch
from bench.peak import Peak

STEPS = 30
"""Steps that are timed; the cadence of a run of 1,000 and of 100 is then counted."""
MEDIUM = (
    *("dataset=mqar", "dataset.length=256", "dataset.num_pairs=16", "dataset.num_train=2000"),
    *("variant=multihead", "depth=deep", "size=large", "batch_size=16"),
    "trainer.val_check_interval=${trainer.max_steps}",
)
SIZED = (
    *("dataset=mqar", "dataset.num_train=200", "variant=multihead", "model.num_layers=6"),
    *("model.mixer.num_heads=8", "size=small"),
)
LONG = (
    *("dataset=mqar", "dataset.length=4096", "dataset.num_pairs=16", "dataset.num_train=16"),
    *("dataset.num_validation=2", "dataset.num_test=2"),
    *("variant=multihead", "depth=base", "size=large", "batch_size=2"),
)


def ratios() -> dict[str, float]:
    """Train 4 layers, d=256, on 16 x 256 tokens, and look within the same run."""
    pace = (f"trainer.max_steps={STEPS}", "callbacks.cadence.statistics_every=10")
    medium, sized, long = _made(*MEDIUM, *pace), _made(*SIZED), _made(*LONG)
    clock = Times()
    with tempfile.TemporaryDirectory() as directory:
        attempt = Attempt.claim(Path(directory, "run"), {"bench": "recording"})
        fit(medium, attempt, None, callbacks=[clock])
        sizes = _sizes(sized, Path(directory))
    step = statistics.median(clock.steps)
    looks = {table: statistics.median(times) for table, times in clock.looks.items()}

    def share(table: str, steps: int) -> float:
        due = _made(*MEDIUM, f"trainer.max_steps={steps}").cadence
        times = sum(
            (due.measures if table == "heads" else due.records)(s) for s in range(1 + steps)
        )
        return times * looks[table] / (steps * step)

    costs = {
        f"{table} / training, in a run of {steps:,} steps": share(table, steps)
        for table in looks
        for steps in (1000, 100)
    }
    return {
        "a step, ms": 1000 * step,
        **{f"a look at {table}, ms": 1000 * seconds for table, seconds in looks.items()},
        **costs,
        "a statistics pass / a step (every 100 steps: a hundredth)": looks["heads"] / step,
        **{f"peak memory, medium: {name}": value for name, value in _peaks(medium).items()},
        **{f"peak memory, length 4096: {name}": value for name, value in _peaks(long).items()},
        **{f"MB a recorded step: {name}": size / 1e6 for name, size in sizes.items()},
    }


class Times(RowListener, pl.Callback):
    """Times steps, without what follows them, and looks, without their writing."""

    def __init__(self) -> None:
        self.steps, self.began = [], 0.0
        self.looks: dict[str, list[float]] = {}

    def wrap(self, recorder: Recorder) -> None:
        """Time each look of a recorder."""
        look = recorder.rows

        def timed(step: int) -> Any:
            began = time.perf_counter()
            rows = look(step)
            self.looks.setdefault(recorder.table, []).append(time.perf_counter() - began)
            return rows

        recorder.rows = timed

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        (training_callback,) = (c for c in trainer.callbacks if isinstance(c, TrainingCallback))
        for recorder in training_callback.recorders:
            self.wrap(recorder)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.began = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.steps.append(time.perf_counter() - self.began)


def _made(*words: str) -> Experiment:
    with search_path() as own:
        return Experiment(compose(words, own))


def _peaks(made: Experiment) -> dict[str, float]:
    """Give the peak of a statistics pass over that of the same pass by SDPA, and of a step."""
    model, split = made.model, made.dataset.splits["validation"]
    batch = split.batch(np.arange(made.batch_size))
    asked: Batch = made.objective.training_batch(batch)

    def forward() -> None:
        with isolated_evaluation(model), torch.no_grad():
            model(*asked.model_inputs)

    def step() -> None:
        logits, extra = model.train()(*asked.model_inputs)
        (made.objective.train_loss(logits, asked.targets) + sum(extra.values())).backward()

    def measure() -> None:
        head_statistics(made.subject, [batch], compare_heads=False)

    def most(work: Callable[[], None]) -> int:
        with Peak() as peak:
            work()
        return peak.most

    whole, trained, looked = most(forward), most(step), most(measure)
    return {"statistics / SDPA's forward": looked / whole, "statistics / a step": looked / trained}


def _sizes(experiment: Experiment, directory: Path) -> dict[str, int]:
    """Count the bytes that a later look adds to each table."""
    attempt = Attempt.claim(directory / "sizes", {"bench": "size"})
    names = {
        "patterns": "8 probes: 6 layers x 8 heads x 64 tokens",
        "heads": "statistics of 6 layers x 8 heads",
        "vectors": "128 tokens, d=64",
    }
    sizes = {}
    for recorder in experiment.recorders(experiment.subject):
        path = attempt.path / f"{recorder.table}.arrow"
        for step in (0, 1):
            before = path.stat().st_size if path.exists() else 0
            attempt.append(recorder.table, recorder.rows(step))
        sizes[names[recorder.table]] = path.stat().st_size - before
        if recorder.table == "patterns":
            sizes["1 of these probes"] = sizes[names["patterns"]] // 8
    return sizes


if __name__ == "__main__":
    for name, value in ratios().items():
        print(f"{name:<72} {value:.3f}")
