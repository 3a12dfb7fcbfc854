"""A mixture shows the examples of its parts as they are, in the shares that it was given."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from attnlab.dataset.induction import Induction
from attnlab.dataset.loader import Loader
from attnlab.dataset.mixture import Mixture
from attnlab.dataset.mqar import MQAR
from attnlab.dataset.parity import Parity
from attnlab.dataset.pronoun import Pronoun
from attnlab.dataset.reversal import Reversal
from attnlab.dataset.text import Text
from attnlab.errors import ConfigError
from attnlab.experiment import Experiment
from attnlab.split import IGNORE, Split
from attnlab.tokenizer.bytes import Bytes
from tests.prose import keys_at_fault, refuses
from tests.refused_calls import refused_calls

SIZES: Any = {"num_train": 300, "num_validation": 30, "num_test": 40}


def parts() -> dict[str, Any]:
    return {
        "recall": MQAR(vocab_size=32, length=24, num_pairs=4, **SIZES),
        "longer": MQAR(vocab_size=32, length=40, num_pairs=8, **SIZES),
        "induction": Induction(vocab_size=16, min_length=4, length=8, test_lengths=(), **SIZES),
    }


def written(tokens, classes, split: Split, rows) -> list[tuple]:
    """Put examples into words: what is read, and what is answered where."""
    batch, names, examples = split.batch(np.asarray(rows)), classes or tokens, []
    for row in range(len(batch.inputs)):
        valid = slice(None) if batch.valid is None else batch.valid[row]
        read = tuple(tokens[t] for t in batch.inputs[row][valid].tolist())
        targets = batch.targets[row].tolist()
        at = range(len(targets)) if batch.at is None else batch.at[row].tolist()
        asked = {(p, names[t]) for p, t in zip(at, targets, strict=True) if t != IGNORE}
        examples.append((read, tuple(sorted(asked))))
    return examples


def test_a_mixture_has_the_examples_of_its_parts_and_a_test_split_of_each():
    mixture, own = Mixture(parts=parts()), parts()
    for split in ("train", "validation", "test"):
        mixed = mixture.splits[split]
        expected = [
            example
            for part in own.values()
            for example in written(
                part.tokens, part.classes, part.splits[split], np.arange(len(part.splits[split]))
            )
        ]
        written_mixture = written(mixture.tokens, mixture.classes, mixed, np.arange(len(mixed)))
        assert written_mixture == expected, split
    assert mixture.split_names[3:] == ("test_recall", "test_longer", "test_induction")
    for name, part in own.items():
        split = mixture.splits[f"test_{name}"]
        rows = np.arange(len(split))
        ours = written(mixture.tokens, None, split, rows)
        assert ours == written(part.tokens, None, part.splits["test"], rows)


def test_without_weights_an_epoch_shows_every_example_once():
    train = Mixture(parts=parts()).splits["train"]
    chosen = np.concatenate([train.batch_indices(5, number, 30) for number in range(30)])
    assert sorted(chosen.tolist()) == list(range(900))


def test_examples_come_in_the_shares_of_the_weights():
    weights = {"recall": 1.0, "longer": 2.0, "induction": 5.0}
    train = Mixture(parts=parts(), weights=weights).splits["train"]
    drawn = np.concatenate([train.batch_indices(0, number, 64) for number in range(100)]) // 300
    assert chisquare(np.bincount(drawn), np.array([1, 2, 5]) / 8 * 6400).pvalue > 1e-3
    again = Mixture(parts=parts(), weights=weights).splits["train"]
    assert np.array_equal(train.batch_indices(0, 7, 64), again.batch_indices(0, 7, 64))
    assert not np.array_equal(train.batch_indices(0, 7, 64), train.batch_indices(1, 7, 64))


def test_a_curriculum_goes_from_one_share_to_the_other_in_a_line():
    mixture = Mixture(
        parts=parts(),
        start={"recall": 1.0, "longer": 0.0, "induction": 0.0},
        weights={"recall": 0.0, "longer": 1.0, "induction": 0.0},
        ramp=6400,
    )
    train = mixture.splits["train"]
    shares = []
    for begin in (0, 45, 95, 200):
        numbers = range(begin, begin + 10)
        drawn = np.concatenate([train.batch_indices(0, number, 64) for number in numbers]) // 300
        shares.append(Counter(drawn.tolist())[1] / len(drawn))
    assert shares[0] < 0.1
    assert shares[1] == pytest.approx(0.495, abs=0.08)
    assert shares[2] > 0.9
    assert shares[3] == 1
    share = mixture.part_probabilities(3200)
    assert share is not None
    assert share.tolist() == [0.5, 0.5, 0]


def test_a_resumed_run_sees_the_batches_that_an_undisturbed_one_sees():
    train = Mixture(parts=parts(), weights={"recall": 1, "longer": 1, "induction": 1}).splits[
        "train"
    ]
    straight = iter(Loader(train, 8, seed=3))
    ours = [next(straight) for _ in range(12)]
    resumed = iter(Loader(train, 8, seed=3, first=7))
    for batch in ours[7:]:
        for one, other in zip(batch, next(resumed), strict=True):
            assert (one is None) == (other is None)
            assert one is None or other is None or torch.equal(one, other)


def test_no_part_trains_on_what_another_is_tested_on():
    # Strings of 4 and 5 bits: what one part tests stands in the other part's training.
    one, other = (
        Parity(min_length=4, length=8, test_lengths=(), seed=seed, **SIZES) for seed in (0, 1)
    )
    mixture = Mixture(parts={"one": one, "other": other})
    words = {
        split: set(written(mixture.tokens, mixture.classes, s, np.arange(len(s))))
        for split, s in mixture.splits.items()
    }
    assert not words["train"] & (words["test"] | words["validation"])
    assert not words["validation"] & words["test"]
    alone = {tuple(row) for part in (one, other) for row in part.splits["train"][:].inputs.tolist()}
    assert len(words["train"]) < len(alone)
    for split in ("train", "validation"):
        count = len(mixture.splits[split])
        whole = 2 * len(one.splits[split])
        assert count < whole
        told = f"{split}: {whole - count} of {whole} examples are left out "
        assert f"{told}(in an earlier split: {whole - count})" in mixture.notes


def test_classes_and_answers_are_put_together():
    asked = Mixture(parts={"noun": Pronoun(**SIZES), "bits": Parity(test_lengths=(), **SIZES)})
    assert asked.classes is not None
    assert asked.classes[:1] == ["animal"]
    assert asked.classes[-2:] == ["even", "odd"]
    answering = Mixture(parts={"short": Reversal(length=5, **SIZES), "long": Reversal(**SIZES)})
    assert (answering.answer_length, answering.end) == (13, "<end>")
    assert answering.splits["train"][:5].targets.shape[1] == 6
    assert answering.splits["train"][300:305].targets.shape[1] == 13


def test_what_cannot_be_mixed_is_refused():
    three = parts()
    equal = dict.fromkeys(three, 1.0)
    refused_calls(
        "dataset.mixture.{}",
        {
            "no_parts": lambda: Mixture(parts={}),
            "weight_of_one": lambda: Mixture(parts=three, weights={"recall": 1.0}),
            "negative_weight": lambda: Mixture(parts=three, weights={**equal, "recall": -1.0}),
            "no_weight": lambda: Mixture(parts=three, weights=dict.fromkeys(three, 0.0)),
            "start_alone": lambda: Mixture(parts=three, start=equal),
            "tokens_and_classes": lambda: Mixture(parts={"a": MQAR(), "b": Pronoun()}),
            "tokens_and_answers": lambda: Mixture(parts={"a": MQAR(), "b": Reversal()}),
        },
    )


def test_a_text_without_a_test_split_cannot_be_mixed(tmp_path):
    (tmp_path / "text").write_bytes(bytes(range(256)) * 20)
    text = Text(path=str(tmp_path / "text"), tokenizer=Bytes(), length=8, test=0.0)
    with refuses(ValueError, "dataset.mixture.text_without_test"):
        Mixture(parts={"text": text})


def test_a_typo_in_a_part_is_an_error(composed):
    with pytest.raises(ConfigError) as raised:
        composed("dataset=mixture", "+dataset.parts.recall.num_pair=3")
    assert keys_at_fault(raised.value) == ["dataset.parts.recall.num_pair"]
    experiment = Experiment(
        composed("dataset=mixture", "dataset.parts.induction=null", "~dataset.weights.induction")
    )
    assert experiment.dataset.split_names[3:] == ("test_recall",)
