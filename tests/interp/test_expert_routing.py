"""Routing is counted as loops over single tokens would count it, and chance is taken off."""

import math
from collections import Counter
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import hypergeom

from attnlab.evidence.routing import ExpertRouting
from attnlab.experiment import Experiment
from attnlab.ffn.expert_choice import ExpertChoice
from attnlab.ffn.moe import MoE
from attnlab.interp.expert_routing import compute_routing, token_expert_information
from attnlab.tap import record
from tests.prose import refuses
from tests.untrained import sharp

SMALL = (
    *("dataset.num_train=100", "dataset.num_validation=7", "dataset.num_test=20"),
    *("model.d_model=16", "model.num_layers=2", "evidence=none"),
)

CASES = {
    "padded": ("dataset=pronoun", "variant=moe"),
    "one expert": ("dataset=pronoun", "variant=moe", "model/ffn=switch", "model.ffn.capacity=0.8"),
    "experts choose": ("dataset=pronoun", "variant=multihead", "model/ffn=expert_choice"),
    "encoder-decoder": ("dataset=reversal", "variant=moe"),
}


@pytest.fixture(scope="module")
def built(composed) -> Callable[[str], Experiment]:
    """Make an untrained experiment whose routers are sharp, with few examples."""

    @cache
    def make(case: str) -> Experiment:
        torch.manual_seed(0)
        return sharp(composed(*SMALL, *CASES[case]))

    return make


def sets(layer: MoE | ExpertChoice, probability: list, valid: list[bool]) -> list[set[int]]:
    """Name the experts of each token of one sequence, by sorting."""
    size, places = len(probability[0]), [at for at, real in enumerate(valid) if real]
    if isinstance(layer, MoE):
        ranked = [sorted(range(size), key=lambda e, p=p: -p[e]) for p in probability]
        return [set(ranked[at][: layer.top_k]) for at in places]
    room = math.ceil(layer.capacity / size * len(places))
    found = {at: set() for at in places}
    for expert in range(size):
        for at in sorted(places, key=lambda at, e=expert: -probability[at][e])[:room]:
            found[at].add(expert)
    return [found[at] for at in places]


@pytest.mark.parametrize("case", CASES)
def test_routing_is_what_loops_over_tokens_count(built, case):
    made = built(case)
    split = made.dataset.splits["validation"]
    found = compute_routing(made.subject, split)
    asked = made.objective.training_batch(
        split.batch(np.arange(7))._replace(noise_key=torch.arange(7))
    )
    with torch.no_grad(), record(made.model.eval(), "*ffn*") as heard:
        made.model(*asked.model_inputs)
    assert list(found) == made.model.expert_layers()
    assert {f"{layer.path}.load" for layer in found} == {n for n in heard if n.endswith(".load")}
    for path, seen in ((layer.path, seen) for layer, seen in found.items()):
        layer = made.model.get_submodule(path)
        assert isinstance(layer, MoE | ExpertChoice)
        decoder = asked.prefix is not None and not path.startswith("encoder")
        tokens, valid = (asked.inputs, asked.valid)
        if decoder:
            tokens, valid = asked.prefix, asked.prefix_valid
        assert tokens is not None
        valid = torch.ones_like(tokens, dtype=torch.bool) if valid is None else valid
        probability = heard[f"{path}.probability"].reshape(*tokens.shape, -1).double()
        size = probability.shape[-1]
        numbers, chosen, nats = [], [], []
        for b in range(len(tokens)):
            numbers += tokens[b][valid[b]].tolist()
            chosen += sets(layer, probability[b].tolist(), valid[b].tolist())
            rows = probability[b][valid[b]].tolist()
            nats += [-sum(p * math.log(p) for p in row if p) for row in rows]
        pairs = Counter((t, e) for t, mine in zip(numbers, chosen, strict=True) for e in mine)
        total, count = sum(map(len, chosen)), len(numbers)
        for e in range(size):
            assert float(seen.load[e]) == pytest.approx(
                sum(n for (_, other), n in pairs.items() if other == e) / total
            )
            for other in range(size):
                both = sum({e, other} <= mine for mine in chosen) / count
                assert float(seen.co_assignment[e, other]) == pytest.approx(both)
        for (token, expert), n in pairs.items():
            assert int(seen.assignment_counts[token, expert]) == n
        assert int(seen.assignment_counts.sum()) == total
        assert seen.entropy == pytest.approx(sum(nats) / count, rel=1e-6)
        met = Counter(map(len, chosen))
        assert seen.share_by_count.tolist() == pytest.approx(
            [met[n] / count for n in range(size + 1)]
        )
        assert seen.importance.tolist() == pytest.approx(
            probability[valid].mean(dim=0).tolist(), abs=1e-6
        )
        # One batch holds all: the layer's own gauges say the same.
        assert seen.load.tolist() == pytest.approx(heard[f"{path}.load"].tolist(), abs=1e-6)
        assert seen.drops == pytest.approx(float(heard[f"{path}.drops"]), abs=1e-6)
        assert (seen.drops > 0) == (case in ("one expert", "experts choose"))


