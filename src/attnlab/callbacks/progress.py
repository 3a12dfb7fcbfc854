"""The progress bar of a run on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from attnlab.callbacks.training_callback import RowListener
from attnlab.console import Console


class ProgressBar(RowListener, pl.Callback):
    """Shows step, loss and the last validation on the terminal; silent where there is none."""

    def __init__(self, console: Console, title: str, max_steps: int) -> None:
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[values]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task(title, total=max_steps, values="")
        self.values: dict[tuple[str, str], float] = {}

    def __enter__(self) -> "ProgressBar":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def receive_rows(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        last = rows[-1] if rows else {}
        self.values |= {key: last[key[1]] for key in SHOWN if key[0] == table and key[1] in last}
        value_text = "  ".join(f"{SHOWN[name]} {value:.3f}" for name, value in self.values.items())
        self.bar.update(self.task, values=value_text)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.bar.update(self.task, completed=trainer.global_step)


SHOWN = {
    ("train", "loss"): "loss",
    ("validation", "loss"): "val",
    ("validation", "accuracy"): "val acc",
}
