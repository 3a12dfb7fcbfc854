"""What is recorded while training, and that training does not notice."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch

from attnlab.callbacks.evidence import EvidenceRecorder
from attnlab.callbacks.head_scores import HeadRecorder
from attnlab.callbacks.patterns import (
    PatternRecorder,
    _draw_tokens,
    draw_repeated_tokens,
    first_tokens,
    remove_padding,
)
from attnlab.callbacks.vectors import VectorRecorder
from attnlab.errors import Diverged
from attnlab.evidence.base import Evidence
from attnlab.experiment import Experiment
from attnlab.interp.capture import capture
from attnlab.interp.head_stats import head_statistics
from attnlab.layers import Axes, HeadRef
from attnlab.loaded_run import LoadedRun, load
from attnlab.report.probe_history import probe_histories
from attnlab.run_record.evidence_history import load_evidence
from attnlab.run_record.finding import Finding
from attnlab.run_record.head_scores import load_head_scores
from attnlab.run_record.layers import Layers
from attnlab.run_record.pattern_table import ERROR, Pattern, load_patterns
from attnlab.run_record.vectors import ERROR as VECTOR_ERROR
from attnlab.run_record.vectors import load_vectors as recorded_vectors
from attnlab.split import IGNORE, Batch
from tests import child
from tests.choices import choices, dataset_words, marked
from tests.dataset.stated import builds_on_another, stated
from tests.prose import refuses
from tests.refused_calls import refused_calls

VARIANTS = ("multihead", "moe", "lstm")
COMPRESSION = (
    *("dataset=compression", "objective=autoencoder", "evidence=none"),
    "objective.num_latents=3",
)


@pytest.fixture(scope="module")
def experiment(once) -> Callable[..., Experiment]:
    """Build a small experiment from overrides, once."""
    return cache(lambda *words: Experiment(once(*words, "model.d_model=16")))


def recorder_of(made: Experiment, **knobs) -> PatternRecorder:
    """Give an experiment's recorder of patterns, of other knobs."""
    return PatternRecorder(made.subject, **knobs)


def kept_by(recorder: PatternRecorder) -> list[Pattern]:
    """Read the rows that are kept now."""
    model = recorder.subject.model
    layers = Layers(model.attention_layers(), model.mixing_layers())
    return [Pattern.from_row(row, layers) for row in recorder.rows(0)]


TEXT = "The old dog didn't cross the road because it was too narrow."
MUCH = (
    "callbacks.cadence.test_every=2",
    "callbacks.cadence.statistics_every=3",
    "callbacks.cadence.evidence_every=4",
    "callbacks.recorder.repeated=2",
    "callbacks.recorder.twins=1",
    "callbacks.statistics.pairs=true",
    "callbacks.vectors.num_tokens=5",
    f'callbacks.recorder.texts=["{TEXT}"]',
)
NO_USER_TARGETS = (
    *(f"callbacks.{keeper}=null" for keeper in ("recorder", "statistics", "vectors")),
    "evidence=none",
)


@pytest.fixture(scope="module")
def recorded_dir(tmp_path_factory) -> Callable[[str], Path]:
    """Train a variant, with everything recorded that can be, once."""

    def train(variant: str) -> Path:
        runs_dir = tmp_path_factory.mktemp(variant)
        assert child.train(runs_dir, f"variant={variant}", "dataset=pronoun", *MUCH) == 0
        return runs_dir

    return cache(train)


@pytest.mark.parametrize("variant", [marked(v, ("multihead", "lstm")) for v in VARIANTS])
def test_training_is_bit_equal_with_and_without_recording(tmp_path, recorded_dir, variant):
    # With dropout, shuffling and accumulation: whatever draws at random would show.
    assert child.train(tmp_path, f"variant={variant}", "dataset=pronoun", *NO_USER_TARGETS) == 0
    weights, (*rows, patterns, heads, vectors, evidence) = child.result(recorded_dir(variant))
    others, (*other_rows, no_patterns, no_heads, no_vectors, none) = child.result(tmp_path)
    assert patterns
    assert bool(heads) == (variant != "lstm")
    assert vectors
    assert list(dict.fromkeys(row["step"] for row in evidence)) == [0, 4, 8, 9]
    assert no_patterns == no_heads == no_vectors == none == []
    assert rows == other_rows
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, others[name]), name


