"""The chunked recurrences and their steps against loops over the positions."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from attnlab.recurrence import channel, delta, scalar
from attnlab.recurrence.base import CHUNK
from tests.model.law import law
from tests.recurrence.loops import loop

BATCH, HEADS, D_KEY, D_VALUE = 2, 3, 6, 5


@dataclass
class Form:
    """A recurrence: its functions, and which gates follow query, key and value."""

    scan: Callable[..., tuple[Tensor, Tensor]]
    step: Callable[..., tuple[Tensor, Tensor]]
    gates: tuple[str | None, ...]

    def parts(self, seq: int, dtype: torch.dtype = torch.float64) -> list[Tensor | None]:
        made = {
            "decay": -torch.rand(BATCH, HEADS, seq),
            "decays": -torch.rand(BATCH, HEADS, seq, D_KEY),
            "strength": torch.rand(BATCH, HEADS, seq),
            None: None,
        }
        key = F.normalize(torch.randn(BATCH, HEADS, seq, D_KEY), dim=-1)
        query, value = torch.randn_like(key), torch.randn(BATCH, HEADS, seq, D_VALUE)
        parts = [query, key, value, *(made[gate] for gate in self.gates)]
        return [None if part is None else part.to(dtype) for part in parts]

    def loop(self, parts: list[Tensor | None], state: Tensor | None) -> tuple[Tensor, Tensor]:
        names = ["query", "key", "value"]
        names += ["strength" if gate == "strength" else "log_decay" for gate in self.gates]
        named = {
            name: None if part is None else rearrange(part, "b h s ... -> b s h ...")
            for name, part in zip(names, parts, strict=True)
        }
        outputs, last = loop(**named, state=state)  # pyright: ignore[reportArgumentType]
        return rearrange(outputs, "b s h d -> b h s d"), last


FORMS = {
    "sum": Form(scalar.scan, scalar.step, (None,)),
    "decay": Form(scalar.scan, scalar.step, ("decay",)),
    "decay per channel": Form(channel.scan, channel.step, ("decays",)),
    "delta rule": Form(delta.scan, delta.step, ("strength", None)),
    "delta rule with decay": Form(delta.scan, delta.step, ("strength", "decay")),
}
FADING = [name for name, form in FORMS.items() if {"decay", "decays"} & {*form.gates}]


def start() -> Tensor:
    return torch.randn(BATCH, HEADS, D_KEY, D_VALUE, dtype=torch.float64)


def cut(parts: list[Tensor | None], where: slice) -> list[Tensor | None]:
    return [None if part is None else part[:, :, where] for part in parts]


@law(FORMS, (1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5), (False, True))
def test_the_chunked_form_is_the_recurrence(name, seq, begun):
    form = FORMS[name]
    parts, state = form.parts(seq), start() if begun else None
    torch.testing.assert_close(form.scan(*parts, state), form.loop(parts, state))


@law(FORMS)
def test_its_gradients_are_the_recurrences(name):
    form = FORMS[name]
    parts, state = form.parts(2 * CHUNK + 3), start()
    leaves = [x.requires_grad_() for x in (*parts, state) if x is not None]
    (outputs, last), (wanted, wanted_last) = form.scan(*parts, state), form.loop(parts, state)
    towards, towards_last = torch.randn_like(outputs), torch.randn_like(last)
    ours = torch.autograd.grad((outputs, last), leaves, (towards, towards_last))
    theirs = torch.autograd.grad((wanted, wanted_last), leaves, (towards, towards_last))
    torch.testing.assert_close(ours, theirs)


@law(FORMS, (1, CHUNK, CHUNK + 9))
def test_a_sequence_in_two_parts_is_the_whole(name, where):
    form = FORMS[name]
    parts = form.parts(2 * CHUNK + 1)
    first, state = form.scan(*cut(parts, slice(where)))
    second, last = form.scan(*cut(parts, slice(where, None)), state)
    whole = form.scan(*parts)
    torch.testing.assert_close((torch.cat((first, second), dim=2), last), whole)


@law(FORMS, (False, True))
def test_steps_are_the_whole(name, begun):
    form = FORMS[name]
    parts, state = form.parts(CHUNK + 3), start() if begun else None
    whole = form.scan(*parts, state)
    outputs = []
    for t in range(CHUNK + 3):
        output, state = form.step(*cut(parts, slice(t, t + 1)), state)
        outputs.append(output)
    torch.testing.assert_close((torch.cat(outputs, dim=2), state), whole)


@law(FADING, (5.0, 100.0, 5000.0))
def test_strong_decays_are_finite_and_right_in_float32(name, strongest):
    form = FORMS[name]
    parts = form.parts(2 * CHUNK + 3, torch.float32)
    at = form.gates.index("decay" if "decay" in form.gates else "decays") + 3
    # Half the positions fade strongly, the others hardly.
    decay = parts[at]
    assert decay is not None
    parts[at] = torch.where(torch.rand_like(decay) < 0.5, strongest, 0.01) * decay
    leaves = [x.requires_grad_() for x in parts if x is not None]
    outputs, last = form.scan(*parts)
    wanted, wanted_last = form.loop(parts, None)
    # The sum of a chunk's log-decays, of which differences are taken, is rounded.
    near = 1e-6 + strongest * CHUNK * torch.finfo(torch.float32).eps
    torch.testing.assert_close(outputs.double(), wanted, rtol=near, atol=near)
    torch.testing.assert_close(last.double(), wanted_last, rtol=near, atol=near)
    ours = torch.autograd.grad(outputs.square().sum(), leaves)
    theirs = torch.autograd.grad(wanted.square().sum(), leaves)
    for mine, other in zip(ours, theirs, strict=True):
        scale = other.abs().max()
        torch.testing.assert_close(mine / scale, other / scale, rtol=0, atol=20 * near)


@law(FORMS)
def test_low_precision_is_worked_on_in_float32_under_autocast_too(name):
    form = FORMS[name]
    parts = form.parts(CHUNK + 1, torch.bfloat16)
    wanted = form.scan(*(None if x is None else x.float() for x in parts))
    assert wanted[0].dtype is torch.float32
    state = wanted[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(form.scan(*parts), wanted, rtol=0, atol=0)
        stepped = form.step(*cut(parts, slice(1)), state)
    exact = (None if x is None else x.float() for x in cut(parts, slice(1)))
    torch.testing.assert_close(stepped, form.step(*exact, state), rtol=0, atol=0)


@law((False, True))
def test_heads_may_share_queries_and_keys_and_sequences_their_decay(begun):
    form, state = FORMS["decay"], start() if begun else None
    shared = [
        None if part is None else part[: len(part) if at < 3 else 1, : 1 if at < 2 else HEADS]
        for at, part in enumerate(form.parts(CHUNK + 7))
    ]
    alone = [
        None if part is None else part.expand(BATCH, HEADS, *part.shape[2:]) for part in shared
    ]
    torch.testing.assert_close(form.scan(*shared, state), form.scan(*alone, state))
    first, one = cut(shared, slice(1)), cut(alone, slice(1))
    torch.testing.assert_close(form.step(*first, state), form.step(*one, state))


def test_everywhere_reads_the_state_after_the_last_position():
    query, key = torch.randn(2, BATCH, HEADS, CHUNK + 7, D_KEY, dtype=torch.float64)
    value = torch.randn(BATCH, HEADS, CHUNK + 7, D_VALUE, dtype=torch.float64)
    _, last = FORMS["sum"].loop([query, key, value, None], None)
    torch.testing.assert_close(scalar.everywhere(query, key, value), query @ last)


def test_the_delta_rule_reads_what_was_written_last():
    # The same few keys over and over, always with full strength: the chunk's system is as far from
    # the identity as it gets, and the answer is known.
    seq = 3 * CHUNK
    which = torch.randint(D_KEY, (seq,))
    key = torch.eye(D_KEY)[which].expand(1, 1, -1, -1)
    value = torch.randn(1, 1, seq, D_VALUE)
    outputs, last = delta.scan(key, key, value, torch.ones(1, 1, seq), None)
    torch.testing.assert_close(outputs, value)
    for k in which.unique().tolist():
        newest = int((which == k).nonzero().max())
        torch.testing.assert_close(last[0, 0, k], value[0, 0, newest])
