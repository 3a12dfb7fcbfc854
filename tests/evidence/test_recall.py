"""The two heads of recall are found where they were put, and counted as a loop counts them."""

import pytest
import torch

from attnlab.evidence.recall import RecallCircuit, readable_keys
from attnlab.experiment import Experiment
from attnlab.interp.interventions import prune
from attnlab.layers import HeadRef
from attnlab.tap import edit, record
from tests.prose import refuses
from tests.untrained import sharp

MQAR = ("dataset=mqar", "dataset.length=24", "dataset.num_pairs=3", "dataset.vocab_size=32")
SIZES = ("dataset.num_train=60", "dataset.num_validation=20", "dataset.num_test=30")


@pytest.fixture
def built(composed):
    def make(*overrides: str) -> Experiment:
        small = ("model.d_model=16", "model.num_layers=2", "model.mixer.num_heads=2")
        return sharp(composed(*MQAR, *SIZES, *small, *overrides))

    return make


def pairs(asked) -> list[tuple[int, int, int]]:
    """List (sequence, query, place of its answer) by going over all tokens."""
    found = []
    for row, tokens in enumerate(asked.inputs.tolist()):
        at = range(len(tokens)) if asked.at is None else asked.at[row].tolist()
        for query, answer in zip(at, asked.targets[row].tolist(), strict=True):
            behind = [k for k in range(1, query + 1) if tokens[k - 1] == tokens[query]]
            places = [k for k in behind if tokens[k] == answer]
            found += [(row, query, places[-1])] if places else []
    return sorted(found)


def test_every_question_of_mqar_can_be_read(built):
    made = built()
    asked = made.objective.training_batch(made.dataset.splits["test"][0:30])
    read, counted = readable_keys(asked)
    assert counted.sum() == 3 * 30
    last = read.int().cumsum(-1).argmax(-1)
    ours = [(b, q, int(last[b, q])) for b, q in counted.nonzero().tolist()]
    assert ours == pairs(asked)


@pytest.mark.parametrize("behind", [1, 2])
def test_two_heads_that_were_put_there_are_found(built, behind):
    made = built()
    model, seq = made.model.eval(), 24

    def put(name: str, pattern: torch.Tensor) -> torch.Tensor:
        """Let head 1 below look one back and at itself, and head 0 above at each answer's place."""
        changed = torch.full_like(pattern, 1 / seq)
        if name.startswith("blocks.0."):
            own = torch.eye(seq)
            changed[:, 1] = 0.75 * own.roll(-1, dims=1).tril() + 0.25 * own
            return changed
        for row, query, place in pairs(now[0]):
            if place - 1 + behind < seq:
                changed[row, 0, query] = 0
                changed[row, 0, query, place - 1 + behind] = 1
        return changed

    now = []
    forward = model.forward

    def watched(*given):
        asked = [a for a in batches if torch.equal(a.inputs, given[0])]
        now[:] = asked
        return forward(*given)

    splits = made.dataset.splits
    batches = [
        made.objective.training_batch(splits[name][0 : len(splits[name])]) for name in splits
    ]
    model.forward = watched
    with edit(model, "*.pattern", put):
        found = RecallCircuit(made.subject).measure()
    assert found.scalars["read_behind"] == behind
    read, gather = found.heads["read"], found.heads["gather"]
    assert (read.head, read.role) == (HeadRef(1, 0), "match and read")
    assert (gather.head, gather.role) == (HeadRef(0, 1), "previous token")
    assert found.scalars["read"] == pytest.approx(1, abs=1e-6)
    assert found.scalars["previous"] == pytest.approx(0.75, abs=1e-6)
    # One behind the answer, the token before is the answer; on it, it is the key. What the place
    # pays to itself gathers nothing.
    assert found.scalars["gather"] == pytest.approx(0.75, abs=1e-6)


