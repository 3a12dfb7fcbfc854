"""Influence at every position, and what layers mix: against loops, Jacobians, closed forms."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest
import torch
from einops import einsum
from torch import Tensor, nn

from attnlab.interp import attribution as module
from attnlab.interp.attribution import (
    influence_matrix,
    logits_and_influence,
    mixing_matrices,
    row_shares,
)
from attnlab.layers import Axes, MixingLayer
from attnlab.mixer.base import Bidirectional
from attnlab.model.base import DECODER, ENCODER, ENCODER_DECODER, Arrangement, Model
from attnlab.split import Batch
from attnlab.tap import Tap, edit, record
from tests.choices import choices
from tests.model.build import LENGTH, TOKENS, WIDTH, recurrent, transformer
from tests.prose import refuses

ARRANGEMENTS = {"causal": DECODER, "two-way": ENCODER, "encoder-decoder": ENCODER_DECODER}
FAMILIES = {mixer: (transformer, {"mixer": mixer}) for mixer in choices("model/mixer")}
FAMILIES["moe"] = (transformer, {"ffn": "moe"})
FAMILIES["recurrent"] = (recurrent, {})
BACKWARD = ("multihead", "recurrent", "gated_delta")
FAST = ("multihead", "moe", "recurrent", "gated_delta", "hybrid", "long_convolution")


def cases(families: Iterable[str], fast: Collection[str]) -> list[Any]:
    """Give every family and arrangement; few of them are fast, and one of each other is slow."""
    return [
        pytest.param(
            family,
            arrangement,
            marks=[]
            if family in fast
            else pytest.mark.slow
            if arrangement == "two-way"
            else pytest.mark.soak,
        )
        for family in families
        for arrangement in ARRANGEMENTS
    ]


def model(family: str, arrangement: Arrangement = DECODER, **knobs) -> Any:
    """Build a model whose weights are large enough to matter."""
    build, parts = FAMILIES[family]
    made = build(arrangement, **parts, **knobs).double().eval()
    with torch.no_grad():
        for weights in made.parameters():
            weights += 0.2 * torch.randn_like(weights)
    return made


def asked(arrangement: Arrangement = DECODER, length: int = LENGTH) -> Batch:
    inputs, prefix = torch.randint(TOKENS, (1, LENGTH)), torch.randint(TOKENS, (1, 5))
    valid = None if length == LENGTH else torch.arange(LENGTH)[None] < length
    return Batch(inputs, inputs, valid=valid, prefix=prefix if arrangement.encoder else None)


@pytest.mark.parametrize(("family", "arrangement"), cases(FAMILIES, BACKWARD))
def test_each_row_is_one_backward_pass_from_its_position(family, arrangement):
    made = model(family, ARRANGEMENTS[arrangement])
    batch, vectors = asked(ARRANGEMENTS[arrangement]), []

    def watch(_name: str, value: Tensor) -> Tensor:
        vectors.append(value.detach().requires_grad_())
        return vectors[0]

    with edit(made, "embedded", watch):
        logits, _ = made(*batch.model_inputs)
    rows = []
    for answer in logits[0]:
        (gradient,) = torch.autograd.grad(answer.max(), vectors[0], retain_graph=True)
        sizes = (gradient * vectors[0].detach())[0].sum(dim=-1).abs()
        rows.append(sizes / sizes.sum())
    found = influence_matrix(made, batch)
    torch.testing.assert_close(found, torch.stack(rows).float(), rtol=1e-4, atol=1e-6)
    if arrangement == "causal":
        assert (found.triu(1) == 0).all()
        assert (found[-1] > 0).sum() > 1


def test_the_row_of_the_asked_position_is_the_influence_there():
    made = model("recurrent", ENCODER)
    batch = asked()._replace(at=torch.tensor([[6]]))
    torch.testing.assert_close(
        influence_matrix(made, batch)[6], logits_and_influence(made, batch)[1][0]
    )


def test_a_long_sequence_goes_through_in_parts(monkeypatch):
    made, batch = model("hybrid"), asked()
    whole = influence_matrix(made, batch), mixing_matrices(made, batch)
    seen: list[int] = []
    monkeypatch.setattr(module, "TOKENS", 2 * LENGTH)
    with made.register_forward_pre_hook(lambda _, given: seen.append(given[0].numel())):
        torch.testing.assert_close(influence_matrix(made, batch), whole[0])
    assert max(seen) == 2 * LENGTH
    torch.testing.assert_close(mixing_matrices(made, batch), whole[1])


class Averaging(Model):
    """Mixes token vectors by a fixed matrix, and reads them out: all of it is linear."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.arrangement, self.weights = DECODER, weights
        self.embedding, self.embedded = nn.Embedding(TOKENS, WIDTH), Tap()
        self.head = nn.Linear(WIDTH, 4)

    def encode(self, inputs, valid=None, prefix=None, prefix_valid=None):
        return einsum(
            self.weights, self.embedded(self.embedding(inputs)), "q k, b k d -> b q d"
        ), {}

    def step(self, inputs, at, state=None):
        raise ValueError

    def state_size(self, length):
        return None


