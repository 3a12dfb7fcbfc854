"""Reports of vectors have what the model reads and what the run recorded."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from attnlab.analysis.embedding_report import (
    EmbeddingHistory,
    embedding_history,
    embedding_plane,
    embedding_report,
    token_ids_by_frequency,
)
from attnlab.errors import RequestError
from attnlab.loaded_run import LoadedRun
from attnlab.run_record import vectors
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.record import Record
from tests.prose import refuses


def recorded(run: LoadedRun, path: Path, *steps: np.ndarray) -> EmbeddingHistory:
    """Return the course of a run that recorded these vectors."""
    attempt = Attempt.claim(path / "run", {"seed": 0})
    for step, values in enumerate(steps):
        attempt.append(vectors.TABLE, [vectors.vectors_row(10 * step, values)])
    attempt.close()
    object.__setattr__(run, "record", Record(path / "run"))
    return embedding_history(run)


def test_the_most_frequent_tokens_of_validation_come_first(offer):
    run = offer("dataset=pronoun")
    batch = run.dataset.splits["validation"].batch(np.arange(256))
    counts = Counter(batch.inputs[batch.valid].tolist())
    order = token_ids_by_frequency(run)
    assert sorted(order) == list(range(len(run.objective.inputs)))
    assert [counts[at] for at in order] == sorted(map(counts.__getitem__, order), reverse=True)


def test_neighbours_are_those_of_the_vectors(offer):
    run = offer("dataset=pronoun")
    order, embeddings = token_ids_by_frequency(run), run.embeddings
    of_all, of_one = embedding_report(run, count=5), embedding_report(run, "street")
    assert [token.token for token in of_all.neighbours] == [
        embeddings.tokens[n] for n in order[:12]
    ]
    assert [token.token for token in of_one.neighbours] == ["street"]
    for report, count in ((of_all, 5), (of_one, 10)):
        assert (report.run, report.step) == (run.record.name, run.step)
        for token in report.neighbours:
            near = [(neighbour.token, neighbour.cosine) for neighbour in token.near]
            assert near == embeddings.neighbours(token.token, count)


def test_a_plane_keeps_the_distances_that_two_components_can(offer):
    run = offer("dataset=pronoun", "model.d_model=2", "model.mixer.num_heads=1")
    plane, embeddings = embedding_plane(run), run.embeddings
    assert plane.shares.sum() == pytest.approx(1)
    at = [list(embeddings.tokens).index(token) for token in plane.tokens]
    expected = torch.cdist(embeddings.vectors[at].double(), embeddings.vectors[at].double())
    torch.testing.assert_close(torch.cdist(plane.places, plane.places), expected)


def test_a_course_ends_where_it_is_told_from(offer, tmp_path):
    run = offer("dataset=pronoun")
    last = run.embeddings.vectors[:30].numpy()
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0]
    course = recorded(
        run, tmp_path, np.random.default_rng(1).normal(size=last.shape), last @ turn, last
    )
    assert course.steps.tolist() == [0, 10, 20]
    # A turned copy holds the same tokens alike, but for the record's rounding.
    assert course.drift[0] > 0.2
    assert course.drift[1:] == pytest.approx([0, 0], abs=1e-3)
    assert course.turnover[0] > 0.2
    assert course.turnover[1] < 0.1
    assert course.turnover[2] == 0
    assert tuple(course.places.shape) == (3, 30, 2)
    torch.testing.assert_close(course.places[1], course.places[2], atol=0.05, rtol=0)
    assert set(course.tokens) == set(run.embeddings.tokens[:30])
    assert course.to_json()["drift"] == course.drift


def test_what_has_no_course_or_plane_is_refused(offer, tmp_path):
    run = offer("dataset=pronoun", "variant=lstm")
    line = run.embeddings.vectors[:, :1].numpy()
    with refuses(RequestError, "analysis.embedding_report.one_step"):
        recorded(run, tmp_path / "a", line)
    with refuses(RequestError, "analysis.embedding_report.no_plane"):
        recorded(run, tmp_path / "b", line, line)