def test_the_numbers_are_those_of_a_loop_and_of_real_ablation(built):
    made = built()
    found = RecallCircuit(made.subject).measure()
    asked = made.objective.training_batch(made.dataset.splits["test"][0:30])
    with torch.no_grad(), record(made.model.eval(), "*.pattern") as heard:
        logits, _ = made.model(*asked.model_inputs)
    behind = int(found.scalars["read_behind"])
    read = found.heads["read"].head
    layer = read.layer
    pattern = heard[f"blocks.{layer}.mixer.attend.pattern"][:, read.head]
    weights = [
        float(pattern[b, q, k - 1 + behind]) for b, q, k in pairs(asked) if k - 1 + behind < 24
    ]
    assert found.scalars["read"] == pytest.approx(sum(weights) / len(weights), abs=1e-6)

    def accuracy(logits: torch.Tensor) -> float:
        label = [{q: n for n, q in enumerate(row)} for row in asked.at.tolist()]
        best = logits.argmax(-1).tolist()
        right = [best[b][label[b][q]] == int(asked.inputs[b, k]) for b, q, k in pairs(asked)]
        return sum(right) / len(right)

    assert found.scalars["whole"] == pytest.approx(accuracy(logits))
    with torch.no_grad(), prune(made.model, [read]):
        assert found.scalars["without_read"] == pytest.approx(
            accuracy(made.model(*asked.model_inputs)[0])
        )
    if layer:
        below = heard["blocks.0.mixer.attend.pattern"]
        each = [
            [
                float(below[b, h, k - 1 + behind, k - 1]) * (behind != 0)
                + float(below[b, h, k - 1 + behind, k]) * (behind != 1)
                for b, _, k in pairs(asked)
                if k - 1 + behind < 24
            ]
            for h in (0, 1)
        ]
        mine = each[found.heads["gather"].head.head]
        assert found.scalars["gather"] == pytest.approx(sum(mine) / len(mine), abs=1e-6)


def test_the_heads_are_named_with_what_is_left_without_them(built):
    found = RecallCircuit(built().subject).measure()
    for name, named in found.heads.items():
        assert named.weight == found.scalars[name]
        assert named.without == {
            "head out": found.scalars[f"without_{name}"],
            "mean pattern": found.scalars[f"without_{name}_mean"],
        }
    assert "read" in found.heads
    assert ("gather" in found.heads) == (found.heads["read"].head.layer > 0)


def test_the_heads_of_a_record_of_0_1_are_taken_out_of_its_numbers(built):
    found = RecallCircuit(built().subject).measure()
    first = dict(found.scalars)
    for name, named in found.heads.items():
        first |= {f"{name}_layer": float(named.head.layer), f"{name}_head": float(named.head.head)}
    assert RecallCircuit.finding_from_old_record(first) == found


def test_of_several_pairs_all_are_counted(composed):
    sizes = ("dataset.num_validation=20", "dataset.num_test=20", "dataset.length=32")
    small = ("model.d_model=16", "model.num_layers=2", "variant=vanilla")
    made = sharp(composed("dataset=in_context_recall", "evidence=none", *sizes, *small))
    found = RecallCircuit(made.subject).measure()
    asked = made.objective.training_batch(made.dataset.splits["test"][0:20])
    with torch.no_grad(), record(made.model.eval(), "*.pattern") as heard:
        made.model(*asked.model_inputs)
    behind, layer = int(found.scalars["read_behind"]), found.heads["read"].head.layer
    pattern = heard[f"blocks.{layer}.mixer.attend.pattern"][:, 0]
    below = heard["blocks.0.mixer.attend.pattern"][:, 0]
    seq = pattern.shape[1]
    sums, before = [], []
    for b, tokens in enumerate(asked.inputs.tolist()):
        at = range(seq) if asked.at is None else asked.at[b].tolist()
        for query, answer in zip(at, asked.targets[b].tolist(), strict=True):
            answers = [
                k
                for k in range(1, query + 1)
                if tokens[k - 1] == tokens[query] and tokens[k] == answer
            ]
            spots = [k - 1 + behind for k in answers if k - 1 + behind < seq]
            if spots:
                sums.append(sum(float(pattern[b, query, k]) for k in spots))
                near = [float(below[b, k, k - 1]) if k else 0.0 for k in spots]
                before.append(sum(near) / len(near))
    assert len(sums) > 20
    assert found.scalars["read"] == pytest.approx(sum(sums) / len(sums), abs=1e-5)
    if layer:
        assert found.scalars["previous"] == pytest.approx(sum(before) / len(before), abs=1e-5)


def test_looking_leaves_no_trace_and_draws_nothing(built):
    made = built("model.dropout=0.2")
    before = torch.get_rng_state()
    made.model.train()
    RecallCircuit(made.subject).measure()
    assert torch.equal(torch.get_rng_state(), before)
    assert made.model.training


def test_where_nothing_can_be_read_there_is_no_recall(built, composed):
    lstm = Experiment(composed(*MQAR, *SIZES, "variant=lstm", "model.d_model=16"))
    found = RecallCircuit(lstm.subject).measure()
    assert found.scalars == found.heads == {}
    made = Experiment(composed("dataset=pronoun", "evidence=none", *SIZES, "model.d_model=16"))
    with refuses(ValueError, "evidence.recall.dataset"):
        RecallCircuit(made.subject).measure()
