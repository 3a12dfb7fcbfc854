"""Laws that every model keeps: each mixer, position, FFN and block of conf/, and the recurrence."""

from copy import deepcopy
from functools import cache

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
from tests.model.law import law
from tests.prose import refuses, says


def mixers_that_use(mark: str) -> list[str]:
    used = {name: part("mixer", name).func.position_inputs for name in choices("model/mixer")}
    return [name for name, marks in used.items() if mark in marks]


@cache
def pairs() -> dict[str, dict[str, str]]:
    """Each scheme of positions beside the mixers that ask for it."""
    return {
        f"{mixer}-{position}": {"mixer": mixer, "position": position}
        for mark, position in (("rotate", "rope"), ("bias", "alibi"))
        for mixer in mixers_that_use(mark)
        if mixer != "multihead"
    }


# Each part beside the defaults.
ARMS: dict[str, dict[str, str]] = {
    **{mixer: {"mixer": mixer} for mixer in choices("model/mixer")},
    **{position: {"position": position} for position in choices("model/position")},
    **{ffn: {"ffn": ffn} for ffn in choices("model/ffn")},
    **{block: {"block": block, "ffn": "moe"} for block in choices("model/block")},
    "recurrent": {},
    "recurrent, attending": {"attention": "multihead"},
}


def two_way_only() -> set[str]:
    competing = {ffn for ffn in choices("model/ffn") if part("ffn", ffn).func.routes_across_tokens}
    return {"recurrent, attending"} | competing


def causal_arms() -> list[str]:
    return sorted({*ARMS} - two_way_only())


def both_ways() -> list[tuple[str, bool]]:
    """List all arms, and whether they are causal."""
    return [*((arm, True) for arm in causal_arms()), *((arm, False) for arm in ARMS)]


STEPS = 6


def build(arm: str, causal: bool, **knobs) -> Model:
    """Build an arm anew."""
    torch.manual_seed(1)
    arrangement = DECODER if causal else ENCODER
    parts = ARMS[arm] if arm in ARMS else pairs()[arm]
    if arm.startswith("recurrent"):
        return recurrent(arrangement, **parts, **knobs).eval()
    return transformer(arrangement, **parts, **knobs).eval()


@cache
def built(arm: str, causal: bool) -> Model:
    """Build an arm once, for the laws that do not change it."""
    return build(arm, causal)


def tokens(batch: int = 3, length: int = LENGTH) -> Tensor:
    return torch.randint(TOKENS, (batch, length), generator=torch.Generator().manual_seed(2))


def logits(model: Model, inputs: Tensor, valid: Tensor | None = None) -> Tensor:
    return model(inputs, None, valid)[0].detach()


def test_what_lets_a_later_token_decide_is_refused_in_a_causal_model():
    for arm in two_way_only():
        with refuses(ValueError, f"model.not_causal.{arm.removeprefix('recurrent, ')}"):
            build(arm, True)


@law(lambda: [*causal_arms(), *pairs()])
def test_a_causal_model_is_blind_to_the_future(arm):
    """Sequence i keeps the tokens before place i + 1, and has others from there on."""
    model, inputs = built(arm, True), tokens(batch=1)
    later = torch.ones(LENGTH - 1, LENGTH, dtype=torch.bool).triu(1)
    changed = torch.where(later, (inputs + 1) % TOKENS, inputs)
    before, after = logits(model, torch.cat((inputs, changed))).split((1, LENGTH - 1))
    assert before.shape == (1, LENGTH, OUTPUTS)
    moved = (after - before).abs().amax(dim=-1)
    assert moved[~later].max() < 1e-5
    assert (moved.diagonal(1) > 1e-4).all()


