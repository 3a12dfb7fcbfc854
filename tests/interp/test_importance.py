"""A gate's gradient is the loss's exact slope, and it is held against heads that are really cut."""

from collections.abc import Callable

import pytest
import torch
from einops import rearrange
from scipy.stats import spearmanr
from torch.nn import functional as F

from attnlab.config import Config
from attnlab.evaluation.evaluate import evaluate
from attnlab.experiment import Experiment
from attnlab.interp.attention_taps import all_heads, edit_attention
from attnlab.interp.importance import (
    Importance,
    head_importance,
    order_greedily,
    prune_in_order,
    rank_correlation,
)
from attnlab.interp.interventions import mean_patterns, prune
from attnlab.layers import AttentionLayer, HeadRef
from tests.prose import refuses


def loss_of(made: Experiment) -> Callable[[], float]:
    split = made.dataset.splits["validation"]
    return lambda: evaluate(made.subject, split, {}, batch_size=64)["loss"]


def importance_of(made: Experiment) -> Importance:
    split = made.dataset.splits["validation"]
    return head_importance(made.subject, [split[at : at + 16] for at in range(0, len(split), 16)])


def gated_loss(made: Experiment, gates: dict[HeadRef, float]) -> float:
    """The mean loss by label, all of it in float64."""
    layers, rows = made.model.attention_layers(), {}
    for layer in layers:
        row = torch.tensor([gates[head] for head in layer.heads], dtype=torch.double)
        rows[layer] = rearrange(row, "h -> h 1 1")
    total, labels = 0.0, 0
    model = made.model.eval()

    def gated(layer: AttentionLayer, pattern: torch.Tensor) -> torch.Tensor:
        return pattern * rows[layer]

    for asked in made.subject.batches(made.dataset.splits["validation"]):
        with torch.no_grad(), edit_attention(model, "pattern", layers, gated):
            logits, _ = model(*asked.model_inputs)
        total += float(
            F.cross_entropy(
                logits[asked.targets >= 0], asked.targets[asked.targets >= 0], reduction="sum"
            )
        )
        labels += int((asked.targets >= 0).sum())
    return total / labels


def learnt(composed: Callable[..., Config], seed: int) -> Experiment:
    """A model of two layers that has learnt a part of its task."""
    sizes = ("dataset.num_train=4000", "dataset.num_validation=200", "dataset.num_test=100")
    words = ("dataset=pronoun", "model.num_layers=2", f"seed={seed}")
    made = Experiment(composed(*words, *sizes))
    optimizer = torch.optim.Adam(made.model.parameters(), 5e-3)
    for number in range(100):
        asked = made.objective.training_batch(made.loader.batch(number))
        logits, _ = made.model(*asked.model_inputs)
        made.objective.loss(logits, asked.targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    return made


@pytest.fixture(scope="module")
def trained(once) -> Experiment:
    """A model that has learnt, which no test changes."""
    return learnt(once, 0)


@pytest.mark.parametrize(
    "words",
    [
        ("dataset=pronoun", "objective.causal=true"),
        ("dataset=pronoun", "variant=lstm_attention"),
        ("dataset=reversal",),
        ("dataset=mqar", "dataset.length=24", "dataset.num_pairs=4"),
    ],
    ids=["causal", "lstm", "seq2seq", "several labels"],
)
def test_the_slope_is_the_exact_derivative_along_every_gate(composed, words):
    sizes = [f"dataset.num_{split}=20" for split in ("train", "validation", "test")]
    made = Experiment(composed(*words, "evidence=none", "model.num_layers=2", *sizes))
    made.model.double()
    with torch.no_grad():
        for weights in made.model.parameters():
            weights *= 1.5
    found, every = importance_of(made), all_heads(made.model)
    assert list(found.heads) == list(found.slopes) == every
    assert found.loss == pytest.approx(loss_of(made)(), rel=1e-6)
    direction = dict(zip(every, torch.randn(len(every), dtype=torch.double).tolist(), strict=True))
    step = 1e-5
    up, down = (
        gated_loss(made, {head: 1 + sign * step * direction[head] for head in every})
        for sign in (1, -1)
    )
    slope = sum(found.slopes[head] * direction[head] for head in every)
    assert slope == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-9)
    assert max(map(abs, found.slopes.values())) > 1e-6
    for head in every:
        assert found.heads[head] >= abs(found.slopes[head]) * (1 - 1e-9)


def test_the_importance_is_the_mean_over_examples_of_the_absolute_gradient(trained):
    split, count = trained.dataset.splits["validation"], 40
    batches = [split[at : at + 16] for at in range(0, 32, 16)]
    batches.append(split[32:count])
    found = head_importance(trained.subject, batches)
    absolute = dict.fromkeys(found.heads, 0.0)
    for index in range(count):
        alone = head_importance(trained.subject, [split[index]])
        for head, slope in alone.slopes.items():
            absolute[head] += abs(slope) / count
    for head, value in absolute.items():
        assert found.heads[head] == pytest.approx(value, rel=1e-3, abs=1e-6)


