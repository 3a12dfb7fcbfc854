"""What is recorded beside the patterns: statistics of the heads, and vectors."""

import numpy as np
import pytest
import torch

from attnlab.callbacks.head_scores import HeadRecorder
from attnlab.callbacks.vectors import VectorRecorder
from attnlab.config.callbacks import build_recorders
from attnlab.experiment import Experiment
from attnlab.interp.head_stats import head_statistics
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.record import Record
from attnlab.run_record.vectors import ERROR
from attnlab.run_record.vectors import load_vectors as recorded_vectors
from attnlab.run_record.vectors import vectors_row as vector_row
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


@pytest.fixture(scope="module")
def experiment(once) -> Experiment:
    """An untrained model of an encoder and a decoder, in batches of 10."""
    return Experiment(once("dataset=reversal", "model.d_model=16", "batch_size=10"))


@pytest.mark.parametrize(
    ("knobs", "count", "pairs"), [({}, 10, False), ({"num_examples": 3, "pairs": True}, 3, True)]
)
def test_as_many_sequences_are_measured_as_are_asked_for(experiment, knobs, count, pairs):
    subject, split = experiment.subject, experiment.dataset.splits["validation"]
    expected = head_statistics(subject, split, num_examples=count, compare_heads=pairs)
    rows = HeadRecorder(subject, **knobs).rows(4)
    assert len(rows) == sum(map(len, expected.values()))
    measured = {(row["layer"], row["measure"]): row["heads"] for row in rows}
    assert {row["step"] for row in rows} == {4}
    for layer, measures in expected.items():
        for name, values in measures.items():
            found = torch.tensor(measured[layer.path, name])
            torch.testing.assert_close(found, values, equal_nan=True)
    assert ("nearest_head" in {name for _, name in measured}) == pairs


def test_as_many_vectors_are_kept_as_are_asked_for(experiment):
    vectors = experiment.model.token_vectors
    assert vectors is not None
    (row,) = VectorRecorder(experiment.subject, num_tokens=2).rows(4)
    names = experiment.objective.inputs
    assert row == vector_row(4, vectors[:2].detach().numpy(), names[:2])
    (row,) = VectorRecorder(experiment.subject).rows(4)
    assert row == vector_row(4, vectors.detach().numpy()[:128], names[:128])


def test_a_model_without_heads_or_vectors_has_no_rows(once, experiment, monkeypatch):
    lstm = Experiment(once("dataset=pronoun", "variant=lstm", "model.d_model=16"))
    assert HeadRecorder(lstm.subject).rows(4) == []
    assert len(VectorRecorder(lstm.subject).rows(4)) == 1
    monkeypatch.setattr(type(experiment.model), "token_vectors", None)
    assert VectorRecorder(experiment.subject).rows(4) == []


def test_impossible_knobs_are_refused(experiment):
    subject = experiment.subject
    refused_calls(
        "callbacks.keepers.{}",
        {
            "num_examples": lambda: HeadRecorder(subject, num_examples=0),
            "num_tokens": lambda: VectorRecorder(subject, num_tokens=0),
        },
    )


def test_layers_are_measured_in_the_order_of_their_numbers(experiment):
    _, statistics, *_ = build_recorders(experiment.config, experiment.subject)
    assert isinstance(statistics, HeadRecorder)
    paths = list(dict.fromkeys(row["layer"] for row in statistics.rows(0)))
    assert paths == [layer.path for layer in experiment.model.attention_layers()]
    assert paths[0].startswith("blocks.")
