"""A mixture shows the examples of its parts as they are, in the shares that it was given."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from attnlab.assemble import Experiment
from attnlab.dataset.induction import Induction
from attnlab.dataset.loader import Loader
from attnlab.dataset.mixture import Mixture
from attnlab.dataset.mqar import MQAR
from attnlab.dataset.parity import Parity
from attnlab.dataset.pronoun import Pronoun
from attnlab.dataset.reversal import Reversal
from attnlab.dataset.text import Text
from attnlab.split import IGNORE, Split
from attnlab.tokenizer.bytes import Bytes

SIZES: Any = {"num_train": 300, "num_validation": 30, "num_test": 40}


def parts() -> dict[str, Any]:
    return {
        "recall": MQAR(vocab_size=32, length=24, num_pairs=4, **SIZES),
        "longer": MQAR(vocab_size=32, length=40, num_pairs=8, **SIZES),
        "induction": Induction(vocab_size=16, min_length=4, length=8, test_lengths=(), **SIZES),
    }


def written(tokens, classes, split: Split, rows) -> list[tuple]:
    """Put examples into words: what is read, and what is answered where."""
    batch, names, found = split.batch(np.asarray(rows)), classes or tokens, []
    for row in range(len(batch.inputs)):
        valid = slice(None) if batch.valid is None else batch.valid[row]
        read = tuple(tokens[t] for t in batch.inputs[row][valid].tolist())
        targets = batch.targets[row].tolist()
        at = range(len(targets)) if batch.at is None else batch.at[row].tolist()
        asked = {(p, names[t]) for p, t in zip(at, targets, strict=True) if t != IGNORE}
        found.append((read, tuple(sorted(asked))))
    return found


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_mixture_has_the_examples_of_its_parts_word_by_word(split):
    whole, own = Mixture(parts=parts()), parts()
    mixed = whole.splits[split]
    found = written(whole.tokens, whole.classes, mixed, np.arange(len(mixed)))
    expected = [
        example
        for part in own.values()
        for example in written(
            part.tokens, part.classes, part.splits[split], np.arange(len(part.splits[split]))
        )
    ]
    assert found == expected


def test_every_part_has_its_own_test_split():
    whole, own = Mixture(parts=parts()), parts()
    assert whole.split_names[3:] == ("test_recall", "test_longer", "test_induction")
    for name, part in own.items():
        split = whole.splits[f"test_{name}"]
        rows = np.arange(len(split))
        ours = written(whole.tokens, None, split, rows)
        assert ours == written(part.tokens, None, part.splits["test"], rows)


def test_without_weights_an_epoch_shows_every_example_once():
    train = Mixture(parts=parts()).splits["train"]
    seen = np.concatenate([train.choose(5, number, 30) for number in range(30)])
    assert sorted(seen.tolist()) == list(range(900))


def test_examples_come_in_the_shares_of_the_weights():
    weights = {"recall": 1.0, "longer": 2.0, "induction": 5.0}
    train = Mixture(parts=parts(), weights=weights).splits["train"]
    drawn = np.concatenate([train.choose(0, number, 64) for number in range(100)]) // 300
    assert chisquare(np.bincount(drawn), np.array([1, 2, 5]) / 8 * 6400).pvalue > 1e-3
    again = Mixture(parts=parts(), weights=weights).splits["train"]
    assert np.array_equal(train.choose(0, 7, 64), again.choose(0, 7, 64))
    assert not np.array_equal(train.choose(0, 7, 64), train.choose(1, 7, 64))


def test_a_curriculum_goes_from_one_share_to_the_other_in_a_line():
    made = Mixture(
        parts=parts(),
        start={"recall": 1.0, "longer": 0.0, "induction": 0.0},
        weights={"recall": 0.0, "longer": 1.0, "induction": 0.0},
        ramp=6400,
    )
    train = made.splits["train"]
    shares = []
    for begin in (0, 45, 95, 200):
        numbers = range(begin, begin + 10)
        drawn = np.concatenate([train.choose(0, number, 64) for number in numbers]) // 300
        shares.append(Counter(drawn.tolist())[1] / len(drawn))
    assert shares[0] < 0.1
    assert shares[1] == pytest.approx(0.495, abs=0.08)
    assert shares[2] > 0.9
    assert shares[3] == 1
    share = made.share(3200)
    assert share is not None
    assert share.tolist() == [0.5, 0.5, 0]


def test_a_resumed_run_sees_the_batches_that_an_undisturbed_one_sees():
    train = Mixture(parts=parts(), weights={"recall": 1, "longer": 1, "induction": 1}).splits[
        "train"
    ]
    straight = iter(Loader(train, 8, seed=3))
    ours = [next(straight) for _ in range(12)]
    resumed = iter(Loader(train, 8, seed=3, first=lambda: 7))
    for batch in ours[7:]:
        for one, other in zip(batch, next(resumed), strict=True):
            assert (one is None) == (other is None)
            assert one is None or other is None or torch.equal(one, other)


def test_no_part_trains_on_what_another_is_tested_on():
    # Strings of 4 and 5 bits: what one part tests stands in the other part's training.
    one, other = (
        Parity(min_length=4, length=8, test_lengths=(), seed=seed, **SIZES) for seed in (0, 1)
    )
    whole = Mixture(parts={"one": one, "other": other})
    words = {
        split: set(written(whole.tokens, whole.classes, s, np.arange(len(s))))
        for split, s in whole.splits.items()
    }
    assert not words["train"] & (words["test"] | words["validation"])
    assert not words["validation"] & words["test"]
    alone = {tuple(row) for part in (one, other) for row in part.splits["train"][:].inputs.tolist()}
    assert len(words["train"]) < len(alone)


def test_classes_and_answers_are_put_together():
    asked = Mixture(parts={"noun": Pronoun(**SIZES), "bits": Parity(test_lengths=(), **SIZES)})
    assert asked.classes is not None
    assert asked.classes[:1] == ["animal"]
    assert asked.classes[-2:] == ["even", "odd"]
    said = Mixture(parts={"short": Reversal(length=5, **SIZES), "long": Reversal(**SIZES)})
    assert (said.answer_length, said.end) == (13, "<end>")
    assert said.splits["train"][:5].targets.shape[1] == 6
    assert said.splits["train"][300:305].targets.shape[1] == 13


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"parts": {}}, "must name at least one dataset"),
        (
            {"weights": {"recall": 1.0}},
            "a number for each of recall, longer, induction, and has recall",
        ),
        ({"weights": {"recall": -1.0, "longer": 1.0, "induction": 1.0}}, "must not be negative"),
        ({"weights": dict.fromkeys(("recall", "longer", "induction"), 0.0)}, "not all be 0"),
        ({"start": dict.fromkeys(("recall", "longer", "induction"), 1.0)}, "start needs weights"),
        ({"parts": {"a": MQAR(), "b": Pronoun()}}, "all ask for tokens, or all for classes"),
        ({"parts": {"a": MQAR(), "b": Reversal()}}, "must all answer in the same way"),
    ],
)
def test_what_cannot_be_mixed_is_refused_in_words(knobs, words):
    with pytest.raises(ValueError, match=words):
        Mixture(**{"parts": parts(), **knobs})


def test_a_text_without_a_test_split_cannot_be_mixed(tmp_path):
    (tmp_path / "text").write_bytes(bytes(range(256)) * 20)
    text = Text(path=str(tmp_path / "text"), tokenizer=Bytes(), length=8, test=0.0)
    with pytest.raises(ValueError, match=r"parts\.text has no test split"):
        Mixture(parts={"text": text})


def test_a_typo_in_a_part_is_an_error(composed):
    from attnlab.errors import ConfigError

    with pytest.raises(ConfigError, match=r"dataset\.parts\.recall\.num_pair"):
        composed("dataset=mixture", "+dataset.parts.recall.num_pair=3")
    made = Experiment(
        composed("dataset=mixture", "dataset.parts.induction=null", "~dataset.weights.induction")
    )
    assert made.dataset.split_names[3:] == ("test_recall",)