@pytest.fixture(scope="module")
def run(recorded_dir) -> LoadedRun:
    return load(child.only_record(recorded_dir("multihead")).path)


def test_the_last_patterns_are_those_of_the_trained_model(run):
    shown = capture(run.subject, run.dataset.batch_of_text(TEXT))
    last = load_patterns(run.record, step=9, probe=TEXT)
    steps = dict.fromkeys(pattern.step for pattern in load_patterns(run.record))
    assert list(steps) == [0, 1, 2, 3, 6, 9]
    assert [p.layer for p in last] == [*shown.patterns, None]
    assert [p.layer for p in last[:-1]] == run.model.attention_layers()
    assert last[-1].source == "influence"
    for pattern, weights in zip(last, [*shown.patterns.values(), shown.influence], strict=True):
        assert " ".join(pattern.tokens).startswith("the old dog did not cross")
        assert pattern.tokens[pattern.answer_position] == "it"
        assert np.abs(pattern.weights - weights.numpy()).max() <= ERROR + 1e-6
        assert pattern.weights.sum(axis=-1) == pytest.approx(1, abs=0.05)


def test_the_last_statistics_and_vectors_are_those_of_the_trained_model(run):
    split = run.dataset.splits["validation"]
    expected = head_statistics(run.subject, split, num_examples=10, compare_heads=True)
    scores = load_head_scores(run.record)
    assert list(scores) == list(expected) == run.model.attention_layers()
    for layer, measures in expected.items():
        assert scores[layer].keys() == measures.keys()
        for name, values in measures.items():
            steps, of_steps = scores[layer][name]
            assert steps.tolist() == [0, 3, 6, 9]
            np.testing.assert_allclose(of_steps[-1], values, atol=1e-5)
            assert of_steps.shape == (4, 4)
    steps, vectors = recorded_vectors(run.record)
    assert steps.tolist() == [0, 1, 2, 3, 6, 9]
    table = run.embeddings.vectors[:5].numpy()
    largest = np.abs(table).max(axis=1, keepdims=True)
    assert (np.abs(vectors[-1] - table) <= largest * (VECTOR_ERROR + 1e-6)).all()
    assert np.abs(vectors[-1] - vectors[0]).max() > 0


def test_the_last_evidence_is_that_of_the_result(run):
    result = run.record.result
    assert result is not None
    for name, history in load_evidence(run.record).items():
        finding = result.findings[name]
        assert {key: values[9] for key, values in history.scalars.items()} == finding.scalars
        assert {key: tuple(heads[9]) for key, heads in history.heads.items()} == {
            key: (head.head, head.weight) for key, head in finding.heads.items()
        }
    assert list(load_evidence(run.record)) == list(result.findings) == ["pronoun"]


def test_the_curve_of_the_test_split_is_drawn_when_it_is_asked_for(run):
    rows = run.record.rows("test").to_pylist()
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 9]
    assert run.record.result is not None
    assert run.record.result.metrics["test/loss"] == rows[-1]["loss"]


def test_an_lstm_records_its_influence_alone(recorded_dir):
    patterns = load_patterns(child.only_record(recorded_dir("lstm")))
    assert {(p.source, p.weights.shape[:2]) for p in patterns} == {("influence", (1, 1))}
    probes = {"tired", "wide", TEXT, "repeated-0", "repeated-1", "twin-0-a", "twin-0-b"}
    assert {p.probe for p in patterns} == probes


def test_what_is_kept_is_no_part_of_the_identity(composed):
    more = ["callbacks.statistics=null", "callbacks.recorder.twins=3", "callbacks.vectors=null"]
    more += ["callbacks.cadence.patterns_at=[3]", "callbacks.cadence.statistics_every=null"]
    plain, other = (Experiment(composed("dataset=pronoun", *words)) for words in ((), more))
    assert plain.identity == other.identity
    assert Experiment(composed("callbacks.cadence.log_every=7")).identity != plain.identity


