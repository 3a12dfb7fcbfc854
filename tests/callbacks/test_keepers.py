"""What is kept beside the patterns: statistics of the heads, and vectors."""

import numpy as np
import torch

from attnlab.assemble import Experiment
from attnlab.callbacks.statistics import Statistics
from attnlab.callbacks.vectors import Vectors
from attnlab.evidence.intervene import attention_layers
from attnlab.runs.attempt import Attempt
from attnlab.runs.record import Record
from attnlab.runs.vectors import ERROR
from attnlab.runs.vectors import recorded as recorded_vectors
from attnlab.runs.vectors import row as vector_row
from tests.refused_calls import refused_calls


def test_vectors_of_attempts_that_kept_other_numbers_are_read_together(tmp_path):
    attempt = Attempt.claim(tmp_path / "run", {"seed": 0})
    few, many = np.random.default_rng(0).normal(size=(2, 5, 4))
    attempt.append("vectors", [vector_row(0, few[:3]), vector_row(7, many)])
    attempt.close()
    steps, vectors = recorded_vectors(Record(tmp_path / "run"))
    assert steps.tolist() == [0, 7]
    assert vectors.shape == (2, 3, 4)
    largest = np.abs(many[:3]).max(axis=1, keepdims=True)
    assert (np.abs(vectors[1] - many[:3]) <= largest * (ERROR + 1e-6)).all()


def test_as_many_sequences_and_vectors_are_kept_as_are_asked_for():
    asked = []

    def measure(count: int, pairs: bool) -> dict:
        asked.append((count, pairs))
        return {"blocks.0.mixer.attend": {"confidence": torch.tensor([0.5, 0.25])}}

    for knobs in ({}, {"num_examples": 3, "pairs": True}):
        (row,) = Statistics(10, measure, **knobs).rows(4)
        assert (row["step"], row["layer"]) == (4, "blocks.0.mixer.attend")
    assert asked == [(10, False), (3, True)]
    vectors = torch.arange(12.0).reshape(6, 2)
    (row,) = Vectors(lambda: vectors, num_tokens=2).rows(4)
    assert row == vector_row(4, vectors[:2].numpy())
    refused_calls(
        "callbacks.keepers.{}",
        {
            "num_examples": lambda: Statistics(10, measure, num_examples=0),
            "num_tokens": lambda: Vectors(lambda: vectors, num_tokens=0),
        },
    )


def test_layers_are_measured_in_the_order_of_their_numbers(composed):
    experiment = Experiment(composed("dataset=reversal", "model.d_model=16"))
    _, statistics, *_ = experiment.keepers()
    layers = list(dict.fromkeys(row["layer"] for row in statistics.rows(0)))
    assert layers == attention_layers(experiment.model)
    assert layers[0].startswith("blocks.")
