"""A mixer of one's own is found by what it mixes with, whatever that is called."""

from collections.abc import Mapping
from functools import partial

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from attnlab.attend import Attend
from attnlab.callbacks.head_scores import HeadRecorder
from attnlab.callbacks.patterns import PatternRecorder
from attnlab.experiment import Experiment
from attnlab.interp.attention_taps import all_heads, record_patterns
from attnlab.interp.attribution import mixing_matrices
from attnlab.interp.head_stats import head_statistics
from attnlab.interp.importance import head_importance
from attnlab.interp.interventions import knock_out_edge, prune
from attnlab.interp.subject import Subject
from attnlab.layers import AttentionLayer, Axes, HeadRef, MixingLayer
from attnlab.mixer.base import Mixer
from attnlab.model.base import Model
from attnlab.model.transformer import Transformer
from attnlab.objective.base import Objective
from attnlab.position.base import Position
from attnlab.recurrence.base import mix
from attnlab.run_record.layers import Layers
from attnlab.run_record.pattern_table import Pattern
from attnlab.tap import Mixing
from tests.model.build import part

HEADS, D_MODEL = 2, 8


class Inner(Mixer):
    """Attends by an `Attend` of another name, one module further in than attnlab's own."""

    def __init__(self, d_model: int, position: Position, causal: bool, layer: int = 0) -> None:
        super().__init__(d_model, position, causal)
        self.projected = nn.Linear(d_model, 3 * d_model)
        self.parts = nn.ModuleDict({"inner": Attend(causal, 0.0, HEADS)})

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        query, key, value = rearrange(
            self.projected(x), "b s (three h d) -> three b h s d", three=3, h=HEADS
        )
        found = self.parts["inner"](query, key, value, None, valid)
        return rearrange(found, "b h s d -> b s (h d)")


class Averages(Mixer):
    """Averages what stood before, and shows it by a `Mixing` of another name."""

    def __init__(self, d_model: int, position: Position, causal: bool, layer: int = 0) -> None:
        super().__init__(d_model, position, causal)
        self.flow = Mixing(HEADS)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        def recur(value: Tensor) -> Tensor:
            count = torch.arange(1, value.shape[2] + 1, device=value.device)
            return value.cumsum(dim=2) / rearrange(count, "s -> s 1")

        value = rearrange(x, "b s (h d) -> b h s d", h=HEADS)
        return rearrange(mix(self.flow, recur, value, valid), "b h s d -> b s (h d)")


@pytest.fixture(scope="module")
def made(once) -> Experiment:
    """Data and an objective; the models are those of this file."""
    sizes = [f"dataset.num_{split}=40" for split in ("train", "validation", "test")]
    return Experiment(once("dataset=pronoun", "objective.causal=true", *sizes, "batch_size=10"))


def model_of(mixer: type[Mixer], objective: Objective) -> Model:
    torch.manual_seed(0)
    model = Transformer(
        *(len(objective.inputs), len(objective.outputs), objective.max_length),
        objective.arrangement,
        mixer=mixer,
        position=part("position", "learned"),
        ffn=part("ffn", "mlp"),
        block=part("block", "pre_norm"),
        d_model=D_MODEL,
        num_layers=2,
    )
    with torch.no_grad():
        for weights in model.parameters():
            weights *= 3
    return model.eval()


@pytest.fixture(scope="module")
def attending(made) -> Subject:
    return Subject(model_of(Inner, made.objective), made.objective, batch_size=10)


@pytest.fixture(scope="module")
def averaging(made) -> Subject:
    return Subject(model_of(Averages, made.objective), made.objective, batch_size=10)


def test_it_is_named_among_the_attention_layers(attending):
    assert attending.model.attention_layers() == [
        AttentionLayer(at, f"blocks.{at}.mixer.parts.inner", HEADS, Axes()) for at in (0, 1)
    ]
    assert attending.model.mixing_layers() == []
    assert all_heads(attending.model) == [HeadRef(*at) for at in ((0, 0), (0, 1), (1, 0), (1, 1))]


def test_it_is_recorded(attending):
    model = attending.model
    layers = Layers(model.attention_layers(), model.mixing_layers())
    rows = PatternRecorder(attending, num_probes=1).rows(3)
    first, second, influence = (Pattern.from_row(row, layers) for row in rows)
    assert [first.attention, second.attention] == model.attention_layers()
    assert influence.layer is None
    for pattern in (first, second):
        assert len(pattern.weights) == HEADS
        assert pattern.weights.sum(axis=-1) == pytest.approx(1, abs=0.05)
    measured = {row["layer"] for row in HeadRecorder(attending).rows(3)}
    assert measured == {layer.path for layer in model.attention_layers()}