def test_a_layers_normalised_importances_have_norm_1(trained):
    found = importance_of(trained)
    for layer in (0, 1):
        own = [head for head in found.heads if head.layer == layer]
        assert sum(found.normalised_heads[head] ** 2 for head in own) == pytest.approx(1)
        for head in own[1:]:
            ratio = found.heads[head] / found.heads[own[0]]
            assert found.normalised_heads[head] / found.normalised_heads[own[0]] == pytest.approx(
                ratio
            )
    idle = Importance(0.0, {HeadRef(0, 0): 0.0, HeadRef(1, 0): 2.0}, {})
    assert idle.normalised_heads == {HeadRef(0, 0): 0.0, HeadRef(1, 0): 1.0}


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.soak) for s in (1, 2))])
def test_the_gradient_orders_heads_as_ablation_does_and_by_layer_it_does_not(once, trained, seed):
    made = learnt(once, seed) if seed else trained
    found, loss = importance_of(made), loss_of(made)
    whole, changes = loss(), []
    for head in found.heads:
        with prune(made.model, [head]):
            changes.append(loss() - whole)
    alike = rank_correlation(list(found.heads.values()), changes)
    by_layer = rank_correlation(list(found.normalised_heads.values()), changes)
    assert alike is not None
    assert by_layer is not None
    assert alike > 0.6
    assert by_layer < 0.5


def test_pruning_is_ablation_of_ever_more_heads(trained):
    order = [HeadRef(1, 2), HeadRef(0, 0), HeadRef(1, 0)]
    values = prune_in_order(trained.model, order, loss_of(trained))
    assert len(values) == 4
    for removed, value in enumerate(values):
        with prune(trained.model, order[:removed]):
            assert loss_of(trained)() == value
    everything = prune_in_order(trained.model, all_heads(trained.model), loss_of(trained))
    assert everything[-1] > everything[0]


def test_the_greedy_order_takes_the_least_loss_at_each_step(trained):
    candidates = [HeadRef(0, 1), HeadRef(1, 0), HeadRef(1, 3)]
    order, loss = order_greedily(trained.model, candidates, loss_of(trained)), loss_of(trained)
    assert sorted(order) == candidates
    for place in range(2):
        losses = {}
        for head in order[place:]:
            with prune(trained.model, [*order[:place], head]):
                losses[head] = loss()
        assert min(losses, key=losses.__getitem__) == order[place]


def test_the_model_and_its_training_are_as_they_were(experiment):
    made = experiment()
    model = made.model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    importance_of(made)
    order_greedily(model, [HeadRef(0, 1), HeadRef(1, 0)], loss_of(made))
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(w.grad is None and w.requires_grad for w in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_what_has_no_heads_or_labels_has_no_importance(experiment):
    made, lstm = experiment(), experiment("variant=lstm")
    with refuses(LookupError, "evidence.importance.no_heads"):
        importance_of(lstm)
    with refuses(ValueError, "evidence.importance.no_label"):
        head_importance(made.subject, [])


def test_the_rank_correlation_is_spearmans():
    one, other = [3.0, 1.0, 2.0, 2.0, 9.0], [0.1, 0.1, -4.0, 7.0, 8.0]
    assert rank_correlation(one, other) == pytest.approx(float(spearmanr(one, other)[0]))  # pyright: ignore
    assert rank_correlation(one, one) == pytest.approx(1)
    assert rank_correlation([1.0, 1.0], [1.0, 2.0]) is None
    assert rank_correlation([1.0], [2.0]) is None


def test_training_is_bit_equal_with_and_without_interventions_between_its_steps(composed):
    ends = []
    for asked_between in (False, True):
        sizes = [f"dataset.num_{split}=40" for split in ("validation", "test")]
        made = Experiment(composed("dataset=pronoun", "dataset.num_train=200", *sizes))
        made.model.train()
        torch.manual_seed(0)
        optimizer = torch.optim.Adam(made.model.parameters(), 1e-2)
        for number in range(3):
            batch = made.loader.batch(number)
            asked = made.objective.training_batch(batch)
            made.objective.loss(made.model(*asked.model_inputs)[0], asked.targets).backward()
            if asked_between:
                importance_of(made)
                means = mean_patterns(made.subject, [batch])
                prune_in_order(made.model, [HeadRef(0, 1)], loss_of(made), means)
            optimizer.step()
            optimizer.zero_grad()
        ends.append(made.model.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