def test_probes_of_every_kind_are_kept(experiment):
    made = experiment("dataset=pronoun")
    recorder = recorder_of(made, repeated=2, twins=2, num_probes=0, max_tokens=18)
    twins = [f"twin-{number}-{side}" for side in "ab" for number in (0, 1)]
    assert list(recorder.probes) == ["repeated-0", "repeated-1", *twins]
    repeated_tokens = [recorder.probes[f"repeated-{n}"].inputs[0].tolist() for n in (0, 1)]
    for tokens in repeated_tokens:
        assert len(tokens) == 18
        assert tokens[:9] == tokens[9:]
        assert len(set(tokens)) == 9
    assert repeated_tokens[0] != repeated_tokens[1]
    for number in (0, 1):
        a, b = (recorder.probes[f"twin-{number}-{side}"].inputs[0] for side in "ab")
        assert (a != b).sum() == 1
        for kept, split in zip((a, b), made.dataset.contrast_pairs(), strict=True):
            assert torch.equal(kept, split[number].inputs[0, : len(kept)])
    tables = {p.probe: p.tokens for p in recorder.patterns(0)}
    assert tables["repeated-0"][:9] == tables["repeated-0"][9:]


def test_chosen_layers_and_heads_alone_are_kept(experiment):
    made = experiment("dataset=pronoun")
    recorder = recorder_of(made, layers=[1], heads=[3, 0], num_probes=2)
    kept = kept_by(recorder)
    every = {(p.probe, p.layer): p for p in recorder.patterns(0)}
    assert {p.layer for p in kept} == {made.model.attention_layers()[1], None}
    for pattern in kept:
        whole = every[pattern.probe, pattern.layer].weights
        some = whole if pattern.layer is None else whole[[3, 0]]
        assert np.abs(pattern.weights - some).max() <= ERROR + 1e-6


def test_a_kept_head_has_its_own_number(experiment):
    recorder = recorder_of(experiment("dataset=pronoun"), heads=[3, 1], num_probes=1)
    kept = kept_by(recorder)
    attention = [pattern for pattern in kept if pattern.attention]
    assert {tuple(pattern.numbers) for pattern in attention} == {(3, 1)}
    (history,) = probe_histories(kept)
    assert [history.head_name(at) for at in range(4)] == [
        *("layer 0, head 3", "layer 0, head 1", "layer 1, head 3", "layer 1, head 1")
    ]
    place = history.index_of_head(HeadRef(1, 3))
    assert place is not None
    assert history.heads[place] == (1, 0)
    # Another attempt may keep others: what cannot be put beside the last step is left out.
    later = replace(attention[0], step=4, heads=[0, 2])
    both = probe_histories([*attention, later, replace(attention[1], step=4)])
    assert [list(history.steps) for history in both] == [[4]]


def test_heads_are_chosen_of_attention_alone(experiment):
    made = experiment("dataset=mqar", "model/mixer=hybrid")
    recorder = recorder_of(made, heads=[3], layers=[0], num_probes=2)
    kept = kept_by(recorder)
    every = {pattern.layer for pattern in recorder.patterns(0)}
    model = made.model
    assert {pattern.layer for pattern in kept} == every
    # A convolution that is not linear in its values would have to be traced.
    linear = [layer for layer in model.mixing_layers() if layer.is_linear]
    assert every == {*model.attention_layers(), *linear, None}
    for pattern in kept:
        assert pattern.layer is None or (pattern.attention is None) != (pattern.mixing is None)
        heads = pattern.layer.num_heads if pattern.layer else 1
        assert len(pattern.weights) == (1 if pattern.attention else heads)
        assert list(pattern.numbers) == ([3] if pattern.attention else list(range(heads)))


def test_an_answer_of_a_prefix_is_asked_at_its_last_position(experiment):
    made = experiment(*COMPRESSION)
    recorder = recorder_of(made, num_probes=1)
    kept = recorder.patterns(0)
    (probe,) = recorder.probes.values()
    asked = made.objective.inspection_batch(probe)
    decoder = [p for p in kept if p.layer and p.layer.axes.queries == "prefix"]
    assert {p.layer.path.split(".")[0] for p in decoder if p.layer} == {"blocks"}
    assert asked.prefix is not None
    for pattern in decoder:
        assert pattern.answer_position == pattern.query_at[-1] == asked.prefix.shape[1] - 1