def test_of_a_linear_model_the_shares_are_weight_times_the_output_of_each_vector():
    weights = torch.randn(LENGTH, LENGTH).tril()
    weights[3] = 0
    made, batch = Averaging(weights), asked()
    vectors = made.embedding(batch.inputs)[0].detach()
    best = made.head(weights @ vectors).argmax(dim=-1)
    expected = (weights * (made.get_parameter("head.weight")[best] @ vectors.T)).abs().detach()
    expected = expected / expected.sum(dim=-1, keepdim=True).clamp(1e-9)
    assert (expected[3] == 0).all()
    torch.testing.assert_close(influence_matrix(made, batch), expected)


@pytest.mark.parametrize(("family", "arrangement"), cases(choices("model/mixer"), FAST))
def test_every_layer_shows_a_pattern_or_what_it_mixes(family, arrangement):
    made, batch = model(family, ARRANGEMENTS[arrangement]), asked(ARRANGEMENTS[arrangement])
    found = mixing_matrices(made, batch)
    attending = [layer for layer in made.attention_layers() if not layer.axes.crosses]
    layers = {layer.path.partition(".mixer")[0] for layer in (*found, *attending)}
    stacks = ("encoder.blocks", "blocks") if arrangement == "encoder-decoder" else ("blocks",)
    expected = [f"{stack}.{layer}" for stack in stacks for layer in (0, 1)]
    assert layers == set(expected)
    shown = [layer.path.partition(".mixer")[0] for layer in found]
    assert shown == sorted(shown, key=expected.index)
    assert set(found) == set(made.mixing_layers())
    for layer, matrix in found.items():
        decodes = arrangement == "encoder-decoder" and layer.path.startswith("blocks")
        own = 5 if decodes else LENGTH
        assert layer.axes == (Axes("prefix", "prefix") if decodes else Axes())
        assert matrix.shape == (layer.num_heads, own, own)
        assert matrix.abs().sum() > 0
        if own == 5 or arrangement == "causal":
            assert (matrix.triu(1) == 0).all()


@pytest.mark.parametrize(("family", "length"), [("retention", 6), ("gated_delta", LENGTH)])
def test_both_ways_are_shown_in_the_sequences_own_positions(family, length):
    made, batch = model(family, ENCODER, num_layers=1), asked(length=length)
    found = mixing_matrices(made, batch)
    assert [layer.path for layer in found] == [
        "blocks.0.mixer.forwards",
        "blocks.0.mixer.backwards",
    ]
    assert [layer.source for layer in found] == [f"{layer.path}.mixing" for layer in found]
    forwards, backwards = found.values()
    assert (forwards.triu(1) == 0).all()
    assert (backwards[:, :length].tril(-1) == 0).all()
    assert (forwards[..., length:] == 0).all()
    assert (backwards[..., length:] == 0).all()
    # The second one by itself, on the sequence turned by hand and without the padding.
    given: list[Tensor] = []
    both = made.blocks[0].mixer
    with both.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0])):
        made(*batch.model_inputs)
    with record(both.backwards, "mixing") as heard:
        both.backwards(given[0][:, :length].flip(1))
    turned = heard["mixing"][0].flip(1, 2).float()
    torch.testing.assert_close(backwards[:, :length, :length], turned)


