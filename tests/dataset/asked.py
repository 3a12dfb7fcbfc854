"""What is asked of examples, said in words and in rows of a table."""

from typing import Any

from attnlab.dataset.base import Dataset
from attnlab.split import IGNORE, Batch


def labels_by_place(batch: Batch, number: int) -> list[tuple[int, int]]:
    """List (place, label) of one example of a batch."""
    targets = batch.targets[number].tolist()
    places = list(range(len(targets))) if batch.at is None else batch.at[number].tolist()
    return sorted((p, t) for p, t in zip(places, targets, strict=True) if t != IGNORE)


def in_words(data: Dataset, batch: Batch) -> tuple[list[str], dict[int, str] | list[str]]:
    """Write the only example of a batch in words: what is read, and what is answered where."""
    (inputs,) = batch.inputs.tolist()
    length = len(inputs) if batch.valid is None else int(batch.valid.sum())
    if batch.valid is not None:
        assert batch.valid[0, :length].all(), "padding stands at the end"
    words, names = [data.tokens[token] for token in inputs[:length]], data.classes or data.tokens
    labels = [(place, names[label]) for place, label in labels_by_place(batch, 0)]
    if data.answer_length is not None:
        return words, [label for _, label in labels]
    assert len(dict(labels)) == len(labels), "a position is asked once"
    assert all(place < length for place, _ in labels), "padding is not asked"
    return words, dict(labels)


def assert_row(data: Dataset, batch: Batch, number: int, row: dict[str, Any]) -> None:
    """Hold a row of a table against the batch that a model is asked from."""
    valid = [True] * batch.inputs.shape[1] if batch.valid is None else batch.valid[number].tolist()
    inputs = [t for t, v in zip(batch.inputs[number].tolist(), valid, strict=True) if v]
    assert row["inputs"] == inputs
    expected = labels_by_place(batch, number)
    if data.answer_length is not None:
        assert list(enumerate(row["targets"])) == expected
        assert set(row) == {"inputs", "targets"}
    elif data.classes is None:
        assert len(row["targets"]) == len(inputs)
        labels = [(place, t) for place, t in enumerate(row["targets"]) if t != -100]
        assert labels == expected
        assert set(row) == {"inputs", "targets"}
    elif isinstance(row["label"], list):
        assert sorted(zip(row["at"], row["label"], strict=True)) == expected
    else:
        assert [(row["at"], row["label"])] == expected
