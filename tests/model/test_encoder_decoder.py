"""Laws of the models with two stacks: what the encoder read is all that the decoder knows of it."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache, partial

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
from tests.model.law import law
from tests.prose import refuses, says

BOTTLENECK = Arrangement(causal=False, encoder=True, latents=3)


@cache
def arms() -> dict[str, Callable[[], Model]]:
    """Each part beside the defaults, and each mixer that can read beside them."""
    mixers, blocks, positions = (choices(f"model/{g}") for g in ("mixer", "block", "position"))
    readers = [
        m
        for m in mixers
        if part("mixer", m).func.cross_attend is not Mixer.cross_attend and m != "hybrid"
    ]
    build = partial(transformer, ENCODER_DECODER)
    return {
        **{mixer: partial(build, mixer=mixer) for mixer in mixers},
        **{f"reads by {mixer}": partial(build, cross=mixer) for mixer in readers},
        **{block: partial(build, block=block) for block in blocks},
        **{position: partial(build, position=position) for position in positions},
        "recurrent": partial(recurrent, ENCODER_DECODER),
        "recurrent, attending": partial(recurrent, ENCODER_DECODER, attention="additive"),
        "recurrent, one layer": partial(recurrent, ENCODER_DECODER, num_layers=1),
    }


@cache
def built(arm: str) -> Model:
    """Build an arm once; laws that change it take a copy."""
    torch.manual_seed(1)
    return arms()[arm]().eval()


def tokens(batch: int = 3, length: int = LENGTH, seed: int = 2) -> Tensor:
    return torch.randint(TOKENS, (batch, length), generator=torch.Generator().manual_seed(seed))


def logits(model: Model, source: Tensor, prefix: Tensor, valid: Tensor | None = None) -> Tensor:
    return model(source, None, valid, prefix)[0].detach()


@law(arms)
def test_every_place_of_the_prefix_answers_and_sees_the_whole_source(arm):
    """The second and third source differ from the first one in its first and its last token."""
    source, prefix = tokens(batch=1).repeat(3, 1), tokens(batch=1, length=5, seed=3)
    source[[1, 2], [0, LENGTH - 1]] = (source[[1, 2], [0, LENGTH - 1]] + 1) % TOKENS
    answers = logits(built(arm), source, prefix.repeat(3, 1))
    assert answers.shape == (3, 5, OUTPUTS)
    moved = (answers[1:] - answers[:1]).abs().amax(dim=-1)
    assert (moved > 1e-5).all()


@law(arms)
def test_no_place_of_the_prefix_sees_a_later_one(arm):
    """Prefix i keeps the tokens before place i + 1, and has others from there on."""
    source, prefix = tokens(batch=1), tokens(batch=1, seed=3)
    later = torch.ones(LENGTH - 1, LENGTH, dtype=torch.bool).triu(1)
    changed = torch.where(later, (prefix + 1) % TOKENS, prefix)
    answers = logits(built(arm), source.repeat(LENGTH, 1), torch.cat((prefix, changed)))
    moved = (answers[1:] - answers[:1]).abs().amax(dim=-1)
    assert moved[~later].max() < 1e-6
    assert (moved.diagonal(1) > 1e-4).all()


@law(arms)
def test_steps_from_the_start_give_what_the_whole_prefix_gives(arm):
    model, source, prefix = deepcopy(built(arm)).double(), tokens(), tokens(length=4, seed=3)
    valid = torch.arange(LENGTH)[None] < torch.tensor([[9], [4], [1]])
    state, steps = model.start(source, valid), []
    for at in range(4):
        step, state = model.step(prefix[:, at : at + 1], at, state)
        steps.append(step)
    whole = logits(model, source, prefix, valid)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=0, atol=1e-6)


@law(arms)
def test_padding_of_the_source_does_not_matter(arm):
    """Sources two and three are the same one with other padding, which alone has none."""
    (whole, padded), prefix, short = tokens(batch=2), tokens(batch=1, length=5, seed=3), 4
    valid = torch.arange(LENGTH)[None] < torch.tensor([[LENGTH], [short], [short]])
    together = torch.cat((whole[None], padded.where(valid[1:], torch.tensor([[0], [1]]))))
    alone = logits(built(arm), padded[None, :short], prefix)
    batched = logits(built(arm), together, prefix.repeat(3, 1), valid)[1:]
    torch.testing.assert_close(batched, alone.expand_as(batched), rtol=0, atol=1e-5)


@law(arms)
def test_the_state_is_as_large_as_it_says_and_has_the_batch_first(arm):
    model, source, prefix = built(arm), tokens(batch=2, length=3), tokens(2, length=3, seed=3)
    state = model.start(source)
    for at in range(3):
        _, state = model.step(prefix[:, at : at + 1], at, state)
    held = [t for t in tree_leaves(state) if t is not None]
    assert all(len(t) == 2 for t in held)
    assert sum(t.numel() for t in held) == 2 * (model.state_size(3) or 0)


@law(arms)
def test_gradients_reach_every_parameter(arm):
    model = deepcopy(built(arm)).train()
    out, losses = model(tokens(16), None, None, tokens(16, seed=3))
    (out.square().sum() + sum(losses.values())).backward()
    for name, weights in model.named_parameters():
        assert weights.grad is not None, name
        assert weights.grad.abs().sum() > 0, name


@law(arms)
def test_recording_does_not_change_the_output(arm):
    model, source, prefix = built(arm), tokens(), tokens(length=5, seed=3)
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
    refusals = set()
    for position in choices("model/position"):
        if part("position", position).func.signal == "embed":
            transformer(BOTTLENECK, position=position)
            continue
        with pytest.raises(ValueError) as refusal:  # noqa: PT011
            transformer(BOTTLENECK, position=position)
        refusals.add(str(refusal.value))
    (refusal,) = refusals
    says("model.bottleneck_unmarked", refusal)


@pytest.mark.parametrize(
    ("key", "call"),
    [
        ("no_prefix", lambda: transformer(ENCODER_DECODER)(tokens())),
        ("prefix", lambda: transformer(DECODER)(tokens(), prefix=tokens())),
        ("step", lambda: transformer(ENCODER_DECODER).step(tokens()[:, :1], 0)),
        ("recurrent_step", lambda: recurrent(ENCODER_DECODER).step(tokens()[:, :1], 0)),
        ("start", lambda: transformer(DECODER).start(tokens())),
        ("recurrent_start", lambda: recurrent(DECODER).start(tokens())),
        ("latents", lambda: recurrent(BOTTLENECK)),
        ("attention", lambda: recurrent(DECODER, attention="multihead")),
        ("cross", lambda: transformer(ENCODER_DECODER, cross="lstm")),
        ("recurrent_cross", lambda: recurrent(ENCODER_DECODER, attention="min_lstm")),
    ],
)
def test_what_two_stacks_cannot_do_is_refused(key, call):
    with refuses(ValueError, f"model.two_stacks.{key}"):
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
