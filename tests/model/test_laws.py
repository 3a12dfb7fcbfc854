"""Laws that every model keeps: each mixer, position, FFN and block of conf/, and the recurrence."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from attnlab.ffn.base import FFN
from attnlab.mixer.base import Mixer
from attnlab.model.base import DECODER, ENCODER, Model
from attnlab.tap import edit, record, taps
from tests.choices import choices
from tests.model.build import LENGTH, OUTPUTS, TOKENS, part, recurrent, transformer


def heeding(mark: str) -> list[str]:
    named = {name: part("mixer", name).func.heeds for name in choices("model/mixer")}
    return [name for name, heeds in named.items() if mark in heeds]


# Each part beside the defaults, and each scheme of positions beside the mixers that ask for it.
PAIRS = {
    f"{mixer}-{position}": {"mixer": mixer, "position": position}
    for mark, position in (("rotate", "rope"), ("bias", "alibi"))
    for mixer in heeding(mark)
    if mixer != "multihead"
}
ARMS: dict[str, dict[str, str]] = {
    **PAIRS,
    **{mixer: {"mixer": mixer} for mixer in choices("model/mixer")},
    **{position: {"position": position} for position in choices("model/position")},
    **{ffn: {"ffn": ffn} for ffn in choices("model/ffn")},
    **{block: {"block": block, "ffn": "moe"} for block in choices("model/block")},
    "recurrent": {},
    "recurrent, attending": {"attention": "multihead"},
}
TWO_WAY_ONLY = {"recurrent, attending"} | {
    ffn for ffn in choices("model/ffn") if part("ffn", ffn).func.competes
}


@pytest.fixture(
    params=[pytest.param(arm, marks=[pytest.mark.slow] * (arm in PAIRS)) for arm in ARMS],
    scope="module",
)
def make(request: pytest.FixtureRequest) -> Callable[..., Model]:
    """Build an arm; a law about an arrangement that it refuses is about the refusal."""
    name, names = request.param, ARMS[request.param]

    def build(causal: bool, **knobs) -> Model:
        torch.manual_seed(1)
        arrangement = DECODER if causal else ENCODER
        if name in TWO_WAY_ONLY and causal:
            with pytest.raises(ValueError, match=r"causal"):
                _any(name, names, arrangement, knobs)
            pytest.skip(f"{name} is for bidirectional models, and says so")
        return _any(name, names, arrangement, knobs).eval()

    return build


def _any(name: str, names: dict[str, str], arrangement, knobs) -> Model:
    if name.startswith("recurrent"):
        return recurrent(arrangement, **names, **knobs)
    return transformer(arrangement, **names, **knobs)


def tokens(batch: int = 3, length: int = LENGTH) -> Tensor:
    return torch.randint(TOKENS, (batch, length), generator=torch.Generator().manual_seed(2))


def logits(model: Model, inputs: Tensor, valid: Tensor | None = None) -> Tensor:
    return model(inputs, None, valid)[0].detach()


@pytest.mark.parametrize("causal", [True, False])
def test_a_model_answers_at_every_position(make, causal):
    assert logits(make(causal), tokens()).shape == (3, LENGTH, OUTPUTS)


def test_a_causal_model_is_blind_to_the_future(make):
    """Sequence i keeps the tokens before place i + 1, and has others from there on."""
    model, inputs = make(True), tokens(batch=1)
    later = torch.ones(LENGTH - 1, LENGTH, dtype=torch.bool).triu(1)
    changed = torch.where(later, (inputs + 1) % TOKENS, inputs)
    moved = (logits(model, changed) - logits(model, inputs)).abs().amax(dim=-1)
    assert moved[~later].max() < 1e-5
    assert (moved.diagonal(1) > 1e-4).all()


def test_no_gradient_flows_back_from_an_answer_to_a_later_token(make):
    model, vectors = make(True), []

    def watch(_name: str, value: Tensor) -> Tensor:
        vectors.append(value.detach().requires_grad_())
        return vectors[0]

    with edit(model, "embedded", watch):
        answer = model(tokens())[0][:, 4]
    (gradient,) = torch.autograd.grad(answer.square().sum(), vectors[0])
    # A convolution by Fourier transforms is causal but for rounding.
    assert gradient[:, 5:].abs().max() < 1e-6 * gradient.abs().max()
    assert gradient[:, 4].abs().min(dim=-1).values.max() > 0


def test_a_bidirectional_model_sees_the_future(make):
    model, inputs = make(False), tokens()
    changed = inputs.clone()
    changed[:, -1] = (changed[:, -1] + 1) % TOKENS
    moved = (logits(model, changed) - logits(model, inputs)).abs().amax(dim=-1)
    assert (moved[:, -2] > 1e-4).all()


def test_forward_equals_step_by_step(make):
    model, inputs = make(True).double(), tokens()
    state, steps = None, []
    for at in range(LENGTH):
        step, state = model.step(inputs[:, at : at + 1], at, state)
        steps.append(step)
    torch.testing.assert_close(torch.cat(steps, dim=1), logits(model, inputs), rtol=0, atol=1e-6)


def test_the_state_is_as_large_as_it_says(make):
    model, inputs = make(True), tokens(batch=1)
    state = None
    for at in range(5):
        _, state = model.step(inputs[:, at : at + 1], at, state)
    held = sum(t.numel() for t in tree_leaves(state) if t is not None)
    assert held == model.state_size(5)
    assert make(False).state_size(5) is None


def test_a_bidirectional_model_refuses_to_step(make):
    with pytest.raises(ValueError, match="bidirectional"):
        make(False).step(tokens()[:, :1], 0)


@pytest.mark.parametrize("causal", [True, False])
def test_padding_does_not_matter(make, causal):
    model, inputs, short = make(causal), tokens(), 6
    valid = torch.ones(3, LENGTH, dtype=torch.bool)
    valid[1, short:] = False
    alone = logits(model, inputs[1:2, :short])
    for filler in (0, 1):
        padded = inputs.masked_fill(~valid, filler)
        together = logits(model, padded, valid)
        torch.testing.assert_close(together[1:2, :short], alone, rtol=0, atol=1e-5)


def test_the_order_of_a_batch_does_not_matter(make):
    model, inputs = make(False), tokens()
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(
        logits(model, inputs[order]), logits(model, inputs)[order], rtol=0, atol=1e-5
    )


def test_reading_at_positions_equals_reading_everywhere(make):
    model, inputs = make(False), tokens()
    at = torch.tensor([[0, 4], [8, 8], [3, 1]])
    asked = model(inputs, at)[0]
    everywhere = logits(model, inputs)
    expected = torch.stack([everywhere[b, at[b]] for b in range(3)])
    torch.testing.assert_close(asked, expected)


def test_the_seed_alone_decides_the_start(make):
    first, second = make(False).state_dict(), make(False).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("causal", [True, False])
def test_gradients_reach_every_parameter(make, causal):
    model = make(causal).train()
    out, losses = model(tokens(batch=16))
    (out.square().sum() + sum(losses.values())).backward()
    for name, weights in model.named_parameters():
        assert weights.grad is not None, name
        assert weights.grad.abs().sum() > 0, name


def test_each_parameter_is_saved_once(make):
    model = make(False)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("causal", [True, False])
def test_recording_does_not_change_the_output(make, causal):
    model, inputs = make(causal), tokens()
    valid = torch.ones(3, LENGTH, dtype=torch.bool)
    valid[2, 5:] = False
    silent = logits(model, inputs, valid)
    with record(model) as heard:
        watched = logits(model, inputs, valid)
    torch.testing.assert_close(watched, silent, rtol=0, atol=1e-5)
    vectors = heard.pop("embedded")
    torch.testing.assert_close(vectors, model.embedding(inputs))
    patterns = [value for name, value in heard.items() if name.endswith("pattern")]
    assert len(patterns) == len(taps(model, "*.scores"))
    for pattern in patterns:
        torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern.sum(-1)))
        assert pattern[2, :, :, 5:].abs().max() == 0
        if causal:
            assert pattern.triu(1).abs().max() == 0


def test_a_cut_edge_carries_nothing(make):
    if any(isinstance(m, Mixer) and m.min_layers > 1 for m in make(False).modules()):
        pytest.skip("in two layers there is a way around")
    model, inputs = make(False, num_layers=1), tokens()
    ways = [
        module
        for module in model.modules()
        if isinstance(module, nn.LSTM)
        or (isinstance(module, Mixer) and module.one_way)
        or (isinstance(module, FFN) and module.competes)
    ]
    if ways or not taps(model, "*.scores"):
        pytest.skip("the model mixes by more than attention, so a cut edge is not the only way")

    def cut(name: str, scores: Tensor) -> Tensor:
        scores = scores.clone()
        scores[..., 4, 6] = -torch.inf
        return scores

    changed = inputs.clone()
    changed[:, 6] = (changed[:, 6] + 1) % TOKENS
    with edit(model, "*.scores", cut):
        torch.testing.assert_close(
            logits(model, inputs)[:, 4], logits(model, changed)[:, 4], rtol=0, atol=1e-6
        )
    assert not torch.allclose(logits(model, inputs)[:, 4], logits(model, changed)[:, 4], atol=1e-4)


def test_bfloat16_is_close_to_float32(make):
    model, inputs = make(True), tokens(batch=8)
    exact = logits(model, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = logits(model, inputs).float()
    # bfloat16 keeps 8 bits; a token near the border may go to another expert.
    assert (low - exact).abs().median() < 0.02 * exact.abs().max()


def test_bfloat16_throughout_is_close_to_float32(make):
    model, inputs = make(True), tokens(batch=8)
    exact = logits(model, inputs)
    low = logits(model.bfloat16(), inputs)
    assert low.dtype is torch.bfloat16
    assert (low.float() - exact).abs().median() < 0.03 * exact.abs().max()


def test_float64_is_close_to_float32(make):
    model, inputs = make(True), tokens(batch=8)
    low = logits(model, inputs)
    torch.testing.assert_close(logits(model.double(), inputs).float(), low, atol=1e-4, rtol=1e-3)


def test_network_depth_counts_embedding_hidden_and_output_layers(make):
    assert make(False, num_layers=3).network_depth == 5


def test_an_unknown_tap_is_refused():
    model = transformer(ENCODER)
    with pytest.raises(LookupError, match="no tap matches"), record(model, "*.patern"):
        pass


def test_a_recorder_that_heard_nothing_says_so():
    model = transformer(ENCODER)
    with pytest.raises(RuntimeError, match="heard nothing"), record(model, "*.pattern"):
        pass


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"num_layers": 0}, "num_layers=0"),
        ({"tied": True}, "7 outputs and 11 tokens"),
    ],
)
def test_an_impossible_model_is_refused(knobs, words):
    with pytest.raises(ValueError, match=words):
        transformer(ENCODER, **knobs)


def test_a_sequence_longer_than_the_model_is_refused():
    with pytest.raises(ValueError, match="12 tokens exceeds the model's 9 positions"):
        transformer(ENCODER)(tokens(length=12))
