"""The progress of a run: a bar on a terminal, and a line now and then elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple

import pytorch_lightning as pl
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

from attnlab.callbacks.training_callback import RowListener
from attnlab.console import Console

SECONDS_BETWEEN_LINES = 30.0
"""The least time between two lines where there is no terminal."""
LABELS = {
    ("train", "loss"): "loss",
    ("validation", "loss"): "val",
    ("validation", "accuracy"): "acc",
}


class Pace(NamedTuple):
    """How fast a run trains, with all that it does meanwhile."""

    steps_per_second: float
    tokens_per_second: float

    def __str__(self) -> str:
        steps, tokens = self
        return f"{_short_number(steps)} steps/s {_short_number(tokens)} tok/s"


class ProgressBar(RowListener, pl.Callback):
    """Shows step, speed, loss, the last validation and the time left of the run and of its sweep.

    `sweep_left` returns the seconds that the other runs of the sweep take; None if unknown.
    """

    def __init__(
        self,
        console: Console,
        title: str,
        max_steps: int,
        tokens_per_step: int = 0,
        sweep_left: Callable[[], float | None] = lambda: None,
    ) -> None:
        self.console, self.title, self.max_steps = console, title, max_steps
        self.tokens_per_step, self.sweep_left = tokens_per_step, sweep_left
        self.bar = Progress(
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            BarColumn(bar_width=20),
            TextColumn("{task.completed}/{task.total}"),
            console=console,
            expand=True,
        )
        self.task = self.bar.add_task(title, total=max_steps)
        self.values: dict[tuple[str, str], float] = {}
        self.step = 0
        self.pace_of_training: Pace | None = None
        self._first_step, self._start_time, self._last_line_time = 0, monotonic(), monotonic()
        # It draws at once, so it comes last.
        self.live = Live(console=console, transient=True, get_renderable=self._render)

    def __enter__(self) -> "ProgressBar":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.pace_of_training = self.pace
        self.live.stop()

    @property
    def pace(self) -> Pace | None:
        """The mean pace since training began here; None before the first step."""
        num_steps, seconds = self.step - self._first_step, monotonic() - self._start_time
        if num_steps <= 0 or seconds <= 0:
            return None
        steps_per_second = num_steps / seconds
        return Pace(steps_per_second, steps_per_second * self.tokens_per_step)

    def receive_rows(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        last_row = rows[-1] if rows else {}
        # The step counts as done: its rows come before Lightning tells of its end here.
        self.step = max(self.step, last_row.get("step", 0))
        new_values = {
            key: last_row[key[1]] for key in LABELS if key[0] == table and key[1] in last_row
        }
        # A new dict, as the terminal's own thread may be reading the old one.
        self.values = {**self.values, **new_values}
        self._update()
        is_due = monotonic() - self._last_line_time >= SECONDS_BETWEEN_LINES
        if table == "validation" and is_due and not self.console.is_terminal:
            self._last_line_time = monotonic()
            self.console.print(
                f"{self.title}: step {self.step}/{self.max_steps}  {self.describe()}"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.step = self._first_step = trainer.global_step
        self._start_time = self._last_line_time = monotonic()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.step = trainer.global_step
        self._update()

    def describe(self) -> str:
        """Return speed, loss, the last validation and the time left, in one line."""
        texts = [f"{LABELS[name]} {value:.3f}" for name, value in self.values.items()]
        pace = self.pace
        if pace is not None:
            seconds_left = (self.max_steps - self.step) / pace.steps_per_second
            time_left = f"{format_seconds(seconds_left)} left"
            sweep_seconds_left = self.sweep_left()
            if sweep_seconds_left is not None:
                time_left += f", sweep {format_seconds(sweep_seconds_left + seconds_left)}"
            texts = [str(pace), *texts, time_left]
        return "  ".join(texts)

    def _update(self) -> None:
        # Where nothing is shown, nothing is computed for it.
        if self.live.is_started:
            self.bar.update(self.task, completed=self.step)

    def _render(self) -> Table:
        """Return the bar and, below it, the numbers that do not fit beside it in 80 columns."""
        lines = Table.grid(expand=True)
        lines.add_row(self.bar.make_tasks_table(self.bar.tasks))
        lines.add_row(Text(self.describe(), no_wrap=True, overflow="ellipsis"))
        return lines


def format_seconds(seconds: float | int) -> str:
    """Return a duration as `0:42`, `12:05` or `3:20:00`."""
    minutes, remaining_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours}:{minutes:02}:{remaining_seconds:02}"
        if hours
        else f"{minutes}:{remaining_seconds:02}"
    )


def _short_number(number: float | int) -> str:
    """Return a number with two or three digits: `3.1`, `42`, `41k`, `1.2M`."""
    for size, unit in ((1e6, "M"), (1e3, "k"), (1, "")):
        if number >= size:
            scaled = number / size
            return f"{scaled:.1f}{unit}" if scaled < 10 else f"{scaled:.0f}{unit}"
    return f"{number:.2g}"