@law(causal_arms)
def test_no_gradient_flows_back_from_an_answer_to_a_later_token(arm):
    model, vectors = built(arm, True), []

    def watch(_name: str, value: Tensor) -> Tensor:
        vectors.append(value.detach().requires_grad_())
        return vectors[0]

    with edit(model, "embedded", watch):
        answer = model(tokens())[0][:, 4]
    (gradient,) = torch.autograd.grad(answer.square().sum(), vectors[0])
    # A convolution by Fourier transforms is causal but for rounding.
    assert gradient[:, 5:].abs().max() < 1e-6 * gradient.abs().max()
    assert gradient[:, 4].abs().min(dim=-1).values.max() > 0


@law(ARMS)
def test_a_bidirectional_model_sees_the_future(arm):
    model, inputs = built(arm, False), tokens()
    changed = inputs.clone()
    changed[:, -1] = (changed[:, -1] + 1) % TOKENS
    before, after = logits(model, torch.cat((inputs, changed))).chunk(2)
    assert before.shape == (3, LENGTH, OUTPUTS)
    moved = (after - before).abs().amax(dim=-1)
    assert (moved[:, -2] > 1e-4).all()


@law(lambda: [*causal_arms(), *pairs()])
def test_steps_give_what_forward_gives_and_the_state_is_as_large_as_it_says(arm):
    model, inputs = deepcopy(built(arm, True)).double(), tokens()
    state, steps = None, []
    for at in range(STEPS):
        step, state = model.step(inputs[:, at : at + 1], at, state)
        steps.append(step)
        held = sum(t.numel() for t in tree_leaves(state) if t is not None)
        assert held == 3 * (model.state_size(at + 1) or 0)
    whole = logits(model, inputs)[:, :STEPS]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=0, atol=1e-6)


def test_a_bidirectional_model_refuses_to_step_and_has_no_state():
    refusals = set()
    for arm in ARMS:
        model = built(arm, False)
        assert model.state_size(5) is None, arm
        with pytest.raises(ValueError) as refusal:  # noqa: PT011
            model.step(tokens()[:, :1], 0)
        refusals.add(str(refusal.value))
    (refusal,) = refusals
    says("model.two_way_step", refusal)


@law(lambda: [*both_ways(), *((pair, causal) for pair in pairs() for causal in (True, False))])
def test_neither_padding_nor_the_rest_of_a_batch_matters(case):
    """Sequences two and three are the same one with other padding, which alone has none."""
    model, (whole, padded), short = built(*case), tokens(batch=2), 6
    valid = torch.ones(3, LENGTH, dtype=torch.bool)
    valid[1:, short:] = False
    fillers = torch.tensor([[0], [1]])
    together = torch.cat((whole[None], padded.where(valid[1:], fillers)))
    alone = logits(model, padded[None, :short])
    batched = logits(model, together, valid)[1:, :short]
    torch.testing.assert_close(batched, alone.expand_as(batched), rtol=0, atol=1e-5)


@law(["multihead", "recurrent"])
def test_reading_at_positions_equals_reading_everywhere(arm):
    model, inputs = built(arm, False), tokens()
    at = torch.tensor([[0, 4], [8, 8], [3, 1]])
    asked = model(inputs, at)[0]
    everywhere = logits(model, inputs)
    expected = torch.stack([everywhere[b, at[b]] for b in range(3)])
    torch.testing.assert_close(asked, expected)


@law(ARMS)
def test_the_seed_alone_decides_the_start_and_each_parameter_is_saved_once(arm):
    first, second = build(arm, False), built(arm, False)
    weights = first.state_dict()
    assert set(weights) == {name for name, _ in first.named_parameters()}
    assert weights.keys() == second.state_dict().keys()
    assert all(torch.equal(second.get_parameter(name), weights[name]) for name in weights)


@law(both_ways)
def test_gradients_reach_every_parameter(case):
    model = deepcopy(built(*case)).train()
    out, losses = model(tokens(batch=16))
    (out.square().sum() + sum(losses.values())).backward()
    for name, weights in model.named_parameters():
        assert weights.grad is not None, name
        assert weights.grad.abs().sum() > 0, name


