"""Laws of the models with two stacks: what the encoder read is all that the decoder knows of it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from attnlab.mixer.base import Mixer
from attnlab.model.base import DECODER, ENCODER_DECODER, Arrangement, Model
from attnlab.model.transformer import Bottleneck
from attnlab.tap import record, taps
from tests.choices import choices
from tests.model.build import LENGTH, OUTPUTS, TOKENS, WIDTH, part, recurrent, transformer

BOTTLENECK = Arrangement(causal=False, encoder=True, latents=3)
READERS = [m for m in choices("model/mixer") if part("mixer", m).func.read is not Mixer.read]

ARMS: dict[str, Callable[[], Model]] = {
    **{m: lambda m=m: transformer(ENCODER_DECODER, mixer=m) for m in choices("model/mixer")},
    **{
        f"reads by {m}": lambda m=m: transformer(ENCODER_DECODER, cross=m)
        for m in READERS
        if m != "hybrid"
    },
    **{b: lambda b=b: transformer(ENCODER_DECODER, block=b) for b in choices("model/block")},
    **{p: lambda p=p: transformer(ENCODER_DECODER, position=p) for p in choices("model/position")},
    "recurrent": lambda: recurrent(ENCODER_DECODER),
    "recurrent, attending": lambda: recurrent(ENCODER_DECODER, attention="additive"),
    "recurrent, one layer": lambda: recurrent(ENCODER_DECODER, num_layers=1),
}


@pytest.fixture(params=ARMS, scope="module")
def model(request: pytest.FixtureRequest) -> Model:
    torch.manual_seed(1)
    return ARMS[request.param]().eval()


def tokens(batch: int = 3, length: int = LENGTH, seed: int = 2) -> Tensor:
    return torch.randint(TOKENS, (batch, length), generator=torch.Generator().manual_seed(seed))


def logits(model: Model, source: Tensor, prefix: Tensor, valid: Tensor | None = None) -> Tensor:
    return model(source, None, valid, prefix)[0].detach()


def test_every_place_of_the_prefix_answers_and_sees_the_whole_source(model):
    source, prefix = tokens(), tokens(length=5, seed=3)
    before = logits(model, source, prefix)
    assert before.shape == (3, 5, OUTPUTS)
    for at in (0, LENGTH - 1):
        changed = source.clone()
        changed[:, at] = (changed[:, at] + 1) % TOKENS
        moved = (logits(model, changed, prefix) - before).abs().amax(dim=(0, 2))
        assert (moved > 1e-5).all()


def test_no_place_of_the_prefix_sees_a_later_one(model):
    source, prefix = tokens(), tokens(seed=3)
    before = logits(model, source, prefix)
    for at in range(1, LENGTH):
        changed = prefix.clone()
        changed[:, at:] = (changed[:, at:] + 1) % TOKENS
        after = logits(model, source, changed)
        torch.testing.assert_close(after[:, :at], before[:, :at], rtol=0, atol=1e-6)
        assert not torch.allclose(after[:, at], before[:, at], atol=1e-4)


def test_steps_from_the_start_give_what_the_whole_prefix_gives(model):
    source, prefix = tokens(), tokens(length=6, seed=3)
    valid = torch.arange(LENGTH)[None] < torch.tensor([[9], [4], [1]])
    model.double()
    state, steps = model.start(source, valid), []
    for at in range(6):
        step, state = model.step(prefix[:, at : at + 1], at, state)
        steps.append(step)
    whole = logits(model, source, prefix, valid)
    model.float()
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=0, atol=1e-6)


def test_padding_of_the_source_does_not_matter(model):
    source, prefix, short = tokens(), tokens(length=5, seed=3), 4
    valid = torch.arange(LENGTH)[None] < torch.tensor([[LENGTH], [short], [LENGTH]])
    alone = logits(model, source[1:2, :short], prefix[1:2])
    for filler in (0, 1):
        together = logits(model, source.masked_fill(~valid, filler), prefix, valid)
        torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)


def test_the_state_is_as_large_as_it_says_and_has_the_batch_first(model):
    source, prefix = tokens(batch=2, length=5), tokens(batch=2, length=5, seed=3)
    state = model.start(source)
    for at in range(5):
        _, state = model.step(prefix[:, at : at + 1], at, state)
    held = [t for t in tree_leaves(state) if t is not None]
    assert all(len(t) == 2 for t in held)
    assert sum(t.numel() for t in held) == 2 * (model.state_size(5) or 0)


def test_gradients_reach_every_parameter(model):
    model.zero_grad()
    out, losses = model.train()(tokens(16), None, None, tokens(16, seed=3))
    (out.square().sum() + sum(losses.values())).backward()
    model.eval()
    for name, weights in model.named_parameters():
        assert weights.grad is not None, name
        assert weights.grad.abs().sum() > 0, name


def test_recording_does_not_change_the_output(model):
    source, prefix = tokens(), tokens(length=5, seed=3)
    silent = logits(model, source, prefix)
    with record(model) as heard:
        torch.testing.assert_close(logits(model, source, prefix), silent, rtol=0, atol=1e-5)
    for name in taps(model, "*.pattern"):
        sums = heard[name].sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums))


def test_cross_attention_looks_from_the_prefix_at_the_source():
    model = transformer(ENCODER_DECODER).eval()
    with record(model, "blocks.0.cross.*.pattern") as heard:
        logits(model, tokens(), tokens(length=5, seed=3))
    assert heard["blocks.0.cross.attend.pattern"].shape[-2:] == (5, LENGTH)


def test_both_stacks_count_in_the_depth():
    assert transformer(ENCODER_DECODER, num_layers=3).network_depth == 2 * 3 + 2
    assert recurrent(ENCODER_DECODER, num_layers=3).network_depth == 2 * 3 + 2


def test_a_bottleneck_passes_so_many_vectors_and_no_more():
    model = transformer(BOTTLENECK).eval()
    memory: list[Tensor] = []
    assert isinstance(model.bottleneck, Bottleneck)
    model.bottleneck.register_forward_hook(lambda *passed: memory.append(passed[2]))
    blanks = torch.full((3, LENGTH), TOKENS - 1)
    before = logits(model, tokens(), blanks)
    assert memory[0].shape == (3, 3, WIDTH)
    # Whoever holds these vectors has all: another source with the same ones is answered alike.
    handle = model.bottleneck.register_forward_hook(lambda *_: memory[0])
    torch.testing.assert_close(logits(model, tokens(seed=9), blanks), before)
    handle.remove()
    assert not torch.allclose(logits(model, tokens(seed=9), blanks), before, atol=1e-4)


def test_a_bottleneck_answers_by_positions_so_they_must_be_marked():
    for position in choices("model/position"):
        if part("position", position).func.marks == "embed":
            transformer(BOTTLENECK, position=position)
            continue
        with pytest.raises(ValueError, match="position=learned or sinusoidal"):
            transformer(BOTTLENECK, position=position)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: transformer(ENCODER_DECODER)(tokens()), "needs a prefix"),
        (lambda: transformer(DECODER)(tokens(), prefix=tokens()), "takes no prefix"),
        (lambda: transformer(ENCODER_DECODER).step(tokens()[:, :1], 0), "`start` gives"),
        (lambda: recurrent(ENCODER_DECODER).step(tokens()[:, :1], 0), "`start` gives"),
        (lambda: transformer(DECODER).start(tokens()), "no encoder"),
        (lambda: recurrent(DECODER).start(tokens()), "no encoder"),
        (lambda: recurrent(BOTTLENECK), "no latents"),
        (lambda: recurrent(DECODER, attention="multihead"), "attention=null"),
        (lambda: transformer(ENCODER_DECODER, cross="lstm"), "cannot read another"),
    ],
)
def test_what_cannot_be_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("mixer", ["multihead", "lstm"])
def test_padding_does_not_reach_what_comes_back_through_a_bottleneck(mixer):
    model = transformer(BOTTLENECK, mixer=mixer).eval()
    source, short = tokens(), 4
    valid = torch.arange(LENGTH)[None] < torch.tensor([[LENGTH], [short], [LENGTH]])
    blanks = torch.zeros_like(source)
    alone = model(source[1:2, :short], None, None, blanks[1:2, :short])[0]
    together = model(source, None, valid, blanks, valid)[0]
    torch.testing.assert_close(together[1:2, :short], alone, rtol=0, atol=1e-5)


def test_what_follows_an_answer_takes_no_room_in_an_expert():
    model = transformer(ENCODER_DECODER, ffn="moe").train()
    source, prefix = tokens(), tokens(seed=3)
    valid = torch.arange(LENGTH)[None] < torch.tensor([[2], [4], [LENGTH]])
    heard = []
    for filler in (0, 1):
        with record(model, "blocks.*.load") as loads:
            _, losses = model(source, None, None, prefix.masked_fill(~valid, filler), valid)
        heard.append([losses["balance"], *loads.values()])
    torch.testing.assert_close(heard[0], heard[1], rtol=0, atol=1e-6)


def test_attention_that_cannot_read_is_refused_before_training():
    with pytest.raises(ValueError, match=r"attention=MinLSTM .* cannot read another"):
        recurrent(ENCODER_DECODER, attention="min_lstm")