def test_a_run_that_stops_early_is_looked_at_where_it_stopped(tmp_path):
    words = ["callbacks=early_stop", "callbacks.early_stop.metric=loss"]
    words += ["callbacks.early_stop.patience=1", "callbacks.early_stop.min_delta=100"]
    words += ["callbacks.cadence.statistics_every=1000", "trainer.val_check_interval=2"]
    assert child.train(tmp_path, "dataset=pronoun", *words) == 0
    record = child.only_record(tmp_path)
    end = child.finished(tmp_path).steps
    assert end == 4
    for table in ("patterns", "heads", "vectors"):
        assert record.rows(table)["step"].to_pylist()[-1] == end, table


def test_what_a_decoder_reads_of_an_encoder_has_two_sequences(experiment):
    recorder = recorder_of(experiment("dataset=reversal"), num_probes=2)
    kept = kept_by(recorder)
    for pattern in kept:
        axes = pattern.layer.axes if pattern.layer else None
        crosses = axes is not None and axes.crosses
        assert crosses == (".cross." in pattern.source)
        assert (pattern.query_tokens is not None) == crosses
        assert (axes is not None and axes.queries == "prefix") == (
            pattern.source.startswith("blocks.")
        )
        if pattern.source.startswith("blocks."):
            assert pattern.queries[0] == "[BEGIN]"
        if not crosses and pattern.layer:
            assert list(pattern.queries) == list(pattern.tokens)
        assert pattern.weights.shape[1:] == (len(pattern.queries), len(pattern.tokens))
        assert pattern.weights.sum(axis=-1) == pytest.approx(1, abs=0.1)
    axes = {pattern.layer.axes for pattern in kept if pattern.layer}
    assert axes == {Axes(), Axes("prefix", "prefix"), Axes("prefix", "inputs")}


KINDS = ("pronoun", "text", "reversal", "parity")
DATASETS = [
    pytest.param(name, marks=pytest.mark.soak) if builds_on_another(name) else marked(name, KINDS)
    for name in choices("dataset")
]


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_dataset_has_probes_that_its_model_can_be_asked(composed, dataset):
    words = [*dataset_words(dataset), "model.d_model=16"]
    if "num_train" in stated(dataset):
        words += [f"dataset.num_{k}=80" for k in ("train", "validation", "test")]
    experiment = Experiment(composed(*words))
    recorder = recorder_of(experiment, num_probes=4, repeated=1)
    patterns = recorder.patterns(0)
    wanted = min(4, len(experiment.dataset.splits["validation"]))
    assert len(recorder.probes) == wanted + 1 >= 3
    assert "repeated-0" in recorder.probes
    model = experiment.model
    maps = [*model.attention_layers(), *(m for m in model.mixing_layers() if m.is_linear), None]
    assert {pattern.layer for pattern in patterns} == set(maps)
    assert len(patterns) == (wanted + 1) * len(maps)
    for pattern in patterns:
        assert pattern.weights.shape[1:] == (len(pattern.queries), len(pattern.tokens))
        assert pattern.layer is None or pattern.answer_position in pattern.query_at


def test_a_long_probe_is_cut_to_its_first_tokens():
    inputs, at = torch.arange(9)[None], torch.tensor([[2, 7]])
    probe = Batch(inputs, torch.tensor([[5, 6]]), at, torch.ones(1, 9, dtype=torch.bool))
    assert first_tokens(probe, 9) is probe
    cut = first_tokens(probe, 4)
    assert cut.at is not None
    assert (cut.inputs.tolist(), cut.at.tolist(), cut.targets.tolist()) == (
        [[0, 1, 2, 3]],
        [[2]],
        [[5]],
    )
    none = first_tokens(probe, 2)
    assert none.at is not None
    assert (none.at.tolist(), none.targets.tolist()) == ([[1]], [[IGNORE]])
    everywhere = Batch(inputs, inputs + 1)
    assert first_tokens(everywhere, 3).targets.tolist() == [[1, 2, 3]]


def test_every_probe_is_cut_to_as_many_tokens(experiment):
    recorder = recorder_of(experiment("dataset=pronoun"), max_tokens=5, num_probes=2)
    assert {probe.inputs.shape for probe in recorder.probes.values()} == {(1, 5)}


def test_padding_is_left_out_and_what_is_asked_stays():
    valid = torch.tensor([[True, True, True, False]])
    probe = Batch(torch.tensor([[5, 6, 7, 0]]), torch.tensor([[9]]), torch.tensor([[1]]), valid)
    cut = remove_padding(probe)
    assert (cut.inputs.tolist(), cut.targets.tolist()) == ([[5, 6, 7]], [[9]])
    assert cut.at is not None
    assert cut.at.tolist() == [[1]]
    assert cut.valid is None


