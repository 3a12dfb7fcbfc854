"""A training step of attnlab against a bare loop and lean GPTs, in turn, in one process."""

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.nn import functional as F

from attnlab.assemble import Experiment
from attnlab.config import compose, search_path
from attnlab.dataset.loader import Loader
from attnlab.metric.top_k import top_k
from attnlab.optimizer.adamw import AdamW
from attnlab.runs.attempt import Attempt
from bench.lean_gpt import LeanGPT

CHUNK, ROUNDS, NUM_METRICS = 20, 15, 20
OVERRIDES = (
    "dataset=mqar",
    "variant=multihead",
    "depth=base",
    "size=small",
    f"trainer.max_steps={CHUNK * (ROUNDS + 1)}",
    "trainer.val_check_interval=1000000",
    "dataset.num_train=2000",
)


def ratios() -> dict[str, float]:
    """Time a step of 64 x 64 tokens at 2 layers, d=64, fp32, with 20 metrics; medians of rounds."""
    with search_path() as trusted:
        experiment = Experiment(compose(OVERRIDES, trusted))
    # loss, grad_norm and lr are three of them.
    experiment.metrics = {f"top_{k}": _metric(k) for k in range(1, NUM_METRICS - 2)}
    others = {"bare": _bare(experiment), **_lean(experiment)}
    turns = Turns(others)
    with tempfile.TemporaryDirectory() as directory:
        attempt = Attempt.claim(Path(directory, "run"), {"bench": "step"})
        training = experiment.training()
        timekeeper = experiment.timekeeper(training, attempt, lambda step, values: None)
        experiment.fit(training, timekeeper, None, [turns])
    step = {name: statistics.median(times) for name, times in turns.times.items()}

    def ratio(one: str, other: str) -> float:
        pairs = zip(turns.times[one], turns.times[other], strict=True)
        return statistics.median(a / b for a, b in pairs)

    return {
        "attnlab step, ms": 1000 * step["attnlab"] / CHUNK,
        "attnlab / bare loop": ratio("attnlab", "bare"),
        "lean GPT (SDPA) / attnlab": ratio("SDPA", "attnlab"),
        "lean GPT (explicit) / attnlab": ratio("explicit", "attnlab"),
        "lean GPT (SDPA) / attnlab's model in a bare loop": ratio("SDPA", "bare"),
        "lean GPT (explicit) / attnlab's model in a bare loop": ratio("explicit", "bare"),
    }


class Turns(pl.Callback):
    """Lets the others run a chunk of steps after each chunk of attnlab's; the first warms up."""

    def __init__(self, others: dict[str, Callable[[], None]]) -> None:
        self.others, self.times = others, defaultdict(list)
        self.began = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        step = trainer.global_step
        if step % CHUNK:
            return
        if step > CHUNK:
            self.times["attnlab"].append(time.perf_counter() - self.began)
        for name, run in self.others.items():
            began = time.perf_counter()
            for _ in range(CHUNK):
                run()
            if step > CHUNK:
                self.times[name].append(time.perf_counter() - began)
        self.began = time.perf_counter()


def _metric(k: int) -> Any:
    return lambda logits, targets: top_k(logits, targets, k=k)


def _bare(experiment: Experiment) -> Callable[[], None]:
    """Train a model of the same kind on the same batches with nothing around it."""
    with search_path() as trusted:
        model = Experiment(compose(OVERRIDES, trusted)).model
    return _loop(model, experiment, lambda b: model(b.inputs, b.at)[0])


def _lean(experiment: Experiment) -> dict[str, Callable[[], None]]:
    dataset, loops = experiment.dataset, {}
    for name, fused in (("SDPA", True), ("explicit", False)):
        model = LeanGPT(len(dataset.tokens), dataset.max_length, 2, 64, 4, fused)
        loops[name] = _loop(model, experiment, lambda b, model=model: model(b.inputs, b.at))
    return loops


def _loop(model: Any, experiment: Experiment, forward: Callable[..., Any]) -> Callable[[], None]:
    optimizer = AdamW()(model)
    batches = iter(Loader(experiment.dataset.splits["train"], experiment.batch_size, 0))

    def step() -> None:
        batch = next(batches)
        logits = forward(batch)
        loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


if __name__ == "__main__":
    for name, value in ratios().items():
        print(f"{name:<56} {value:.3f}")
