"""Laws of the attention mixers with other knobs than their defaults, and what each promises."""

from typing import Any, TypeVar

import pytest
import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attnlab.attend import Attend
from attnlab.mixer.additive import Additive
from attnlab.mixer.base import Attention, Mixer
from attnlab.mixer.differential import Differential
from attnlab.mixer.grouped_query import GroupedQuery
from attnlab.mixer.latent import Latent
from attnlab.mixer.multihead import MultiHead
from attnlab.mixer.single_head import SingleHead
from attnlab.mixer.sliding_window import SlidingWindow
from attnlab.position.alibi import ALiBi
from attnlab.position.base import Position
from attnlab.position.relative_bias import RelativeBias
from attnlab.position.rope import RoPE
from attnlab.tap import edit, record
from tests.model.law import law
from tests.prose import refuses

Kind = TypeVar("Kind", bound=Attention)

WIDTH, LENGTH = 16, 11


class Absolute(Position):
    """Tells each key by its own position, where our biases know the distance alone."""

    signal = "bias"

    def bias(self, num_heads: int, query_at: Tensor, key_at: Tensor, causal: bool) -> Tensor:
        height = torch.arange(num_heads) + (3 * key_at[:, None]).sin()
        return repeat(height, "k h -> h q k", q=len(query_at))


POSITIONS = {
    "none": Position,
    "rope": RoPE,
    "alibi": ALiBi,
    "relative": RelativeBias,
    "absolute": Absolute,
}
# Settings beside the defaults, which tests/model/test_laws.py runs over.
MIXERS: dict[str, tuple[type[Attention], dict]] = {
    "single_head": (SingleHead, {"query_key_norm": True, "bias": False}),
    "multihead": (MultiHead, {"query_key_norm": True}),
    "multi_query": (GroupedQuery, {"num_kv_heads": 1, "query_key_norm": True}),
    "latent": (Latent, {"kv_rank": 5, "query_rank": 3, "d_rotary": 4}),
    "window": (SlidingWindow, {"window": 3, "num_kv_heads": 2, "query_key_norm": True}),
    "narrow": (SlidingWindow, {"window": 1}),
    "differential": (Differential, {"num_heads": 4, "bias": False}),
    "additive": (Additive, {"bias": False}),
}


def build(
    kind: type[Kind], causal: bool, position: type[Position] = Position, layer: int = 1, **knobs
) -> Kind:
    """Build a mixer whose vectors of ones and zeros are drawn, so that they count."""
    torch.manual_seed(3)
    mixer = kind(WIDTH, position(WIDTH, LENGTH), causal, layer, **knobs).eval()
    with torch.no_grad():
        for weights in (*mixer.parameters(), *mixer.position.parameters()):
            if weights.ndim == 1:
                weights.uniform_(0.5, 1.5)
    return mixer


def make(mixer: str, position: str, causal: bool) -> Any:
    kind, knobs = MIXERS[mixer]
    return build(kind, causal, POSITIONS[position], **knobs)


def same(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs.to(ours), rtol=0, atol=1e-5)


def padded(*lengths: int) -> Tensor:
    return torch.arange(LENGTH) < torch.tensor(lengths)[:, None]


@law(MIXERS, POSITIONS)
def test_steps_give_what_forward_gives_and_keep_what_they_say(mixer, position):
    mixer, x = make(mixer, position, True), torch.randn(1, LENGTH, WIDTH)
    state, steps = None, []
    for at in range(LENGTH):
        step, state = mixer.step(x[:, at : at + 1], at, state)
        steps.append(step)
        assert sum(t.numel() for t in tree_leaves(state)) == mixer.state_size(at + 1)
    same(torch.cat(steps, dim=1), mixer(x))


@law(MIXERS, POSITIONS, (True, False))
def test_padding_reaches_nobody_and_gets_nothing(mixer, position, causal):
    """Sequences two and three are the same one with other padding, which alone has none."""
    mixer, valid = make(mixer, position, causal), padded(LENGTH, 4, 4)
    x = torch.randn(2, LENGTH, WIDTH)[[0, 1, 1]]
    filler = torch.tensor([0.0, 0.0, 9.0])[:, None, None]
    together = mixer(x.where(valid[..., None], filler), valid)
    same(together[:1], mixer(x[:1]))
    same(together[1:, :4], mixer(x[1:2, :4]).expand(2, -1, -1))
    assert together[1:, 4:].abs().max() == 0


# Whether there is a bias is all that hearing could depend on.
@law(MIXERS, ("none", "absolute"), (True, False))
def test_who_looks_changes_neither_output_nor_gradient(mixer, position, causal):
    mixer, valid = make(mixer, position, causal), padded(LENGTH, 4)
    x = torch.randn(2, LENGTH, WIDTH, requires_grad=True)
    silent = mixer(x, valid)
    with record(mixer, "*pattern") as heard:
        watched = mixer(x, valid)
    same(watched, silent)
    upstream = torch.randn_like(silent)
    before, after = (torch.autograd.grad(out, x, upstream)[0] for out in (silent, watched))
    same(after, before)
    (pattern,) = heard.values()
    same(pattern.sum(-1), torch.ones_like(pattern.sum(-1)))
    assert pattern[1, ..., 4:].abs().max() == 0
    if causal:
        assert pattern.triu(1).abs().max() == 0


