"""Runs as if they were loaded, without training: their weights are thrice as large as at first."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from attnlab.config import Config
from attnlab.experiment import Experiment
from attnlab.loaded_run import LoadedRun
from attnlab.run_record.record import Record


def sharp(config: Config) -> Experiment:
    """Build an experiment whose attention, gates and routers are sharp enough to matter."""
    experiment = Experiment(config)
    with torch.no_grad():
        for weights in experiment.model.parameters():
            weights *= 3
    return experiment


def untrained(config: Config) -> LoadedRun:
    """Build a run from its config."""
    experiment, record = sharp(config), Record(Path("runs/untrained"))
    # A record reads its identity from its file once, and this one has none.
    vars(record)["identity"] = experiment.identity
    return LoadedRun(record, 7, experiment, experiment.model.eval())


def offered(
    composed: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., LoadedRun]:
    """Give a function that makes a run from overrides, and lets the commands find it."""

    def offer(*overrides: str) -> LoadedRun:
        run = untrained(composed("model.num_layers=2", "model.d_model=16", *overrides))
        monkeypatch.setattr("attnlab.loaded_run.load", lambda *_, **__: run)
        return run

    return offer