@law(both_ways)
def test_recording_does_not_change_the_output(case):
    inputs, model = tokens(), built(*case)
    valid = torch.ones(3, LENGTH, dtype=torch.bool)
    valid[2, 5:] = False
    silent = logits(model, inputs, valid)
    with record(model) as heard:
        watched = logits(model, inputs, valid)
    torch.testing.assert_close(watched, silent, rtol=0, atol=1e-5)
    vectors = heard.pop("embedded")
    torch.testing.assert_close(vectors, model.get_submodule("embedding")(inputs))
    patterns = [value for name, value in heard.items() if name.endswith("pattern")]
    assert len(patterns) == len(taps(model, "*.scores"))
    for pattern in patterns:
        torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern.sum(-1)))
        assert pattern[2, :, :, 5:].abs().max() == 0
        if model.causal:
            assert pattern.triu(1).abs().max() == 0


def mixes_by_attention_alone(arm: str) -> bool:
    """Whether a cut edge of one layer's attention is the only way between two positions."""
    modules = list(built(arm, False).modules())
    # Two layers have a way around.
    return bool(taps(built(arm, False), "*.scores")) and not any(
        isinstance(module, nn.LSTM)
        or (isinstance(module, Mixer) and (module.unidirectional or module.min_layers > 1))
        or (isinstance(module, FFN) and module.routes_across_tokens)
        for module in modules
    )


@law(lambda: filter(mixes_by_attention_alone, ARMS))
def test_a_cut_edge_carries_nothing(arm):
    model, inputs = build(arm, False, num_layers=1), tokens()

    def cut(name: str, scores: Tensor) -> Tensor:
        scores = scores.clone()
        scores[..., 4, 6] = -torch.inf
        return scores

    changed = inputs.clone()
    changed[:, 6] = (changed[:, 6] + 1) % TOKENS
    both = torch.cat((inputs, changed))
    with edit(model, "*.scores", cut):
        before, after = logits(model, both)[:, 4].chunk(2)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    before, after = logits(model, both)[:, 4].chunk(2)
    assert not torch.allclose(after, before, atol=1e-4)


@law(causal_arms)
def test_every_precision_is_close_to_float32(arm):
    model, inputs = built(arm, True), tokens(batch=8)
    exact = logits(model, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = logits(model, inputs).float()
    low = logits(deepcopy(model).bfloat16(), inputs)
    # bfloat16 keeps 8 bits; a token near the border may go to another expert.
    assert (mixed - exact).abs().median() < 0.02 * exact.abs().max()
    assert low.dtype is torch.bfloat16
    assert (low.float() - exact).abs().median() < 0.03 * exact.abs().max()
    high = logits(deepcopy(model).double(), inputs)
    assert high.dtype is torch.float64
    torch.testing.assert_close(high.float(), exact, atol=1e-4, rtol=1e-3)


@law(["multihead", "recurrent"])
def test_network_depth_counts_embedding_hidden_and_output_layers(arm):
    assert build(arm, False, num_layers=3).network_depth == 5


def test_a_tap_that_is_unknown_or_hears_nothing_is_refused():
    model = built("multihead", False)
    with refuses(LookupError, "model.unknown_tap"), record(model, "*.patern"):
        pass
    with refuses(RuntimeError, "model.silent_tap"), record(model, "*.pattern"):
        pass


@pytest.mark.parametrize(
    ("key", "knobs"), [("no_layer", {"num_layers": 0}), ("tied", {"tied": True})]
)
def test_an_impossible_model_is_refused(key, knobs):
    with refuses(ValueError, f"model.impossible.{key}"):
        transformer(ENCODER, **knobs)


def test_a_sequence_longer_than_the_model_is_refused():
    with refuses(ValueError, "model.too_long"):
        built("multihead", False)(tokens(length=12))
