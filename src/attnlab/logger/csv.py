"""A logger that writes one CSV file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from attnlab.logger.base import Logger


class CSV(Logger):
    """Writes csv/metrics.csv, a row for each set of values, and the config beside it.

    What a row did not measure is empty in it: training and validation have rows of their own.
    """

    def start(self, directory: Path, name: str, config: Mapping[str, Any]) -> None:
        from pytorch_lightning.loggers import CSVLogger

        # By default it writes at steps that end in 99, which rows of every tenth step never reach.
        self._logger = CSVLogger(directory, "csv", version="", flush_logs_every_n_steps=1)
        self._logger.log_hyperparams(dict(config))

    def scalars(self, step: int, values: Mapping[str, int | float]) -> None:
        self._logger.log_metrics(dict(values), step)

    def picture(self, step: int, name: str, pixels: UInt8[np.ndarray, "height width"]) -> None:
        """Do nothing: a CSV file has no place for it."""

    def page(self, step: int, name: str, html: Callable[[], str]) -> None:
        """Do nothing: a CSV file has no place for it."""

    def files(self, packed: Callable[[], Mapping[str, Path]]) -> None:
        """Do nothing: the tables lie in the attempt's directory already."""

    def end(self, status: str) -> None:
        self._logger.finalize(status)
