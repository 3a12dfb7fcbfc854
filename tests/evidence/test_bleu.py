"""BLEU of the answers that a model gives alone, against a search that takes them one at a time."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sacrebleu.metrics.bleu import BLEU

from attnlab import generate
from attnlab.dataset.reversal import Reversal
from attnlab.errors import ConfigError
from attnlab.evidence.bleu import AnswerBLEU, search_answers
from attnlab.experiment import Experiment
from attnlab.interp.subject import Subject
from attnlab.model.base import Model
from attnlab.objective.seq2seq import Seq2Seq
from attnlab.split import IGNORE, Batch
from tests.prose import keys_at_fault, refuses, says

SMALL = ("dataset=reversal", "dataset.vocab_size=6", "dataset.length=6", "dataset.num_test=8")


@pytest.fixture
def made(once) -> Callable[..., Experiment]:
    """Make an untrained experiment in float64, its weights larger, so that choices differ."""

    def make(*words: str) -> Experiment:
        experiment = Experiment(once(*SMALL, "dataset.num_train=100", *words))
        with torch.no_grad():
            for weights in experiment.model.parameters():
                weights *= 4
        experiment.model.double().eval()
        return experiment

    return make


def one_by_one(made: Experiment, batch: Batch, beams: int, length_penalty: float):
    """Read every sequence alone, without padding."""
    data, objective = made.dataset, made.objective
    assert isinstance(objective, Seq2Seq)
    assert data.end is not None
    assert data.answer_length is not None
    assert batch.valid is not None
    end, found = data.tokens.index(data.end), []
    for inputs, valid in zip(batch.inputs, batch.valid, strict=True):
        best = generate.beam_search(
            *(made.model, inputs[valid][None], objective.begin, end, data.answer_length),
            beams=beams,
            length_penalty=length_penalty,
        )[0]
        found.append(best.tokens)
    return found


@pytest.mark.parametrize(
    ("variant", "beams", "length_penalty"),
    [("multihead", 1, 0.0), ("multihead", 4, 1.5), ("lstm_attention", 3, 0.0)],
)
def test_a_batch_is_searched_as_each_of_it_alone(made, variant, beams, length_penalty):
    experiment = made(f"variant={variant}")
    data, batch = experiment.dataset, experiment.dataset.splits["test"][:16]
    end = data.tokens.index("<end>")
    if variant == "multihead":
        # So that some answers end, at different places.
        experiment.model.get_parameter("head.bias").data[end] += 2.0
    with torch.no_grad():
        found = search_answers(
            *(experiment.model, batch.inputs, batch.valid, experiment.objective.begin, end),
            data.answer_length,
            beams=beams,
            length_penalty=length_penalty,
        )
    cut = [row[: row.index(end)] if end in row else row for row in found.tolist()]
    assert cut == one_by_one(experiment, batch, beams, length_penalty)
    lengths = {len(row) for row in cut}
    assert len(lengths) > 1
    assert experiment.objective.begin not in found


def test_the_measures_are_those_of_the_answers_one_by_one(made):
    beams = 3
    experiment = made()
    data, whole = experiment.dataset, experiment.dataset.splits["test"][:16]
    found = AnswerBLEU(experiment.subject, beams=beams, batch_size=7).measure().scalars
    said = [data.decode(tokens) for tokens in one_by_one(experiment, whole, beams, 0.0)]
    end = data.tokens.index("<end>")
    right = [
        data.decode([t for t in row if t not in (IGNORE, end)]) for row in whole.targets.tolist()
    ]
    score = BLEU(tokenize="none", force=True).corpus_score(said, [right])
    assert found["bleu"] == pytest.approx(score.score)
    assert 0 < found["bleu"] < 100
    exact = np.mean([one == other for one, other in zip(said, right, strict=True)])
    assert found["exact_match"] == pytest.approx(exact)
    words = [sum(len(text.split()) for text in texts) for texts in (said, right)]
    assert found["length_ratio"] == pytest.approx(words[0] / words[1])


class Knowing(Model):
    """Reverses as it should, but leaves out the last `missing` letters."""

    def __init__(self, missing: int) -> None:
        super().__init__()
        self.weight, self.missing = torch.nn.Parameter(torch.zeros(1)), missing

    def start(self, inputs, valid=None):
        assert valid is not None
        return inputs, valid.sum(dim=1, keepdim=True)

    def step(self, inputs, at, state=None):
        source, lengths = state
        place = lengths - 1 - at
        token = source.gather(1, place.clamp(min=0))
        token[place < self.missing] = 16
        return 20.0 * torch.nn.functional.one_hot(token, 18), state

    def encode(self, inputs, valid=None, prefix=None, prefix_valid=None):
        raise NotImplementedError

    def state_size(self, length):
        raise NotImplementedError


def test_right_answers_have_the_highest_score_and_short_ones_pay_for_it():
    data = Reversal(num_train=10, num_validation=10, num_test=50)
    objective = Seq2Seq(data)
    found = [
        AnswerBLEU(Subject(Knowing(missing), objective)).measure().scalars for missing in (0, 1)
    ]
    assert found[0] == {"bleu": pytest.approx(100.0), "exact_match": 1.0, "length_ratio": 1.0}
    assert found[1]["exact_match"] == 0.0
    # Every word that is there is right, so what is left is the brevity penalty (Papineni 2002).
    assert found[1]["length_ratio"] < 1
    brevity = np.exp(1 - 1 / found[1]["length_ratio"])
    assert found[1]["bleu"] == pytest.approx(100 * brevity)


def test_a_run_reports_it_and_training_does_not_notice(made):
    experiment = made("evidence=bleu", "evidence.bleu.beams=2", "model.dropout=0.3")
    experiment.model.train()
    measure = experiment.config.build_parts("evidence")["bleu"]
    before = torch.get_rng_state()
    found = measure(experiment.subject).measure()
    assert set(found.scalars) == {"bleu", "exact_match", "length_ratio"}
    assert torch.equal(before, torch.get_rng_state())
    assert experiment.model.training
    assert measure(experiment.subject).measure() == found


def test_what_cannot_be_measured_is_refused_before_training(composed):
    moses = ("dataset=reversal", "evidence=bleu", "evidence.bleu.tokenize=moses")
    for key, name, *words in (
        ("evidence.bleu", "objective", "dataset=mqar", "evidence=bleu"),
        ("evidence.bleu.tokenize", "tokenize", *moses),
    ):
        with pytest.raises(ConfigError) as refusal:
            composed(*words)
        assert keys_at_fault(refusal.value) == [key]
        says(f"evidence.bleu.{name}", refusal.value)


def test_impossible_knobs_are_refused(made):
    experiment = made()
    for name, value in {"beams": 0, "batch_size": 0, "length_penalty": -1.0}.items():
        with refuses(ValueError, f"evidence.bleu.{name}"):
            AnswerBLEU(experiment.subject, **{name: value})


def test_without_sacrebleu_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    path = Path(sys.modules["attnlab.evidence.bleu"].__file__ or "")
    spec = importlib.util.spec_from_file_location("without_sacrebleu", path)
    assert spec is not None
    assert spec.loader is not None
    with refuses(ModuleNotFoundError, "evidence.bleu.not_installed"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
