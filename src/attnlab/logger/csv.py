"""A logger that writes one CSV file."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import UInt8

from attnlab.logger.base import LoggedRun, Logger


class CSV(Logger):
    """Writes csv/metrics.csv, a row for each set of values, and config and summary beside it.

    Each row has step, tokens and flops. What a row did not measure is empty in it: training and
    validation have rows of their own.
    """

    tool = "csv"

    def start(self, directory: Path, run: LoggedRun) -> None:
        from pytorch_lightning.loggers import CSVLogger

        self._run, self._directory = run, directory / "csv"
        # By default it writes at steps that end in 99, which rows of every tenth step never reach.
        self._logger = CSVLogger(directory, "csv", version="", flush_logs_every_n_steps=1)
        self._logger.log_hyperparams(run.config)

    def log_scalars(self, step: int, values: Mapping[str, int | float]) -> None:
        self._logger.log_metrics({**self._run.axes(step), **values}, step)

    def log_picture(self, step: int, name: str, pixels: UInt8[np.ndarray, "height width"]) -> None:
        """Do nothing: a CSV file has no place for it."""

    def log_page(self, step: int, name: str, html: Callable[[], str]) -> None:
        """Do nothing: a CSV file has no place for it."""

    def log_summary(self, values: Mapping[str, int | float | str]) -> None:
        text = yaml.safe_dump(dict(values), sort_keys=False)
        (self._directory / "summary.yaml").write_text(text, encoding="utf-8")

    def log_files(self, pack_files: Callable[[], Mapping[str, Path]]) -> None:
        """Do nothing: the tables lie in the attempt's directory already."""

    def end(self, status: str) -> None:
        self._logger.finalize(status)
