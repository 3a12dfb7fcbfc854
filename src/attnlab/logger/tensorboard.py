"""A logger that writes an event file for TensorBoard."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from attnlab.logger.base import LoggedRun, Logger, require_package


class TensorBoard(Logger):
    """Writes an event file below tensorboard/: `tensorboard --logdir runs` compares runs.

    Values are kept in single precision, as TensorBoard does. `tokens` and `flops` are curves of
    their own.
    """

    tool = "tensorboard"

    def __init__(self) -> None:
        require_package("tensorboard", "'attnlab[tensorboard]'")

    def start(self, directory: Path, run: LoggedRun) -> None:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from torch.utils.tensorboard import SummaryWriter

        self._run, self._last_step = run, -1
        self._writer = SummaryWriter(str(directory / "tensorboard"), flush_secs=10)
        # Lightning's logger and `add_hparams` would add a metric that was not measured, or a run.
        assert self._writer.file_writer is not None
        hparams = dict(_flatten(run.config))
        self._writer.file_writer.add_summary(hparams_pb(hparams, trial_id=run.name))

    def log_scalars(self, step: int, values: Mapping[str, int | float]) -> None:
        # Training, validation and heads may each have values of the same step.
        axes = self._run.axes(step) if step != self._last_step else {}
        self._last_step = step
        for name, value in {**axes, **values}.items():
            self._writer.add_scalar(name, value, step)

    def log_picture(self, step: int, name: str, pixels: UInt8[np.ndarray, "height width"]) -> None:
        self._writer.add_image(name, pixels, step, dataformats="HW")

    def log_page(self, step: int, name: str, html: Callable[[], str]) -> None:
        """Do nothing: TensorBoard cannot show an HTML page."""

    def log_summary(self, values: Mapping[str, int | float | str]) -> None:
        rows = [f"| {name} | {value} |" for name, value in values.items()]
        self._writer.add_text("summary", "\n".join(["| | |", "|---|---|", *rows]))

    def log_files(self, pack_files: Callable[[], Mapping[str, Path]]) -> None:
        """Do nothing: the tables lie in the attempt's directory already."""

    def end(self, status: str) -> None:
        self._writer.close()


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and value of each leaf of a config; what TensorBoard cannot hold, as text."""
    for key, value in config.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{path}.")
        else:
            yield path, value if isinstance(value, (bool, int, float, str)) else str(value)