def test_its_heads_are_measured(attending):
    split = attending.dataset.splits["validation"]
    found = head_statistics(attending, split)
    assert list(found) == attending.model.attention_layers()
    (asked,) = attending.batches(split)
    with torch.no_grad(), record_patterns(attending.model) as patterns:
        attending.model(*asked.model_inputs)
    for layer, pattern in patterns.items():
        expected = pattern.amax(dim=-1)[asked.valid[:, None].expand(-1, HEADS, -1)]
        mean = found[layer]["confidence"].mean()
        torch.testing.assert_close(mean, expected.mean(), atol=1e-5, rtol=1e-4)
    assert list(head_importance(attending, split).heads) == all_heads(attending.model)


def test_its_edges_and_heads_are_taken_away(attending):
    model, inputs = attending.model, attending.dataset.splits["test"][0].inputs
    with torch.no_grad(), record_patterns(model) as whole:
        before = model(inputs)[0]
    _, upper = whole.values()
    # What head 0 above looks at most.
    query, key = torch.tensor([5]), upper[:, 0, 5].argmax(dim=-1)
    at = int(key)
    with (
        torch.no_grad(),
        knock_out_edge(model, query, key, [1], [0]),
        record_patterns(model) as patterns,
    ):
        after = model(inputs)[0]
    gone = {layer.index: (p[0, :, 5, at] == 0).tolist() for layer, p in patterns.items()}
    assert gone == {0: [False, False], 1: [True, False]}
    assert all((p[0, :, 5, at] > 0).all() for p in whole.values())
    assert not torch.allclose(before[:, 5], after[:, 5], atol=1e-6)
    assert torch.equal(before[:, :5], after[:, :5])
    with torch.no_grad(), prune(model, [HeadRef(0, 1)]), record_patterns(model) as patterns:
        model(inputs)
    zero = {layer.index: [bool((h == 0).all()) for h in p[0]] for layer, p in patterns.items()}
    assert zero == {0: [False, True], 1: [False, False]}


def test_one_that_shows_its_matrix_is_named_and_shown(averaging):
    model, probe = averaging.model, averaging.dataset.splits["test"][0]
    length = int(probe.valid.sum())
    layers = [
        MixingLayer(at, f"blocks.{at}.mixer", f"blocks.{at}.mixer.flow", HEADS, Axes(), True)
        for at in (0, 1)
    ]
    assert model.mixing_layers() == layers
    assert model.attention_layers() == []
    matrices = mixing_matrices(model, averaging.objective.training_batch(probe))
    assert list(matrices) == layers
    expected = torch.ones(length, length).tril() / torch.arange(1, length + 1)[:, None]
    for matrix in matrices.values():
        shown = matrix[:, :length, :length]
        torch.testing.assert_close(shown, expected.expand(HEADS, -1, -1))
    rows = PatternRecorder(averaging, num_probes=1).rows(0)
    read = partial(Pattern.from_row, layers=Layers((), layers))
    assert [read(row).mixing for row in rows] == [*layers, None]
    assert HeadRecorder(averaging).rows(0) == []


class LeavesOut(Inner):
    """Holds a second `Attend` that is not its own reading, and does not offer it."""

    def __init__(self, d_model: int, position: Position, causal: bool, layer: int = 0) -> None:
        super().__init__(d_model, position, causal, layer)
        self.other = Attend(causal, 0.0, HEADS)

    def pattern_modules(self) -> Mapping[str, Attend | Mixing]:
        return {"parts.inner": super().pattern_modules()["parts.inner"]}


class Wrapper(Mixer):
    """Holds another mixer."""

    def __init__(self, inner: Mixer) -> None:
        super().__init__(D_MODEL, inner.position, inner.causal)
        self.wrapped = nn.ModuleList([inner])

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return self.wrapped[0](x, valid)


def test_what_a_mixer_does_not_offer_is_no_layer_in_a_model_or_another_mixer(made):
    paths = [layer.path for layer in model_of(LeavesOut, made.objective).attention_layers()]
    assert paths == [f"blocks.{at}.mixer.parts.inner" for at in (0, 1)]
    mixer = LeavesOut(D_MODEL, Position(D_MODEL, 4), True)
    assert list(Wrapper(mixer).pattern_modules()) == ["wrapped.0.parts.inner"]


def test_a_mixer_that_attends_offers_no_matrix_and_one_with_neither_offers_nothing():
    position = Position(D_MODEL, 4)
    both = Inner(D_MODEL, position, True)
    both.flow = Mixing(HEADS)
    assert list(both.pattern_modules()) == ["parts.inner"]
    assert list(Averages(D_MODEL, position, True).pattern_modules()) == ["flow"]
    assert part("mixer", "lstm")(D_MODEL, position, True, 0).pattern_modules() == {}