def test_two_experts_a_token_make_a_symmetric_table_of_pairs(built):
    made = built("padded")
    for seen in compute_routing(made.subject, made.dataset.splits["test"]).values():
        assert torch.equal(seen.co_assignment, seen.co_assignment.T)
        assert float(seen.co_assignment.trace()) == pytest.approx(2)
        assert float(seen.co_assignment.sum()) == pytest.approx(4)
        assert seen.share_by_count.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0]
        shares = seen.shares[seen.assignment_counts.sum(dim=1) > 0]
        assert shares.sum(dim=1).tolist() == pytest.approx([1] * len(shares))


def test_no_size_of_batches_moves_a_number_and_looking_leaves_no_trace(built):
    made = built("padded")
    split, model = made.dataset.splits["test"], made.model.train()
    before = torch.get_rng_state()
    whole = compute_routing(made.subject, split, shuffles=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(not module._forward_hooks for module in model.modules())
    parts = compute_routing(made.subject, split, batch_size=3, shuffles=2)
    given = compute_routing(made.subject, [split[0:11], split[11:20]], shuffles=2)
    some = compute_routing(made.subject, split, batch_size=3, num_examples=11, shuffles=2)
    first = compute_routing(made.subject, [split[0:11]], shuffles=2)
    for one, other in ((whole, parts), (whole, given), (some, first)):
        for path, seen in one.items():
            assert torch.equal(seen.assignment_counts, other[path].assignment_counts)
            assert seen.token == other[path].token
            assert seen.entropy == pytest.approx(other[path].entropy, rel=1e-6)


def test_an_indifferent_router_has_all_the_entropy_and_tells_nothing(built):
    made = built("padded")
    layers = [module for module in made.model.modules() if isinstance(module, MoE)]
    before = [layer.router.weight.detach().clone() for layer in layers]
    for layer in layers:
        torch.nn.init.zeros_(layer.router.weight)
    split = made.dataset.splits["test"]
    for seen in compute_routing(made.subject, split, capacity=2.0).values():
        assert seen.entropy == pytest.approx(math.log(8))
        assert seen.normalised_entropy == pytest.approx(1)
        # Of equal experts the same two are chosen for all: each has room for half of its own.
        assert len(seen.dead_experts) == 6
        assert seen.balance == pytest.approx(math.log(2) / math.log(8))
        assert seen.token.nats == pytest.approx(0, abs=1e-12)
        assert seen.token.normalised_information == 0
        assert seen.drops == pytest.approx(0.5, abs=0.01)
    for layer, weight in zip(layers, before, strict=True):
        layer.router.weight.data.copy_(weight)


def test_a_router_that_heeds_the_token_alone_tells_all_that_it_can():
    tokens = torch.randint(40, (3000,))
    table = torch.rand(40, 8).topk(3, dim=1).indices
    for count in (1, 2, 3):
        chosen = torch.zeros(3000, 8, dtype=torch.bool)
        chosen.scatter_(1, table[tokens, :count], True)
        found = token_expert_information(tokens, chosen, 40)
        load = chosen.double().mean(dim=0) / count
        entropy = float(torch.special.entr(load).sum())
        assert found.nats == pytest.approx(entropy - math.log(count))
        assert found.bound == pytest.approx(found.nats)
        assert found.normalised_information == pytest.approx(1)
    # Where experts tell tokens apart, the tokens' entropy is the bound.
    few = tokens % 2
    chosen = torch.zeros(3000, 8, dtype=torch.bool)
    chosen.scatter_(1, (few + 2 * torch.randint(4, (3000,)))[:, None], True)
    found = token_expert_information(few, chosen, 2)
    assert found.nats == pytest.approx(math.log(2), abs=1e-3)
    assert found.normalised_information == pytest.approx(1)


def test_chance_is_what_a_hypergeometric_law_expects():
    """The expected mutual information of two shuffled labellings (Vinh et al. 2010)."""
    random = np.random.default_rng(0)
    tokens = random.zipf(1.6, size=400).clip(max=60) - 1
    expert = random.integers(6, size=400)
    rows, columns = np.bincount(tokens, minlength=60), np.bincount(expert, minlength=6)
    expected = 0.0
    for a in rows[rows > 0]:
        for b in columns:
            n = np.arange(1, min(a, b) + 1)
            law = hypergeom.pmf(n, 400, a, b)
            expected += float((law * n / 400 * np.log(400 * n / (a * b))).sum())
    chosen = torch.nn.functional.one_hot(torch.from_numpy(expert), 6).bool()
    found = token_expert_information(torch.from_numpy(tokens), chosen, 60, shuffles=200)
    assert found.chance == pytest.approx(expected, rel=0.02)
    assert expected > 0.2
    # Tokens and experts were drawn apart: what the counts tell is chance.
    assert abs(found.normalised_information) < 0.03 < found.nats / found.bound


def test_a_class_of_tokens_tells_no_more_than_the_token(built):
    made = built("one expert")
    split, size = made.dataset.splits["test"], len(made.objective.inputs)
    classes = [token % 3 for token in range(size)]
    for seen in compute_routing(made.subject, split, classes=classes).values():
        assert seen.token_class is not None
        assert 0 < seen.token_class.nats < seen.token.nats
    classes = [token // 3 for token in range(size)]
    for seen in compute_routing(made.subject, split, classes=classes).values():
        assert seen.token_class is not None
        counts = torch.zeros(max(classes) + 1, 8).index_add(
            0, torch.tensor(classes), seen.assignment_counts * 1.0
        )
        shares = counts.double() / counts.sum()
        apart = shares.sum(dim=1, keepdim=True) * shares.sum(dim=0)
        nats = float(torch.xlogy(shares, shares / apart.where(apart > 0, 1)).sum())
        assert seen.token_class.nats == pytest.approx(nats)
    for seen in compute_routing(made.subject, split, classes=list(range(size))).values():
        assert seen.token_class == seen.token


def test_what_no_expert_took_has_no_output(built):
    made = built("experts choose")
    batch = made.objective.training_batch(made.dataset.splits["test"][0:20])
    layer = next(m for m in made.model.modules() if isinstance(m, ExpertChoice))
    outputs = []
    handle = layer.register_forward_hook(lambda _m, _given, made: outputs.append(made[0]))
    with torch.no_grad(), record(layer, "chosen") as heard:
        made.model.eval()(*batch.model_inputs)
    with torch.no_grad():
        made.model(*batch.model_inputs)
    handle.remove()
    assert torch.equal(*outputs)
    assert torch.equal(heard["chosen"].any(dim=-1), outputs[0].any(dim=-1))
    assert not heard["chosen"].any(dim=-1).all()


def test_the_evidence_is_that_of_the_routing(built):
    made = built("experts choose")
    found = ExpertRouting(made.subject, num_examples=9).measure().scalars
    split = made.dataset.splits[made.dataset.report_split]
    layers = compute_routing(made.subject, split, num_examples=9).values()
    assert len(found) == 7 * len(layers)
    for number, seen in enumerate(layers):
        assert found[f"layer{number}/load_max"] == pytest.approx(1 / 8)
        assert found[f"layer{number}/drops"] == seen.drops == float(seen.share_by_count[0])
        assert found[f"layer{number}/token_information"] == seen.token.normalised_information
        assert found[f"layer{number}/router_entropy"] == seen.normalised_entropy
    assert all(type(value) is float for value in found.values())


def test_the_evidence_has_the_extremes_of_the_load(built):
    made = built("padded")
    found = ExpertRouting(made.subject).measure().scalars
    split = made.dataset.splits[made.dataset.report_split]
    for number, seen in enumerate(compute_routing(made.subject, split).values()):
        load = seen.load.tolist()
        assert found[f"layer{number}/load_max"] == max(load) > min(load)
        assert found[f"layer{number}/load_min"] == min(load)
        assert found[f"layer{number}/dead"] == load.count(0)
        assert found[f"layer{number}/balance"] == seen.balance != seen.normalised_entropy


def test_what_routes_nothing_has_no_routing(built, composed):
    made = built("padded")
    with refuses(ValueError, "evidence.routing.no_batches"):
        compute_routing(made.subject, [])
    with refuses(ValueError, "evidence.routing.classes"):
        compute_routing(made.subject, made.dataset.splits["test"], classes=[0, 1, 1])
    dense = Experiment(composed(*SMALL, "dataset=pronoun", "variant=vanilla"))
    assert ExpertRouting(dense.subject).measure().scalars == {}
    with refuses(LookupError, "evidence.routing.no_experts"):
        compute_routing(dense.subject, dense.dataset.splits["test"])


def test_one_expert_alone_leaves_nothing_to_tell():
    found = token_expert_information(torch.tensor([0, 1, 1]), torch.ones(3, 1, dtype=torch.bool), 2)
    assert (found.nats, found.bound, found.normalised_information) == (0, 0, 0)
