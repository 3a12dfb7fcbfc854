"""Does after each optimizer step what the clock says is due."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook

from attnlab.callbacks.base import Recorder
from attnlab.callbacks.clock import Clock
from attnlab.callbacks.early_stop import EarlyStop
from attnlab.interruption import Interrupted, asked, listen
from attnlab.run_record.attempt import Attempt
from attnlab.training import Training


@contextmanager
def beating(beat: Callable[[], None]) -> Iterator[None]:
    """Beat wherever a layer of any model begins to compute: not while a process stands still."""
    hook = register_module_forward_pre_hook(lambda module, inputs: beat())
    try:
        yield
    finally:
        hook.remove()


class Watcher:
    """Somebody who is told what the record is told: a progress bar, a logger."""

    def read(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take new rows of a table, in order of their steps; nothing is added to them later."""


class Timekeeper(pl.Callback):
    """Validates, writes rows and what recorders see, and saves, at optimizer steps in that order.

    Holds the random states, so that a resumed run draws what the first one would have drawn.
    """

    def __init__(
        self,
        clock: Clock,
        attempt: Attempt,
        evaluate: Callable[[str], dict[str, float]],
        early_stop: EarlyStop | None = None,
        recorders: Sequence[Recorder] = (),
        watchers: Sequence[Watcher] = (),
    ) -> None:
        self.clock, self.attempt, self.evaluate = clock, attempt, evaluate
        self.early_stop, self.recorders, self.watchers = early_stop, recorders, watchers
        self.step, self.stopped_early = 0, False
        self._random_states: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        stop = self.early_stop.state_dict() if self.early_stop else None
        return {"random": _random_states(), "early_stop": stop, "stopped": self.stopped_early}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._random_states = state_dict["random"]
        self.stopped_early = state_dict["stopped"]
        if self.early_stop and state_dict["early_stop"]:
            self.early_stop.load_state_dict(state_dict["early_stop"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.step, trainer.should_stop = trainer.global_step, self.stopped_early
        if self._random_states is not None:
            _restore(self._random_states)
        # Lightning has put handlers of its own, and restores the old ones.
        listen()
        self.attempt.beat(self.step)
        if self.step == 0:
            self._record(0)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.attempt.beat(trainer.global_step)
        if trainer.global_step == self.step:
            return
        assert isinstance(pl_module, Training)
        self.step = step = trainer.global_step
        due, stops = self.clock, asked()
        # A callback of the user's own may end training.
        self.stopped_early = self.stopped_early or trainer.should_stop
        if due.writes(step) or stops:
            # First of all, so that a broken model is neither validated nor saved.
            rows = pl_module.drain()
            self._write("train", rows)
        if due.validates(step) or self.stopped_early:
            values = self._evaluate("validation")
            if self.early_stop and self.early_stop.should_stop(values):
                trainer.should_stop = self.stopped_early = True
        ends = self.stopped_early
        if due.tests(step) or (ends and due.test_every is not None):
            self._evaluate("test")
        self._record(step)
        if due.saves(step) or stops or self.stopped_early:
            trainer.save_checkpoint("")
        if stops:
            raise Interrupted(step)

    def _evaluate(self, split: str) -> dict[str, float]:
        with self._beating():
            values = self.evaluate(split)
        self._write(split, [{"step": self.step, **values}])
        return values

    def _record(self, step: int) -> None:
        for recorder in self.recorders:
            if recorder.due(self.clock, step) or self.stopped_early:
                with self._beating():
                    rows = recorder.rows(step)
                self._write(recorder.table, rows)

    def _beating(self) -> AbstractContextManager:
        return beating(lambda: self.attempt.beat(self.step))

    def _write(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        if not rows:
            return
        self.attempt.append(table, rows)
        for watcher in self.watchers:
            watcher.read(table, rows)


def _random_states() -> dict[str, Any]:
    # Tensors and plain values only: a checkpoint is loaded with weights_only=True.
    name, keys, at, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), at, has_gauss, cached),
    }


def _restore(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    cuda: list[Tensor] = states["cuda"]
    if cuda and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(cuda)
    random.setstate(states["python"])
    name, keys, at, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), at, has_gauss, cached))  # noqa: NPY002
