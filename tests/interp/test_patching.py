"""A head that looks as on the twin: worked by hand, and against a slow patcher."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from einops import einsum, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.attend import Attend
from attnlab.ffn.base import Losses
from attnlab.interp.attention_taps import all_heads
from attnlab.interp.patching import Patched, patch
from attnlab.interp.subject import Subject
from attnlab.layers import HeadRef
from attnlab.model.base import ENCODER, Model
from attnlab.objective.base import Objective
from attnlab.split import IGNORE, Batch, Examples
from attnlab.tap import Tap, edit, record
from tests.prose import refuses


class Pointer(Model):
    """Answers with the tokens at places 0 and 1 that heads look at from the last.

    Head 0 looks at the place that the last token names; head 1 looks at place 0 always, and what it
    finds counts half.
    """

    def __init__(self) -> None:
        super().__init__()
        self.arrangement, self.embedded, self.head = ENCODER, Tap(), nn.Identity()
        self.attend = Attend(False, 0.0, 2)
        # Models say where they are by their weights.
        self.counts = nn.Parameter(torch.tensor([1.0, 0.5]))

    def encode(
        self,
        inputs: Tensor,
        valid: Tensor | None = None,
        prefix: Tensor | None = None,
        prefix_valid: Tensor | None = None,
    ) -> tuple[Tensor, Losses]:
        x = self.embedded(F.one_hot(inputs, 6).float())
        key = repeat(torch.eye(3)[:, :2], "k d -> b h k d", b=len(x), h=2)
        query = repeat(x[..., 4:], "b q d -> b h q d", h=2).clone()
        query[:, 1] = torch.tensor([1.0, 0.0])
        found = self.attend(60 * query, key, repeat(x[..., :4], "b k d -> b h k d", h=2))
        return einsum(self.counts, found, "h, b h q d -> b q d"), {}

    def step(self, inputs: Tensor, at: int, state: Any = None) -> tuple[Tensor, Any]:
        raise NotImplementedError

    def state_size(self, length: int) -> None:
        return None


class AsIs(Objective):
    """Asks what the data ask."""

    def __init__(self) -> None:
        self.arrangement = ENCODER

    @property
    def outputs(self) -> Sequence[str]:
        return "abcd"

    def training_batch(self, batch: Batch) -> Batch:
        return batch


class Begun(AsIs):
    """Has before each answer what is padding where 5 is the last token."""

    def training_batch(self, batch: Batch) -> Batch:
        return batch._replace(prefix=batch.targets, prefix_valid=batch.inputs[:, 2:] == 4)


def pointed(last: int) -> Examples:
    """Tokens at places 0 and 1, and which of the places is asked: 4 names 0, 5 names 1."""
    inputs = np.array([[0, 3, last], [2, 1, last]])
    targets = inputs[:, last - 4, None].copy()
    return Examples(inputs, targets, np.full((2, 1), 2))


@pytest.fixture
def pairs(experiment):
    made = experiment("depth=base")
    return made, made.dataset.contrast_pairs()


def test_the_head_that_points_carries_all_of_the_answer():
    subject, twins = Subject(Pointer(), AsIs()), (pointed(4), pointed(5))
    found = patch(subject, twins, [HeadRef(0, 0)])
    # The answer of A is found by both heads, that of B by the one that points.
    assert found.original.tolist() == pytest.approx([1.5, 1.5])
    assert found.counterpart.tolist() == pytest.approx([-0.5, -0.5])
    assert found.patched.tolist() == pytest.approx([-0.5, -0.5])
    assert found.normalised_effect == pytest.approx(1)
    assert patch(subject, twins, [HeadRef(0, 1)]).normalised_effect == pytest.approx(0)
    assert patch(subject, twins, [HeadRef(0, 1), HeadRef(0, 0)]).normalised_effect == pytest.approx(
        1
    )


def test_the_row_is_that_of_the_query_of_the_sentence_that_is_patched():
    def place(batch: Batch) -> Tensor:
        return torch.where(batch.inputs[:, 2] == 4, 2, 0)

    twins = pointed(4), pointed(5)
    assert patch(
        Subject(Pointer(), AsIs()), twins, [HeadRef(0, 0)], query_at=place
    ).normalised_effect == pytest.approx(1)
    back = pointed(5), pointed(4)
    assert patch(
        Subject(Pointer(), AsIs()), back, [HeadRef(0, 0)], query_at=place
    ).normalised_effect == pytest.approx(0)


def test_a_label_that_one_twin_is_not_asked_is_no_difference():
    def asked(last: int, more: list[int]) -> Examples:
        one = pointed(last)
        targets = np.concatenate([one.targets.numpy(), np.array(more)[:, None]], axis=1)
        return Examples(one.inputs.numpy(), targets, np.full((2, 2), 2))

    for twins in (
        (asked(4, [IGNORE, 1]), asked(5, [1, 1])),
        (asked(4, [1, 1]), asked(5, [1, IGNORE])),
    ):
        found = patch(Subject(Pointer(), AsIs()), twins, [HeadRef(0, 0)])
        assert found.original.tolist() == pytest.approx([1.5, 1.5])


def test_half_of_the_way_is_a_half():
    one, other, between = (torch.tensor(values) for values in ([2.0, 1], [-2.0, 0], [0.0, 0.5]))
    assert Patched(one, other, between).normalised_effect == pytest.approx(0.5)
    assert Patched(one, other, one).normalised_effect == 0
    # The first pair went half of its way, the second none: 1 of the 2.5 that both have on average.
    assert Patched(one, other, torch.tensor([0.0, 1])).normalised_effect == pytest.approx(0.4)
    with refuses(ValueError, "evidence.patching.alike"):
        Patched(one, one, other).normalised_effect  # noqa: B018


def test_no_head_is_no_effect_and_a_twin_of_itself_no_pair(pairs):
    made, twins = pairs
    assert patch(made.subject, twins, []).normalised_effect == 0
    with refuses(ValueError, "evidence.patching.no_difference"):
        patch(made.subject, (twins[0], twins[0]), [])


@pytest.mark.parametrize(("causal", "at_it"), [("false", True), ("true", False)])
def test_patching_is_what_a_slow_patcher_finds(experiment, causal, at_it):
    made = experiment("depth=base", f"objective.causal={causal}")
    model, objective, twins = made.model.eval(), made.objective, made.dataset.contrast_pairs()
    subject = made.subject
    chosen = [HeadRef(0, 1), HeadRef(1, 0), HeadRef(1, 3)]
    rows = (lambda batch: batch.at[:, 0]) if at_it else None
    found = patch(subject, twins, chosen, query_at=rows)
    assert len(found.original) == len(twins[0]) > 5
    for index in range(6):
        one, other = (objective.training_batch(side[index]) for side in twins)
        it = int(twins[0][index].at)
        right, wrong = int(one.targets), int(other.targets)
        with torch.no_grad():
            logits = [model(*one.model_inputs)[0][0, 0]]
            with record(model, "*.pattern") as heard:
                logits.append(model(*other.model_inputs)[0][0, 0])

        def swapped(name, pattern, source=heard, it=it):
            changed = pattern.clone()
            for ref in chosen:
                if name.startswith(f"blocks.{ref.layer}."):
                    at = slice(it, it + 1) if at_it else slice(None)
                    changed[0, ref.head, at] = source[name][0, ref.head, at]
            return changed

        with torch.no_grad(), edit(model, "*.pattern", swapped):
            logits.append(model(*one.model_inputs)[0][0, 0])
        expected = [float(at[right] - at[wrong]) for at in logits]
        measured = [float(part[index]) for part in found]
        assert measured == pytest.approx(expected, abs=1e-4)


def test_swapped_scores_are_swapped_patterns(pairs):
    made, twins = pairs
    one, other = (side[:8] for side in twins)
    with torch.no_grad(), record(made.model.eval(), "*.scores") as scores:
        made.model(*other.model_inputs)
    with torch.no_grad(), edit(made.model, "*.scores", lambda name, _: scores[name]):
        by_scores = made.model(*one.model_inputs)[0]
    found = patch(made.subject, twins, all_heads(made.model))
    expected = [
        float(row[0, int(a)] - row[0, int(b)])
        for row, a, b in zip(by_scores, one.targets, other.targets, strict=True)
    ]
    assert found.patched[:8].tolist() == pytest.approx(expected, abs=1e-4)


def test_the_model_is_as_it_was(pairs):
    made, twins = pairs
    model, state = made.model.train(), torch.random.get_rng_state()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    patch(made.subject, twins, all_heads(model))
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(w.grad is None and w.requires_grad for w in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_what_are_no_twins_are_refused(pairs):
    made, (one, other) = pairs
    task = made.dataset
    far = Examples(other.inputs.numpy(), other.targets.numpy(), other.at.numpy() - 1, None)
    shifted = Examples(
        other.inputs.numpy(), other.targets.numpy(), other.at.numpy() - 1, other.valid.numpy()
    )
    for name, side in (
        ("no_pairs", task.splits["train"]),
        ("padding", far),
        ("questions", shifted),
    ):
        with refuses(ValueError, f"evidence.patching.{name}"):
            patch(made.subject, (one, side), [HeadRef(0, 0)])
    with refuses(ValueError, "evidence.patching.prefix"):
        patch(Subject(Pointer(), Begun()), (pointed(4), pointed(5)), [HeadRef(0, 0)])
    with refuses(LookupError, "evidence.patching.layer"):
        patch(made.subject, (one, other), [HeadRef(2, 0)])
    with refuses(IndexError, "evidence.patching.head"):
        patch(made.subject, (one, other), [HeadRef(0, 4)])