@pytest.mark.parametrize(
    ("family", "causal"),
    [
        *(("lstm", True), ("lstm", False), ("min_lstm", True)),
        *(("long_convolution", False), ("short_convolution", True)),
    ],
)
def test_a_layer_without_a_matrix_shows_its_jacobian_between_outputs_and_inputs(family, causal):
    made, batch = model(family, DECODER if causal else ENCODER, num_layers=1), asked()
    given: list[Tensor] = []
    mixer = made.blocks[0].mixer
    assert isinstance(mixer, Bidirectional) != causal
    with mixer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].detach())):
        made(*batch.model_inputs)
    slopes: Any = torch.autograd.functional.jacobian(lambda x: mixer(x)[0], given[0])
    expected = einsum(mixer(given[0])[0], slopes[:, :, 0], given[0][0], "q d, q d k e, k e -> q k")
    ((layer, matrix),) = mixing_matrices(made, batch).items()
    assert layer == MixingLayer(
        0, "blocks.0.mixer", "blocks.0.mixer.influence", 1, Axes(), is_linear=False
    )
    assert mixing_matrices(made, batch, traced=False) == {}
    torch.testing.assert_close(matrix[0], expected.float(), rtol=1e-4, atol=1e-6)
    if causal:
        assert (matrix.triu(1) == 0).all()


def test_the_parts_of_a_linear_layer_add_up_to_the_square_of_each_output(monkeypatch):
    made, batch = model("short_convolution", num_layers=1), asked()
    mixer, weights = made.blocks[0].mixer, torch.randn(LENGTH, LENGTH).tril().double()
    monkeypatch.setattr(
        type(mixer), "forward", lambda _, x, valid=None: einsum(weights, x, "q k, b k d -> b q d")
    )
    given: list[Tensor] = []
    with mixer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].detach()[0])):
        (matrix,) = mixing_matrices(made, batch).values()
    mixed = weights @ given[0]
    closed = weights * (mixed @ given[0].T)
    torch.testing.assert_close(matrix[0], closed.float())
    torch.testing.assert_close(matrix[0].sum(-1), mixed.square().sum(-1).float())


def test_padding_has_no_part_in_what_a_layer_mixes():
    length = 6
    batch = asked(length=length)
    for family in ("lstm", "linear_attention", "selective_state_space"):
        for arrangement in (DECODER, ENCODER):
            made = model(family, arrangement, num_layers=1)
            short = Batch(batch.inputs[:, :length], batch.targets[:, :length])
            alone = mixing_matrices(made, short)
            for layer, matrix in mixing_matrices(made, batch).items():
                assert (matrix[..., length:] == 0).all()
                torch.testing.assert_close(matrix[:, :length, :length], alone[layer])


@pytest.mark.parametrize("family", ["lstm", "gated_delta", "recurrent"])
def test_looking_at_matrices_leaves_no_trace(family):
    made, batch = model(family, dropout=0.5).train(), asked()
    before, state = torch.get_rng_state(), {n: w.clone() for n, w in made.state_dict().items()}
    first = influence_matrix(made, batch), mixing_matrices(made, batch)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(m.training and not m._forward_hooks for m in made.modules())
    assert all(not m._forward_pre_hooks for m in made.modules())
    assert all(weights.grad is None for weights in made.parameters())
    assert all(torch.equal(weights, state[name]) for name, weights in made.state_dict().items())
    again = influence_matrix(made, batch), mixing_matrices(made, batch)
    torch.testing.assert_close(again, first, rtol=0, atol=0)


def test_shares_are_sizes_of_a_row_that_sum_to_1_and_zeros_stay():
    matrix = torch.tensor([[[1.0, -3.0], [0.0, 0.0]]])
    assert row_shares(matrix).tolist() == [[[0.25, 0.75], [0.0, 0.0]]]


def test_several_sequences_are_refused():
    batch = Batch(torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 4, dtype=torch.long))
    for look in (influence_matrix, mixing_matrices):
        with refuses(ValueError, "evidence.influence.two_sequences"):
            look(model("lstm"), batch)