@law(MIXERS, ("none", "absolute"), (True, False))
def test_rows_are_the_pattern_and_leave_the_output_to_the_last_bit(mixer, position, causal):
    mixer, valid = make(mixer, position, causal), padded(LENGTH, 4)
    parts, x = [], torch.randn(2, LENGTH, WIDTH)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attnlab.attend.QUERIES", 4)
        silent = mixer(x, valid)
        with edit(mixer, "*rows", lambda _, part: parts.append(part)):
            heard = mixer(x, valid)
        with record(mixer, "*pattern") as patterns:
            mixer(x, valid)
    (pattern,) = patterns.values()
    assert torch.equal(heard, silent)
    assert max(part.shape[2] for part in parts) == 4
    rows = torch.cat(parts, dim=2)
    same(rows[0], pattern[0])
    # A causal mixer need not hide padding that comes later from those before it.
    same(rows[1, :, :4], pattern[1, :, :4])


@law((None, 9), (True, False), ("nothing", "padding", "bias", "both"), (70, 6))
def test_rows_beside_the_fused_kernel_are_the_pattern(window, causal, hidden, num_queries):
    attend = Attend(causal, 0.0, 4, window).eval()
    query, key = torch.randn(2, 4, num_queries, 8), torch.randn(2, 2, 70, 8)
    value = torch.randn(2, 2, 70, 8)
    bias = torch.randn(4, num_queries, 70) if hidden in ("bias", "both") else None
    lengths = torch.tensor([[70], [66]])
    valid = torch.arange(70) < lengths if hidden in ("padding", "both") else None
    parts, silent = [], attend(query, key, value, bias, valid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attnlab.attend.QUERIES", 16)
        with edit(attend, "rows", lambda _, part: parts.append(part)):
            assert torch.equal(attend(query, key, value, bias, valid), silent)
    with record(attend, "pattern") as heard:
        attend(query, key, value, bias, valid)
    assert len(parts) == -(-num_queries // 16)
    same(torch.cat(parts, dim=2), heard["pattern"])


@law(MIXERS)
def test_dropout_acts_in_training_alone(mixer):
    mixer = make(mixer, "none", False)
    mixer.attend.dropout = 0.5
    x = torch.randn(2, LENGTH, WIDTH)
    assert torch.equal(mixer(x), mixer(x))
    mixer.train()
    assert not torch.allclose(mixer(x), mixer(x), atol=1e-3)


def test_padding_behind_a_causal_sequence_costs_no_mask(monkeypatch):
    masks = []

    def spy(*args, **kwargs):
        masks.append(args[3])
        return fused(*args, **kwargs)

    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    x, valid = torch.randn(2, 80, WIDTH), torch.ones(2, 80, dtype=torch.bool)
    build(MultiHead, True)(x, valid)
    build(MultiHead, False)(x, valid)
    assert [mask is None for mask in masks] == [True, False]


@law((1, 2, 4), (True, False))
def test_shared_keys_are_repeated_ones(num_kv_heads, causal):
    shared = build(GroupedQuery, causal, RoPE, num_kv_heads=num_kv_heads)
    whole = build(MultiHead, causal, RoPE)
    with torch.no_grad():
        whole.output.load_state_dict(shared.output.state_dict())
        for name in ("weight", "bias"):
            rows = getattr(shared.query_key_value, name)
            query, key, value = rows.split(shared.widths)
            key, value = (
                rearrange(part, "(h d) ... -> h d ...", h=num_kv_heads)
                .repeat_interleave(4 // num_kv_heads, 0)
                .flatten(0, 1)
                for part in (key, value)
            )
            getattr(whole.query_key_value, name).copy_(torch.cat((query, key, value)))
    for length in (LENGTH, 90):
        x = torch.randn(2, length, WIDTH)
        same(shared(x), whole(x))


def test_both_patterns_of_a_differential_head_have_its_bias():
    mixer = build(Differential, True, ALiBi, num_heads=4)
    with torch.no_grad():
        mixer.query.weight.zero_()
        mixer.query.bias.zero_()
    with record(mixer, "*scores") as heard:
        mixer(torch.randn(1, LENGTH, WIDTH))
    scores = rearrange(heard["attend.scores"], "1 (h two) q k -> two h q k", two=2)
    assert torch.equal(*scores)
    assert scores[0, :, 5, 4].tolist() == [-(2.0**-2), -(2.0**-4), -(2.0**-6), -(2.0**-8)]


# Lengths around one, two and more windows; a scheme of positions is none of the length's business.
BANDS = [
    *((size, "absolute") for size in ((5, 3), (12, 3), (13, 3), (14, 3), (9, 1), (30, 7))),
    *(((13, 3), position) for position in POSITIONS),
]


@law(BANDS, (True, False))
def test_a_window_is_attention_under_a_band(band, causal):
    (length, window), position = band
    windowed = build(SlidingWindow, causal, POSITIONS[position], window=window)
    whole = build(MultiHead, causal, POSITIONS[position])
    whole.load_state_dict(windowed.state_dict())
    at = torch.arange(length)
    distance = at[:, None] - at
    outside = (distance.abs() >= window) | (causal & (distance < 0))
    x = torch.randn(2, length, WIDTH)
    with torch.no_grad():
        query, key, value = whole.project(x, at)
        bias = whole.position.bias(4, at, at, causal)
        mask = torch.zeros(4, length, length) if bias is None else bias
        scores = query @ key.mT / 2 + mask.masked_fill(outside, -torch.inf)
        expected = whole.merge(scores.softmax(-1) @ value)
    same(windowed(x), expected)


class Largest(TorchDispatchMode):
    """Note how many numbers the largest tensor has."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = (t.untyped_storage().nbytes() // t.element_size() for t in tree_leaves(out))
        self.numbers = max(self.numbers, *made, 0)
        return out


@law((True, False), (Position, ALiBi))
def test_memory_of_a_window_is_linear_in_the_length(causal, position):
    def largest(length: int) -> int:
        with torch.no_grad(), Largest() as seen:
            build(SlidingWindow, causal, position, window=4)(torch.randn(1, length, WIDTH))
        return seen.numbers

    assert largest(800) == 2 * largest(400)


@law((True, False))
def test_statistics_of_a_window_need_no_square(causal):
    heard = []
    mixer, x = build(SlidingWindow, causal, window=4, num_heads=2), torch.randn(1, 800, WIDTH)
    with torch.no_grad(), Largest() as seen:
        silent = mixer(x)
        with edit(mixer, "*rows", lambda _, rows: heard.append(rows.shape)):
            watched = mixer(x)
    assert torch.equal(watched, silent)
    assert heard[0] == (1, 2, 64, 800)
    assert sum(shape[2] for shape in heard) == 800
    assert seen.numbers < 800 * 800 / 2


def test_a_latent_state_is_smaller_than_keys_and_values():
    mixer, whole = build(Latent, True), build(MultiHead, True)
    assert (mixer.kv_rank, mixer.d_rotary) == (8, 2)
    assert (mixer.state_size(10), whole.state_size(10)) == (100, 320)


@law(name for name in MIXERS if MIXERS[name][0] is not SlidingWindow)
def test_to_read_oneself_is_to_mix(name):
    kind, knobs = MIXERS[name]
    mixer, x, valid = build(kind, False, **knobs), torch.randn(2, LENGTH, WIDTH), padded(LENGTH, 4)
    read, state = mixer.cross_attend(x, x, valid)
    same(read[valid], mixer(x, valid)[valid])
    same(mixer.cross_attend(x, x, valid, state)[0], read)
    assert sum(t.numel() for t in tree_leaves(state)) == 2 * mixer.state_size(LENGTH)


def test_what_cannot_read_another_sequence_says_so():
    assert SlidingWindow.cross_attend is Mixer.cross_attend
    with refuses(ValueError, "mixer.cannot_read"):
        build(SlidingWindow, False).cross_attend(torch.randn(1, 2, WIDTH), torch.randn(1, 3, WIDTH))


@pytest.mark.parametrize(
    ("key", "kind", "knobs"),
    [
        ("heads", GroupedQuery, {"num_heads": 3}),
        ("kv_heads", GroupedQuery, {"num_kv_heads": 3}),
        ("no_kv_head", GroupedQuery, {"num_kv_heads": 0}),
        ("window", SlidingWindow, {"window": 0}),
        ("differential_heads", Differential, {"num_heads": 16}),
        ("differential_shared", Differential, {"num_heads": 4, "num_kv_heads": 3}),
        ("dropout", Differential, {"num_heads": 4, "dropout": -0.5}),
        ("latent_heads", Latent, {"num_heads": 5}),
        ("kv_rank", Latent, {"kv_rank": 0}),
        ("query_rank", Latent, {"query_rank": 0}),
        ("d_rotary", Latent, {"d_rotary": 0}),
    ],
)
def test_an_impossible_attention_is_refused(key, kind, knobs):
    with refuses(ValueError, f"mixer.attention.{key}"):
        build(kind, True, **knobs)


@law({kind for kind, _ in MIXERS.values()})
def test_every_attention_tells_the_position_how_many_heads_it_has(kind):
    mixer = kind(WIDTH, RelativeBias(WIDTH, LENGTH), True)
    assert mixer.position.table.shape[1] == mixer.num_heads
