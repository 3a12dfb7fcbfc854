"""With a document mask, no position sees another document; mixers that cannot do so refuse."""

from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from attnlab.attend import Attend
from attnlab.mixer.sliding_window import SlidingWindow
from attnlab.model.base import DECODER, Model
from attnlab.position.alibi import ALiBi
from attnlab.position.base import Position
from attnlab.tap import edit, record
from tests.choices import choices
from tests.model.build import LENGTH, TOKENS, part, recurrent, transformer
from tests.prose import says

BOUNDARY = TOKENS - 1
MASKED = replace(DECODER, boundary=BOUNDARY)
SOFTMAX = (
    *("additive", "differential", "grouped_query", "latent", "multihead", "single_head"),
    "sliding_window",
)
ARMS = [
    *((mixer, "learned") for mixer in SOFTMAX),
    *(("multihead", position) for position in ("alibi", "relative_bias", "rope", "none")),
    ("sliding_window", "alibi"),
]
STARTS = (4, 7)
"""The positions at which the second and the third document begin; the first is cut off."""


@cache
def model_of(mixer: str, position: str = "learned", masked: bool = True) -> Model:
    torch.manual_seed(0)
    model = transformer(MASKED if masked else DECODER, mixer=mixer, position=position)
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(3)
    return model.eval()


def tokens() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, BOUNDARY, (2, LENGTH), generator=generator)
    inputs[:, list(STARTS)] = BOUNDARY
    # The second sequence has two documents alone.
    inputs[1, STARTS[1]] = 0
    return inputs


def document(positions: Tensor, row: int) -> Tensor:
    starts = STARTS if row == 0 else STARTS[:1]
    return sum((positions >= start).long() for start in starts)  # pyright: ignore


def logits(model: Model, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return model(inputs)[0]


@pytest.mark.parametrize(("mixer", "position"), ARMS)
def test_no_position_sees_another_document(mixer, position):
    model, inputs, positions = model_of(mixer, position), tokens(), torch.arange(LENGTH)
    vectors: list[Tensor] = []

    def watch(_name: str, value: Tensor) -> Tensor:
        vectors.append(value.detach().requires_grad_())
        return vectors[-1]

    with edit(model, "embedded", watch):
        answers = model(inputs)[0]
    for query in range(LENGTH):
        (gradient,) = torch.autograd.grad(
            answers[:, query].square().sum(), vectors[0], retain_graph=True
        )
        assert gradient.isfinite().all()
        for row in range(2):
            seen = gradient[row].abs().amax(dim=-1) > 0
            own = document(positions, row) == document(torch.tensor(query), row)
            assert not seen[~own].any()
            assert seen[query]
            if mixer != "sliding_window":
                assert seen.tolist() == (own & (positions <= query)).tolist()


@pytest.mark.parametrize(("mixer", "position"), ARMS)
def test_a_change_in_one_document_changes_no_other(mixer, position):
    model, inputs = model_of(mixer, position), tokens()
    for changed_position in range(LENGTH):
        changed = inputs.clone()
        changed[:, changed_position] = (changed[:, changed_position] + 1) % BOUNDARY
        if changed_position in STARTS:
            continue
        moved = (logits(model, changed) - logits(model, inputs)).abs().amax(dim=-1) > 0
        for row in range(2):
            others = document(torch.arange(LENGTH), row) != document(
                torch.tensor(changed_position), row
            )
            assert not moved[row, others].any()
            assert moved[row, changed_position]


@pytest.mark.parametrize(("mixer", "position"), ARMS)
def test_one_document_is_what_a_model_without_a_mask_reads(mixer, position):
    masked, plain = model_of(mixer, position), deepcopy(model_of(mixer, position, masked=False))
    plain.load_state_dict(masked.state_dict())
    inputs = tokens().clamp(max=BOUNDARY - 1)
    torch.testing.assert_close(logits(masked, inputs), logits(plain, inputs))
    first = logits(plain, tokens())[:, : STARTS[0]]
    torch.testing.assert_close(logits(masked, tokens())[:, : STARTS[0]], first)
    assert (logits(masked, tokens()) - logits(plain, tokens())).abs().max() > 1e-3


@pytest.mark.parametrize(("mixer", "position"), ARMS)
def test_steps_give_what_forward_gives(mixer, position):
    model, inputs = deepcopy(model_of(mixer, position)).double(), tokens()
    state, steps = None, []
    for at in range(LENGTH):
        step, state = model.step(inputs[:, at : at + 1], at, state)
        steps.append(step)
        held = sum(t.numel() for t in tree_leaves(state) if t is not None)
        assert held == 2 * (model.state_size(at + 1) or 0)
    whole = logits(model, inputs)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("mixer", "position"), ARMS)
