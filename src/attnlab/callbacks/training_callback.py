"""The callback that does after each optimizer step what the cadence says is due."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytorch_lightning as pl
from torch.nn.modules.module import register_module_forward_pre_hook

from attnlab.callbacks.base import Recorder
from attnlab.callbacks.cadence import Cadence
from attnlab.callbacks.early_stop import EarlyStop
from attnlab.callbacks.stopwatch import Stopwatch
from attnlab.interruption import Interrupted, listen_to_signals, stop_requested
from attnlab.process_state import random_states, restore_random_states
from attnlab.run_record.attempt import Attempt
from attnlab.training import Training


@contextmanager
def beat_on_forward(beat: Callable[[], None]) -> Iterator[None]:
    """Call `beat` before the forward pass of every module, so that a hung process does not beat."""
    hook = register_module_forward_pre_hook(lambda module, inputs: beat())
    try:
        yield
    finally:
        hook.remove()


class RowListener:
    """Receives the rows that are written to the record, like a progress bar or a logger."""

    def receive_rows(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Receive new rows of a table, in order of their steps; each row is passed once."""


class TrainingCallback(pl.Callback):
    """Writes rows, validates, runs recorders, and saves, at optimizer steps in that order.

    Saves the random states, so that a resumed run draws the same numbers as an uninterrupted one.
    """

    def __init__(
        self,
        cadence: Cadence,
        attempt: Attempt,
        evaluate: Callable[[str], dict[str, float]],
        early_stop: EarlyStop | None = None,
        recorders: Sequence[Recorder] = (),
        listeners: Sequence[RowListener] = (),
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self.cadence, self.attempt, self.evaluate = cadence, attempt, evaluate
        self.stopwatch = stopwatch or Stopwatch()
        self.early_stop, self.recorders, self.listeners = early_stop, recorders, listeners
        self.step, self.stopped_early = 0, False
        self._random_states: dict[str, Any] | None = None

    @property
    def state_key(self) -> str:
        # The class's first name: Lightning would look for the state under today's name, and
        # checkpoints of 0.1 have it under this one.
        return "Timekeeper"

    def state_dict(self) -> dict[str, Any]:
        stop = self.early_stop.state_dict() if self.early_stop else None
        return {
            "random": random_states(),
            "early_stop": stop,
            "stopped": self.stopped_early,
            "stopwatch": self.stopwatch.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._random_states = state_dict["random"]
        self.stopped_early = state_dict["stopped"]
        self.stopwatch.load_state_dict(state_dict.get("stopwatch"))
        if self.early_stop and state_dict["early_stop"]:
            self.early_stop.load_state_dict(state_dict["early_stop"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.step, trainer.should_stop = trainer.global_step, self.stopped_early
        if self._random_states is not None:
            restore_random_states(self._random_states)
        # Lightning has set its own signal handlers, and restores ours at the end.
        listen_to_signals()
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
        cadence, is_interrupted = self.cadence, stop_requested()
        # A callback of the user may have ended training.
        self.stopped_early = self.stopped_early or trainer.should_stop
        if cadence.writes(step) or is_interrupted:
            # Before all else: `drain` raises for a diverged model, which is not validated or saved.
            rows = pl_module.drain()
            self._write("train", rows)
        if cadence.validates(step) or self.stopped_early:
            values = self._evaluate("validation")
            if self.early_stop and self.early_stop.should_stop(values):
                trainer.should_stop = self.stopped_early = True
        is_stopping = self.stopped_early
        if cadence.tests(step) or (is_stopping and cadence.test_every is not None):
            self._evaluate("test")
        self._record(step)
        if cadence.saves(step) or is_interrupted or self.stopped_early:
            trainer.save_checkpoint("")
        if is_interrupted:
            raise Interrupted(step)

    def _evaluate(self, split: str) -> dict[str, float]:
        with self._beating_at_step():
            values = self.evaluate(split)
        self._write(split, [{"step": self.step, **values}])
        return values

    def _record(self, step: int) -> None:
        for recorder in self.recorders:
            if recorder.is_due(self.cadence, step) or self.stopped_early:
                with self._beating_at_step():
                    rows = recorder.rows(step)
                self._write(recorder.table, rows)

    def _beating_at_step(self) -> AbstractContextManager:
        return beat_on_forward(lambda: self.attempt.beat(self.step))

    def _write(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        if not rows:
            return
        self.attempt.append(table, rows)
        for listener in self.listeners:
            listener.receive_rows(table, rows)
