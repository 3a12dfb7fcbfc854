"""The page of embeddings draws the recorded vectors as `attnlab embed --history` does."""

import numpy as np
import pytest

from attnlab.analysis.embedding_report import embedding_history
from attnlab.analysis.recorded_embeddings import recorded_embeddings, token_kind
from attnlab.interp.embeddings import Embeddings
from attnlab.run_record import vectors
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.record import Record
from tests.dashboard.recorded import TOKENS, ask, recorded


def test_the_history_is_that_of_the_command_in_another_order(offer, tmp_path):
    run = offer("dataset=pronoun")
    tokens = list(run.objective.inputs)
    attempt = Attempt.claim(tmp_path / "run", {"seed": 0})
    random = np.random.default_rng(0)
    for step in (0, 10, 20):
        values = random.normal(size=(len(tokens), 5))
        attempt.append(vectors.TABLE, [vectors.vectors_row(step, values, tokens)])
    attempt.close()
    object.__setattr__(run, "record", Record(tmp_path / "run"))
    printed, drawn = embedding_history(run), recorded_embeddings(run.record).history
    assert (printed.drift, printed.turnover) == (drawn.drift, drawn.turnover)
    order = [tokens.index(token) for token in printed.tokens]
    assert np.array_equal(printed.places.numpy(), drawn.places.numpy()[:, order])


def test_neighbours_are_those_of_the_recorded_vectors(tmp_path):
    import torch

    record = Record(recorded(tmp_path, "multihead"))
    _, values = vectors.load_vectors(record)
    near = Embeddings(TOKENS, torch.from_numpy(values[-1])).neighbours("the", 5)
    embeddings = recorded_embeddings(record, "the")
    assert [(n.token, n.cosine) for n in embeddings.neighbours] == near
    assert embeddings.counts == [1] * len(TOKENS)


def test_a_record_without_names_has_numbers_and_says_so(tmp_path):
    path = recorded(tmp_path, "multihead", tokens=TOKENS)
    file = path / "attempts/1/vectors.arrow"
    file.unlink()
    attempt_rows = np.random.default_rng(0).normal(size=(3, 6, 4))
    other = Attempt.claim(tmp_path / "mqar-old", Record(path).identity)
    for step, values in enumerate(attempt_rows):
        row = vectors.vectors_row(step, values)
        del row["names"]
        other.append(vectors.TABLE, [row])
    other.close()
    embeddings = recorded_embeddings(Record(tmp_path / "mqar-old"))
    assert not embeddings.is_named
    assert list(embeddings.history.tokens) == [f"token {n}" for n in range(6)]
    page = ask(tmp_path).get("/embeddings").text
    assert "does not name its tokens" in page
    assert "attnlab embed mqar-old" in page


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        ("k23", "k with a number"),
        ("the", "word"),
        ("17", "number"),
        (",", "punctuation"),
        ("<end>", "special"),
        (" ", "space"),
        ("", "space"),
    ],
)
def test_a_token_is_of_the_kind_that_it_is_spelled(token, kind):
    assert token_kind(token) == kind


def test_the_slider_moves_the_tokens_and_leaves_the_axes(tmp_path):
    recorded(tmp_path, "multihead")
    browser = ask(tmp_path)
    pages = [browser.get(f"/embeddings?at={at}").text for at in range(3)]
    domains = [page.split('"domain":')[1][:60] for page in pages]
    assert len(set(pages)) == 3
    assert len(set(domains)) == 1
    assert 'aria-valuetext="10"' in pages[1]
