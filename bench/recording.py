"""Recording 8 probes at the default cadence: its share of training time, and its size."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from attnlab.assemble import Experiment
from attnlab.callbacks.recorder import Recorder
from attnlab.callbacks.timekeeper import Watcher
from attnlab.config import compose, search_path
from attnlab.evidence.look import look
from attnlab.runs.attempt import Attempt
from attnlab.runs.patterns import TABLE, Pattern

STEPS = 30
"""Steps that are timed; the cadence of a run of 1,000 and of 100 is then counted."""
MEDIUM = (
    *("dataset=mqar", "dataset.length=256", "dataset.num_pairs=16", "dataset.num_train=2000"),
    *("variant=multihead", "depth=deep", "size=large", "batch_size=16"),
    *(f"trainer.max_steps={STEPS}", "trainer.val_check_interval=1000000"),
)
SIZED = (
    *("dataset=mqar", "dataset.num_train=200", "variant=multihead", "model.num_layers=6"),
    *("model.mixer.num_heads=8", "size=small"),
)


def ratios() -> dict[str, float]:
    """Train 4 layers, d=256, on 16 x 256 tokens, and record within the same run."""
    with search_path() as trusted:
        medium, sized = (Experiment(compose(words, trusted)) for words in (MEDIUM, SIZED))
    clock, training = Times(), medium.training()
    with tempfile.TemporaryDirectory() as directory:
        attempt = Attempt.claim(Path(directory, "run"), {"bench": "recording"})
        timekeeper = medium.timekeeper(training, attempt)
        clock.wrap(timekeeper)
        medium.fit(training, timekeeper, None, [clock])
        recording, size = statistics.median(clock.recordings), _size(sized, Path(directory))
    step = statistics.median(clock.steps)

    def share(steps: int) -> float:
        with search_path() as trusted:
            words = (*MEDIUM, f"trainer.max_steps={steps}")
            times = len(Experiment(compose(words, trusted)).clock.recorded)
        return times * recording / (steps * step)

    return {
        "a step, ms": 1000 * step,
        "a recording of 8 probes, ms": 1000 * recording,
        "recording / training, in a run of 1,000 steps": share(1000),
        "recording / training, in a run of 100 steps": share(100),
        "MB a recorded step, 1 probe: 6 layers x 8 heads x 64 tokens": size[0] / 1e6,
        "MB a recorded step, 8 probes of these": size[1] / 1e6,
    }


class Times(Watcher, pl.Callback):
    """Times steps, without what follows them, and recordings."""

    def __init__(self) -> None:
        self.steps, self.recordings, self.began = [], [], 0.0

    def wrap(self, timekeeper: Any) -> None:
        """Time each recording of a timekeeper, its writing included."""
        record = timekeeper._record

        def timed(step: int) -> None:
            began = time.perf_counter()
            record(step)
            self.recordings.append(time.perf_counter() - began)

        timekeeper._record = timed

    def on_train_batch_start(self, *_: Any) -> None:
        self.began = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps.append(time.perf_counter() - self.began)


def _size(experiment: Experiment, directory: Path) -> list[int]:
    """Count the bytes that a later step adds to the table, for 1 probe and for 8."""
    sizes = []
    for probes in (1, 8):
        recorder = Recorder(
            experiment.dataset,
            lambda probe: look(experiment.model, experiment.objective, probe),
            num_probes=probes,
        )
        attempt = Attempt.claim(directory / f"size-{probes}", {"bench": "size"})
        path = attempt.path / f"{TABLE}.arrow"
        for step in (0, 1):
            patterns: list[Pattern] = recorder.record(step)
            attempt.append(TABLE, [pattern.row() for pattern in patterns])
            sizes.append(path.stat().st_size)
    return [sizes[1] - sizes[0], sizes[3] - sizes[2]]


if __name__ == "__main__":
    for name, value in ratios().items():
        print(f"{name:<62} {value:.3f}")
