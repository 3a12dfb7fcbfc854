"""A run of `attnlab train` whose steps are looked into, between the logged ones."""

import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch.profiler import record_function

from attnlab.config import compose, search_path
from attnlab.experiment import Experiment
from attnlab.fit import fit
from attnlab.run_record.attempt import Attempt
from bench.gpu import events
from bench.step import Noise

FIRST = 11
"""The first step that is looked into comes after this one, which is just after a logged one."""
STEPS = 3
"""So many steps are watched for synchronising calls, and as many profiled; nothing of them is due
to be written, which would make the host wait."""
MARK = "attnlab.step"
SYNCHRONISES = "called a synchronizing CUDA operation"
"""What torch warns of when it is asked to (`torch.cuda.set_sync_debug_mode`)."""


class Seen(NamedTuple):
    """What happened in STEPS training steps, the fetching of their batches included."""

    events: list[Any]
    places: Counter[str]
    """Where torch was called with what makes the host wait, as FILE:LINE."""


def watch(words: Sequence[str], length: int, device: torch.device) -> Seen:
    """Train as `attnlab train` does, on random tokens, and look into its steps."""
    with search_path() as own:
        config = compose(
            [
                *(
                    "dataset=mqar",
                    "callbacks.recorder=null",
                    "trainer.val_check_interval=${trainer.max_steps}",
                ),
                *(f"trainer.max_steps={FIRST + 2 * STEPS + 2}", "trainer.precision=bf16-mixed"),
                f"trainer.accelerator={'gpu' if device.type == 'cuda' else 'cpu'}",
                *words,
            ],
            own,
        )
    experiment = Experiment(config)
    experiment.dataset = Noise(length)
    watcher = Watcher(device)
    with tempfile.TemporaryDirectory() as directory:
        attempt = Attempt.claim(Path(directory, "run"), {"bench": "gpu"})
        fit(experiment, attempt, None, callbacks=[watcher])
    return Seen(watcher.events, watcher.places)


class Watcher(pl.Callback):
    """First lets torch warn of calls that synchronise, then profiles."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stack = device, ExitStack()
        self.warned: list[warnings.WarningMessage] = []
        self.events: list[Any] = []
        self.places: Counter[str] = Counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step - FIRST
        if step in (0, STEPS, 2 * STEPS):
            self.stack.close()
        if step == 0 and self.device.type == "cuda":
            self.warned = self.stack.enter_context(warnings.catch_warnings(record=True))
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            self.stack.callback(torch.cuda.set_sync_debug_mode, "default")
        if step == STEPS:
            found = [w for w in self.warned if SYNCHRONISES in str(w.message)]
            self.places = Counter(f"{Path(w.filename).name}:{w.lineno}" for w in found)
            self.events = self.stack.enter_context(events.profiled(self.device))
            self.stack.enter_context(record_function(MARK))