def test_recorded_patterns_are_those_of_the_mask(mixer, position):
    model, inputs, positions = model_of(mixer, position), tokens(), torch.arange(LENGTH)
    parts: list[Tensor] = []
    with record(model, "*.pattern") as patterns, torch.no_grad():
        recorded = model(inputs)[0]
    torch.testing.assert_close(recorded, logits(model, inputs), rtol=0, atol=1e-4)
    first = next(attend for attend in model.modules() if isinstance(attend, Attend))
    with edit(model, "blocks.0.*.rows", lambda _, rows: parts.append(rows.clone()) or rows):
        logits(model, inputs)
    assert not first.rows.has_listeners
    (pattern, *_) = patterns.values()
    torch.testing.assert_close(torch.cat(parts, dim=2), pattern, rtol=0, atol=1e-5)
    for row in range(2):
        number = document(positions, row)
        assert pattern[row][:, number[:, None] != number].abs().max() == 0
        torch.testing.assert_close(pattern[row].sum(-1), torch.ones_like(pattern[row, ..., 0]))


@pytest.mark.parametrize("position", [Position, ALiBi])
def test_windows_in_blocks_keep_documents_apart(position):
    torch.manual_seed(0)
    mixer = SlidingWindow(8, position(8, 0), True, window=3, num_heads=2).eval()
    x = torch.randn(2, 20, 8, requires_grad=True)
    documents = torch.stack((torch.arange(20) // 7, (torch.arange(20) >= 19).long()))
    mixed = mixer(x, None, documents)
    with record(mixer, "*.pattern"):
        torch.testing.assert_close(mixer(x, None, documents), mixed, rtol=0, atol=1e-5)
    for query in range(20):
        (gradient,) = torch.autograd.grad(mixed[:, query].sum(), x, retain_graph=True)
        seen = gradient.abs().amax(dim=-1) > 0
        near = (torch.arange(20) > query - 3) & (torch.arange(20) <= query)
        expected = near & (documents == documents[:, query : query + 1])
        assert seen.tolist() == expected.tolist()


def test_a_hybrid_of_softmax_mixers_takes_the_mask():
    knobs = {"a": part("mixer", "multihead"), "b": part("mixer", "sliding_window")}
    mixer = part("mixer", "hybrid").func(16, Position(16, 0), True, 1, **knobs, pattern="ab")
    mixer.require_document_mask()
    x, documents = torch.randn(1, 6, 16), torch.tensor([[0, 0, 0, 1, 1, 1]])
    changed = torch.cat((x[:, :2] + 1, x[:, 2:]), dim=1)
    moved = (mixer(x, None, documents) - mixer(changed, None, documents)).abs().amax(dim=-1)
    assert (moved[0] > 0).tolist() == [True] * 3 + [False] * 3


def test_mixers_that_read_all_that_stands_before_refuse():
    refusals = {}
    for name in choices("model/mixer"):
        try:
            model_of(name, "none")
        except ValueError as error:
            refusals[name] = str(error)
    assert set(choices("model/mixer")) - refusals.keys() == set(SOFTMAX)
    says("model.document_mask.gated_delta", refusals["gated_delta"])
    says("model.document_mask.hybrid", refusals["hybrid"])
    with pytest.raises(ValueError, match="hides documents from each other") as raised:
        recurrent(MASKED)
    says("model.document_mask.lstm", raised.value)
