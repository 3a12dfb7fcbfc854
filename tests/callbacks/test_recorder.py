"""What is recorded while training, and that training does not notice."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlab.assemble import Experiment
from attnlab.callbacks.clock import Clock
from attnlab.callbacks.recorder import Recorder, _drawn, first, repeated, unpadded
from attnlab.callbacks.statistics import Statistics
from attnlab.callbacks.vectors import Vectors
from attnlab.evidence.heads import head_statistics
from attnlab.evidence.intervene import attention_layers
from attnlab.evidence.look import look
from attnlab.runs.attempt import Attempt
from attnlab.runs.heads import head_scores
from attnlab.runs.patterns import ERROR, Pattern, recorded
from attnlab.runs.record import Record
from attnlab.runs.vectors import ERROR as VECTOR_ERROR
from attnlab.runs.vectors import recorded as recorded_vectors
from attnlab.runs.vectors import row as vector_row
from attnlab.split import IGNORE, Batch
from attnlab.tap import taps
from attnlab.trained import load
from attnlab.training import Diverged
from attnlab.ui.films import films
from tests import child
from tests.choices import choices, dataset_words, marked


def recorder_of(made: Experiment) -> Recorder:
    (recorder, *_) = made.keepers()
    assert isinstance(recorder, Recorder)
    return recorder


@pytest.mark.parametrize("variant", ["multihead", "moe", "lstm"])
def test_training_is_bit_equal_with_and_without_recording(tmp_path, variant):
    # With dropout, shuffling and accumulation: whatever draws at random would show.
    flags = (f"variant={variant}", "dataset=pronoun")
    (tmp_path / "with").mkdir()
    much = ["callbacks.clock.test_every=2", "callbacks.clock.statistics_every=3"]
    much += ["callbacks.recorder.repeated=2", "callbacks.recorder.twins=1"]
    assert child.train(tmp_path / "with", *flags, *much, "callbacks.statistics.pairs=true") == 0
    without = [f"callbacks.{keeper}=null" for keeper in ("recorder", "statistics", "vectors")]
    assert child.train(tmp_path / "without", *flags, *without, "evidence=none") == 0
    weights, (*rows, patterns, heads, vectors) = child.result(tmp_path / "with")
    others, (*other_rows, no_patterns, no_heads, no_vectors) = child.result(tmp_path / "without")
    assert patterns
    assert bool(heads) == (variant != "lstm")
    assert vectors
    assert no_patterns == no_heads == no_vectors == []
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
    steps = dict.fromkeys(pattern.step for pattern in recorded(run.record))
    assert list(steps) == [0, 1, 2, 3, 6, 9]
    assert [p.source for p in last] == [*seen.patterns, "influence"]
    for pattern, weights in zip(last, [*seen.patterns.values(), seen.influence], strict=True):
        assert " ".join(pattern.tokens).startswith("the old dog did not cross")
        assert pattern.tokens[pattern.asked_at] == "it"
        assert np.abs(pattern.weights - weights.numpy()).max() <= ERROR + 1e-6
        assert pattern.weights.sum(axis=-1) == pytest.approx(1, abs=0.05)


def test_the_last_statistics_and_vectors_are_those_of_the_trained_model(tmp_path):
    assert child.train(tmp_path, "dataset=pronoun", "callbacks.vectors.num_tokens=5") == 0
    run = load(child.only_record(tmp_path).path)
    expected = head_statistics(
        run.model, run.objective, run.dataset.splits["validation"], num_examples=10, pairs=False
    )
    scores = head_scores(run.record)
    assert list(scores) == list(expected)
    for layer, measures in expected.items():
        assert scores[layer].keys() == measures.keys()
        for name, values in measures.items():
            steps, found = scores[layer][name]
            assert steps.tolist() == [0, 4, 8, 9]
            np.testing.assert_allclose(found[-1], values, atol=1e-5)
            assert found.shape == (4, 4)
    steps, vectors = recorded_vectors(run.record)
    assert steps.tolist() == [0, 1, 2, 3, 6, 9]
    table = run.embeddings.vectors[:5].numpy()
    largest = np.abs(table).max(axis=1, keepdims=True)
    assert (np.abs(vectors[-1] - table) <= largest * (VECTOR_ERROR + 1e-6)).all()
    assert np.abs(vectors[-1] - vectors[0]).max() > 0


def test_what_is_kept_is_no_part_of_the_identity(composed):
    more = ["callbacks.statistics=null", "callbacks.recorder.twins=3", "callbacks.vectors=null"]
    more += ["callbacks.clock.patterns_at=[3]", "callbacks.clock.statistics_every=null"]
    one, other = (Experiment(composed("dataset=pronoun", *words)) for words in ((), more))
    assert one.identity == other.identity
    assert Experiment(composed("callbacks.clock.log_every=7")).identity != one.identity


def test_probes_of_every_kind_are_kept(composed):
    words = ["callbacks.recorder.repeated=2", "callbacks.recorder.twins=2"]
    words += ["callbacks.recorder.num_probes=0", "callbacks.recorder.max_tokens=18"]
    made = Experiment(composed("dataset=pronoun", "model.d_model=16", *words))
    recorder = recorder_of(made)
    twins = [f"twin-{number}-{side}" for side in "ab" for number in (0, 1)]
    assert list(recorder.probes) == ["repeated-0", "repeated-1", *twins]
    said = [recorder.probes[f"repeated-{number}"].inputs[0].tolist() for number in (0, 1)]
    for tokens in said:
        assert len(tokens) == 18
        assert tokens[:9] == tokens[9:]
        assert len(set(tokens)) == 9
    assert said[0] != said[1]
    for number in (0, 1):
        a, b = (recorder.probes[f"twin-{number}-{side}"].inputs[0] for side in "ab")
        assert (a != b).sum() == 1
        for kept, split in zip((a, b), made.dataset.twins(), strict=True):
            assert torch.equal(kept, split[number].inputs[0, : len(kept)])
    tables = {p.probe: p.tokens for p in recorder.record(0)}
    assert tables["repeated-0"][:9] == tables["repeated-0"][9:]


def test_chosen_layers_and_heads_alone_are_kept(composed):
    words = ["callbacks.recorder.layers=[1]", "callbacks.recorder.heads=[3,0]"]
    made = Experiment(composed("dataset=pronoun", "model.d_model=16", "model.num_layers=3", *words))
    recorder = recorder_of(made)
    kept = [Pattern.read(row) for row in recorder.rows(0)]
    every = {(p.probe, p.source): p for p in recorder.record(0)}
    assert {p.source for p in kept} == {"blocks.1.mixer.attend.pattern", "influence"}
    for pattern in kept:
        whole = every[pattern.probe, pattern.source].weights
        some = whole if pattern.source == "influence" else whole[[3, 0]]
        assert np.abs(pattern.weights - some).max() <= ERROR + 1e-6


def test_a_kept_head_has_its_own_number(composed, tmp_path):
    words = ["callbacks.recorder.heads=[3,1]", "callbacks.recorder.num_probes=1"]
    made = Experiment(composed("dataset=pronoun", "model.d_model=16", *words))
    recorder = recorder_of(made)
    kept = [Pattern.read(row) for row in recorder.rows(0)]
    attention = [pattern for pattern in kept if pattern.is_attention]
    assert {tuple(pattern.numbers) for pattern in attention} == {(3, 1)}
    (film,) = films(kept, "pronoun")
    assert [film.head_name(at) for at in range(4)] == [
        *("layer 0, head 3", "layer 0, head 1", "layer 1, head 3", "layer 1, head 1")
    ]
    assert film.heads[film.head_at(1, 3)] == (1, 0)
    # Another attempt may keep others: what cannot be put beside the last step is left out.
    later = replace(attention[0], step=4, heads=[0, 2])
    both = films([*attention, later, replace(attention[1], step=4)], "pronoun")
    assert [list(film.steps) for film in both] == [[4]]


def test_heads_are_chosen_of_attention_alone(composed):
    words = ["callbacks.recorder.heads=[3]", "callbacks.recorder.layers=[0]"]
    mixed = ["model/mixer=hybrid", "model.d_model=16"]
    made = Experiment(composed("dataset=mqar", *mixed, *words))
    recorder = recorder_of(made)
    kept = [Pattern.read(row) for row in recorder.rows(0)]
    every = {pattern.source for pattern in recorder.record(0)}
    assert {pattern.source for pattern in kept} == every
    for pattern in kept:
        assert len(pattern.weights) == (1 if pattern.is_attention else len(pattern.numbers))


def test_an_answer_of_a_prefix_is_asked_at_its_last_position(composed):
    words = ["dataset=compression", "objective=autoencoder", "evidence=none"]
    made = Experiment(composed(*words, "model.d_model=16", "callbacks.recorder.num_probes=1"))
    recorder = recorder_of(made)
    kept = recorder.record(0)
    (probe,) = recorder.probes.values()
    asked = made.objective.probe(probe)
    decoder = [p for p in kept if p.source.startswith("blocks.")]
    assert decoder
    assert asked.prefix is not None
    for pattern in decoder:
        assert pattern.asked_at == pattern.query_at[-1] == asked.prefix.shape[1] - 1


def test_a_run_that_stops_early_is_looked_at_where_it_stopped(tmp_path):
    words = ["callbacks=early_stop", "callbacks.early_stop.metric=loss"]
    words += ["callbacks.early_stop.patience=1", "callbacks.early_stop.min_delta=100"]
    words += ["callbacks.clock.statistics_every=1000", "trainer.val_check_interval=2"]
    assert child.train(tmp_path, "dataset=pronoun", *words) == 0
    record = child.only_record(tmp_path)
    end = child.finished(tmp_path)["steps"]
    assert end == 4
    for table in ("patterns", "heads", "vectors"):
        assert record.rows(table)["step"].to_pylist()[-1] == end, table


def test_vectors_of_attempts_that_kept_other_numbers_are_read_together(tmp_path):
    attempt = Attempt.claim(tmp_path / "run", {"seed": 0})
    few, many = np.random.default_rng(0).normal(size=(2, 5, 4))
    attempt.append("vectors", [vector_row(0, few[:3]), vector_row(7, many)])
    attempt.close()
    steps, vectors = recorded_vectors(Record(tmp_path / "run"))
    assert steps.tolist() == [0, 7]
    assert vectors.shape == (2, 3, 4)
    largest = np.abs(many[:3]).max(axis=1, keepdims=True)
    assert (np.abs(vectors[1] - many[:3]) <= largest * (VECTOR_ERROR + 1e-6)).all()


def test_what_a_decoder_reads_of_an_encoder_has_two_sequences(composed):
    made = Experiment(composed("dataset=reversal", "variant=multihead", "model.d_model=16"))
    recorder = recorder_of(made)
    kept = [Pattern.read(row) for row in recorder.rows(0)]
    for pattern in kept:
        crosses = ".cross." in pattern.source
        assert (pattern.reading is not None) == crosses
        if crosses or pattern.source.startswith("blocks."):
            assert pattern.queries[0] == "[BEGIN]"
        if not crosses and pattern.source != "influence":
            assert list(pattern.queries) == list(pattern.tokens)
        assert pattern.weights.shape[1:] == (len(pattern.queries), len(pattern.tokens))
        assert pattern.weights.sum(axis=-1) == pytest.approx(1, abs=0.1)
    assert any(".cross." in pattern.source for pattern in kept)


def test_layers_are_measured_in_the_order_of_their_numbers(composed):
    made = Experiment(composed("dataset=reversal", "variant=multihead", "model.d_model=16"))
    _, statistics, *_ = made.keepers()
    layers = list(dict.fromkeys(row["layer"] for row in statistics.rows(0)))
    assert layers == attention_layers(made.model)
    assert layers[0].startswith("blocks.")


def test_listed_steps_take_the_place_of_the_even_ones():
    clock = Clock(50, 10, patterns_at=[0, 7, 7, 50], statistics_every=20)
    assert [step for step in range(51) if clock.records(step)] == [0, 7, 50]
    assert [step for step in range(51) if clock.measures(step)] == [0, 20, 40, 50]
    assert not any(Clock(50, 10, statistics_every=None).measures(step) for step in range(51))
    assert all(clock.writes(step) for step in (7, 20, 40, 50))


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
    words = [*dataset_words(dataset), "model.d_model=16", "callbacks.recorder.repeated=1"]
    if "num_train" in composed(*words).values["dataset"]:
        words += [f"dataset.num_{k}=80" for k in ("train", "validation", "test")]
    made = Experiment(composed(*words))
    recorder = recorder_of(made)
    patterns = recorder.record(0)
    wanted = min(8, len(made.dataset.splits["validation"]))
    assert len(recorder.probes) == wanted + 1 >= 3
    assert "repeated-0" in recorder.probes
    maps = len(taps(made.model, "*.pattern"))
    assert len(patterns) == (wanted + 1) * (maps + 1)
    for pattern in patterns:
        assert pattern.weights.shape[1:] == (len(pattern.queries), len(pattern.tokens))
        assert pattern.source == "influence" or pattern.asked_at in pattern.query_at


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


def test_every_probe_is_cut_to_as_many_tokens(composed):
    words = ["callbacks.recorder.max_tokens=5", "callbacks.recorder.num_probes=2"]
    recorder = recorder_of(Experiment(composed("dataset=pronoun", *words)))
    assert {probe.inputs.shape for probe in recorder.probes.values()} == {(1, 5)}


def test_padding_is_left_out_and_what_is_asked_stays():
    valid = torch.tensor([[True, True, True, False]])
    probe = Batch(torch.tensor([[5, 6, 7, 0]]), torch.tensor([[9]]), torch.tensor([[1]]), valid)
    kept = unpadded(probe)
    assert (kept.inputs.tolist(), kept.targets.tolist()) == ([[5, 6, 7]], [[9]])
    assert kept.at is not None
    assert kept.at.tolist() == [[1]]
    assert kept.valid is None


def test_what_is_said_twice_is_asked_at_its_end(composed):
    made = Experiment(composed("dataset=mqar", "dataset.length=24", "dataset.num_pairs=3"))
    probe = repeated(made.objective, 0, 16)
    assert probe.inputs.shape == (1, 16)
    assert probe.at is not None
    assert probe.at.tolist() == [[15]]
    # No token is drawn twice as long as there are others.
    draw = np.random.Generator(np.random.Philox(key=0))
    assert sorted(_drawn(draw, 9, 9)) == list(range(9))
    assert len(_drawn(draw, 2, 9)) == 9


def test_latents_are_counted_where_they_read_and_are_read(composed):
    words = ["dataset=compression", "objective=autoencoder", "evidence=none"]
    words += ["objective.num_latents=3", "callbacks.recorder.num_probes=1"]
    recorder = recorder_of(Experiment(composed(*words, "model.d_model=16")))
    latents = [f"[LATENT {number}]" for number in range(3)]
    found = [tuple(map(list, (p.queries, p.tokens))) for p in recorder.record(0)]
    assert latents in [queries for queries, _ in found]
    assert latents in [tokens for _, tokens in found]
    assert all(queries != tokens for queries, tokens in found if latents in (queries, tokens))


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
    for wrong in (partial(Statistics, 10, measure, num_examples=0), partial(Vectors, num_tokens=0)):
        with pytest.raises(ValueError, match="must be at least 1"):
            wrong(*([] if wrong.args else [lambda: vectors]))


def test_what_is_no_number_ends_the_training(composed):
    made = Experiment(composed("dataset=pronoun", "model.d_model=16"))
    with torch.no_grad():
        for weights in made.model.parameters():
            weights.fill_(math.nan)
    with pytest.raises(Diverged, match="after step 4"):
        recorder_of(made).rows(4)
    broken = {"blocks.0.mixer.attend": {"confidence": torch.tensor([0.5, math.nan])}}
    for keeper in (
        Statistics(10, lambda *_: broken),
        Vectors(lambda: torch.full((2, 2), math.inf)),
    ):
        with pytest.raises(Diverged, match="after step 4"):
            keeper.rows(4)


def test_a_text_that_cannot_be_read_is_refused_before_anything_is_written(composed, tmp_path):
    from attnlab.cli import main

    words = ["callbacks.recorder.texts=['the walrus slept']", f"runs_dir={tmp_path / 'runs'}"]
    assert main(["train", "dataset=pronoun", *words]) == 2
    assert not (tmp_path / "runs").exists()
