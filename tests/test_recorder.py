"""What is recorded while training, and that training does not notice."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlab.assemble import Experiment
from attnlab.callbacks.clock import Clock
from attnlab.callbacks.recorder import Recorder, first
from attnlab.evidence.look import look
from attnlab.runs.patterns import ERROR, recorded
from attnlab.split import IGNORE, Batch
from attnlab.trained import load
from tests import child
from tests.conftest import choices, dataset_words, marked


@pytest.mark.parametrize("variant", ["multihead", "moe", "lstm"])
def test_training_is_bit_equal_with_and_without_recording(tmp_path, variant):
    # With dropout, shuffling and accumulation: whatever draws at random would show.
    flags = (f"variant={variant}", "dataset=pronoun")
    (tmp_path / "with").mkdir()
    assert child.train(tmp_path / "with", *flags, "callbacks.clock.test_every=2") == 0
    without = ("callbacks.recorder=null", "evidence=none")
    assert child.train(tmp_path / "without", *flags, *without) == 0
    weights, (*rows, patterns) = child.result(tmp_path / "with")
    others, (*other_rows, none) = child.result(tmp_path / "without")
    assert patterns
    assert not none
    assert rows == other_rows
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, others[name]), name


def test_the_last_patterns_are_those_of_the_trained_model(tmp_path):
    text = "The old dog didn't cross the road because it was too narrow."
    assert child.train(tmp_path, "dataset=pronoun", f'callbacks.recorder.texts=["{text}"]') == 0
    run = load(child.only_record(tmp_path).path)
    seen = look(run.model, run.experiment.objective, run.dataset.read(text))
    last = recorded(run.record, step=9, probe=text)
    assert [p.source for p in last] == [*seen.patterns, "influence"]
    for pattern, weights in zip(last, [*seen.patterns.values(), seen.influence], strict=True):
        assert " ".join(pattern.tokens).startswith("the old dog did not cross")
        assert pattern.tokens[pattern.asked_at] == "it"
        assert np.abs(pattern.weights - weights.numpy()).max() <= ERROR + 1e-6
        assert pattern.weights.sum(axis=-1) == pytest.approx(1, abs=0.05)


def test_an_lstm_records_its_influence_alone(tmp_path):
    assert child.train(tmp_path, "variant=lstm", "callbacks.recorder.num_probes=2") == 0
    patterns = recorded(child.only_record(tmp_path))
    assert {(p.source, p.weights.shape[:2]) for p in patterns} == {("influence", (1, 1))}
    assert {p.probe for p in patterns} == {"tired", "wide"}


def test_the_curve_of_the_test_split_is_drawn_when_it_is_asked_for(tmp_path):
    assert child.train(tmp_path, "callbacks.clock.test_every=4") == 0
    record = child.only_record(tmp_path)
    rows = record.rows("test").to_pylist()
    assert [row["step"] for row in rows] == [4, 8, 9]
    assert child.finished(tmp_path)["metrics"]["test/loss"] == rows[-1]["loss"]


@settings(deadline=None)
@given(st.integers(1, 2000), st.integers(1, 12))
def test_recordings_are_evenly_spaced_by_the_logarithm_of_the_step(steps, per_decade):
    clock = Clock(steps, 10, patterns_per_decade=per_decade)
    at = [step for step in range(steps + 1) if clock.records(step)]
    assert at[0] == 0
    assert at[-1] == steps
    exact = {round(10 ** (i / per_decade)) for i in range(per_decade * 4 + 1)}
    assert set(at) - {0, steps} == {step for step in exact if step < steps}


def test_the_default_cadence_is_this_one():
    clock = Clock(1000, 100)
    at = [step for step in range(1001) if clock.records(step)]
    assert at == [0, 1, 2, 3, 6, 10, 18, 32, 56, 100, 178, 316, 562, 1000]


KINDS = ("pronoun", "mqar", "text", "reversal", "parity")


@pytest.mark.parametrize("dataset", [marked(name, KINDS) for name in choices("dataset")])
def test_every_dataset_has_probes_that_its_model_can_be_asked(composed, dataset):
    words = [*dataset_words(dataset), "model.d_model=16"]
    if "num_train" in composed(*words).values["dataset"]:
        words += [f"dataset.num_{k}=80" for k in ("train", "validation", "test")]
    made = Experiment(composed(*words))
    recorder = Recorder(made.objective, lambda probe: look(made.model, made.objective, probe))
    patterns = recorder.record(0)
    wanted = min(8, len(made.dataset.splits["validation"]))
    assert len(recorder.probes) == wanted >= 3
    assert len(patterns) == wanted * 3
    for pattern in patterns:
        assert pattern.weights.shape[1:] == (len(pattern.query_at), len(pattern.tokens))
        assert 0 <= pattern.asked_at < len(pattern.tokens)


def test_a_long_probe_is_cut_to_its_first_tokens():
    inputs, at = torch.arange(9)[None], torch.tensor([[2, 7]])
    probe = Batch(inputs, torch.tensor([[5, 6]]), at, torch.ones(1, 9, dtype=torch.bool))
    assert first(probe, 9) is probe
    cut = first(probe, 4)
    assert cut.at is not None
    assert (cut.inputs.tolist(), cut.at.tolist(), cut.targets.tolist()) == (
        [[0, 1, 2, 3]],
        [[2]],
        [[5]],
    )
    none = first(probe, 2)
    assert none.at is not None
    assert (none.at.tolist(), none.targets.tolist()) == ([[1]], [[IGNORE]])
    everywhere = Batch(inputs, inputs + 1)
    assert first(everywhere, 3).targets.tolist() == [[1, 2, 3]]


def test_a_text_that_cannot_be_read_is_refused_before_anything_is_written(composed, tmp_path):
    from attnlab.cli import main

    words = ["callbacks.recorder.texts=['the walrus slept']", f"runs_dir={tmp_path / 'runs'}"]
    assert main(["train", "dataset=pronoun", *words]) == 2
    assert not (tmp_path / "runs").exists()
