"""Runs of every kind that `attnlab attend` can be asked of, untrained."""

from collections.abc import Callable
from functools import cache

import pytest

from attnlab.cli import main
from attnlab.loaded_run import LoadedRun
from tests.untrained import untrained

TEXT = "The animal didn't cross the street because it was too tired."
SMALL = [f"dataset.num_{split}=20" for split in ("train", "validation", "test")]
RUNS = {
    "multihead": (),
    "lstm": ("variant=lstm",),
    "linear": ("model/mixer=linear_attention",),
    "seq2seq": ("dataset=reversal",),
    "seq2seq lstm attention": ("dataset=reversal", "variant=lstm_attention"),
    "autoencoder": ("objective=autoencoder", "evidence=none"),
}


@pytest.fixture(scope="session")
def built(composed) -> Callable[..., LoadedRun]:
    """Build each run once: no command changes it."""
    small = ("model.num_layers=2", "model.d_model=16", *SMALL)
    return cache(lambda *words: untrained(composed(*small, *words)))


@pytest.fixture
def offer(built, monkeypatch) -> Callable[..., tuple[LoadedRun, str]]:
    def give(name: str, *words: str) -> tuple[LoadedRun, str]:
        run = built(*RUNS[name], *words)
        monkeypatch.setattr("attnlab.loaded_run.load", lambda *_, **__: run)
        return run, "d a c b" if "dataset=reversal" in RUNS[name] else TEXT

    return give


def shown(capsys, *words: str) -> str:
    assert main(["attend", "untrained", *words]) == 0
    return capsys.readouterr().out