def test_what_is_said_twice_is_asked_at_its_end(experiment):
    made = experiment("dataset=mqar", "model/mixer=hybrid")
    probe = draw_repeated_tokens(made.objective, 0, 16)
    assert probe.inputs.shape == (1, 16)
    assert probe.at is not None
    assert probe.at.tolist() == [[15]]
    # No token is drawn twice as long as there are others.
    draw = np.random.Generator(np.random.Philox(key=0))
    assert sorted(_draw_tokens(draw, 9, 9)) == list(range(9))
    assert len(_draw_tokens(draw, 2, 9)) == 9


def test_latents_are_counted_where_they_read_and_are_read(experiment):
    recorder = recorder_of(experiment(*COMPRESSION), num_probes=1)
    latents = [f"[LATENT {number}]" for number in range(3)]
    sequences = [tuple(map(list, (p.queries, p.tokens))) for p in recorder.patterns(0)]
    assert latents in [queries for queries, _ in sequences]
    assert latents in [tokens for _, tokens in sequences]
    assert all(queries != tokens for queries, tokens in sequences if latents in (queries, tokens))


def test_what_cannot_be_recorded_is_refused(experiment):
    pronoun, mqar = experiment("dataset=pronoun"), experiment("dataset=mqar", "model/mixer=hybrid")
    lstm = experiment("dataset=pronoun", "variant=lstm")
    refused_calls(
        "callbacks.recorder.{}",
        {
            "max_tokens": lambda: recorder_of(pronoun, max_tokens=0),
            "num_twins": lambda: recorder_of(pronoun, twins=-1),
            "no_twins": lambda: recorder_of(mqar, twins=2),
            "layers": lambda: recorder_of(pronoun, layers=[2]),
            "heads": lambda: recorder_of(pronoun, heads=[4]),
            "no_heads": lambda: recorder_of(pronoun, heads=[]),
            "no_layers": lambda: recorder_of(lstm, layers=[0]),
            "text": lambda: recorder_of(pronoun, texts=["the walrus slept"]),
        },
    )


def test_what_is_no_number_ends_the_training(once):
    experiment = Experiment(once("dataset=pronoun", "model.d_model=16"))
    with torch.no_grad():
        for weights in experiment.model.parameters():
            weights.fill_(math.nan)
    subject = experiment.subject
    recorders = {
        "patterns": PatternRecorder(subject),
        "statistics": HeadRecorder(subject),
        "vectors": VectorRecorder(subject),
    }
    calls = {name: partial(recorder.rows, 4) for name, recorder in recorders.items()}
    refused_calls("callbacks.diverged.{}", calls, kind=Diverged)


def test_one_head_or_one_vector_that_is_no_number_is_enough(once, monkeypatch):
    subject = Experiment(once("dataset=pronoun", "model.d_model=16")).subject
    layer, _ = subject.model.attention_layers()
    broken = {layer: {"confidence": torch.tensor([0.5, math.nan])}}
    monkeypatch.setattr("attnlab.callbacks.head_scores.head_statistics", lambda *_, **__: broken)
    vectors = subject.model.token_vectors
    assert vectors is not None
    with torch.no_grad():
        vectors[3, 2] = math.inf
    for name, recorder in (
        ("statistics", HeadRecorder(subject)),
        ("vectors", VectorRecorder(subject)),
    ):
        with refuses(Diverged, f"callbacks.diverged.{name}"):
            recorder.rows(4)
    # What is not kept may be anything.
    assert len(VectorRecorder(subject, num_tokens=3).rows(4)) == 1


class Careless(Evidence):
    """Draws at random, and leaves the model as it used it."""

    def measure(self) -> Finding:
        draw = torch.rand(()).item()
        self.subject.model.eval()
        return Finding({"draw": draw})


def test_training_does_not_notice_an_evidence_that_draws_and_leaves_its_mode(experiment):
    subject = experiment("dataset=parity").subject
    subject.model.train()
    before = torch.random.get_rng_state()
    (row,) = EvidenceRecorder(subject, {"mine": Careless(subject)}).rows(3)
    assert (row["evidence"], row["name"], row["step"]) == ("mine", "draw", 3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert subject.model.training
