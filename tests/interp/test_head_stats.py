"""Heads are summarised as loops over single weights would do it, however the work is parted."""

import gc
import math
import weakref
from collections import defaultdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnlab.evidence.heads import StrongestHeads
from attnlab.experiment import Experiment
from attnlab.interp import head_stats as module
from attnlab.interp.attention_taps import record_patterns
from attnlab.interp.circuits import gram_matrix
from attnlab.interp.head_stats import Tally, build_pattern_rows, head_statistics, summarise
from attnlab.interp.pattern_stats import PatternRows
from attnlab.layers import HeadRef
from attnlab.split import Batch
from tests.depth import examples
from tests.prose import refuses
from tests.untrained import sharp

MQAR = ("dataset=mqar", "dataset.length=24", "dataset.num_pairs=3", "dataset.vocab_size=32")
CASES = {
    "causal": (*MQAR, "variant=multihead"),
    "bidirectional": ("dataset=pronoun", "variant=multihead"),
    "padded causal": ("dataset=pronoun", "variant=multihead", "objective.causal=true"),
    "window": (*MQAR, "model/mixer=sliding_window", "model.mixer.window=5"),
    "wide window": ("dataset=pronoun", "model/mixer=sliding_window", "model.mixer.window=3"),
    "differential": (*MQAR, "model/mixer=differential"),
    "one head": (*MQAR, "variant=vanilla"),
    "lstm_attention": ("dataset=pronoun", "variant=lstm_attention"),
    "masked": ("dataset=pronoun", "objective=masked", "evidence=none", "variant=multihead"),
}
ACROSS = {
    "encoder-decoder": ("dataset=reversal", "variant=multihead"),
    "lstm that reads": ("dataset=reversal", "variant=lstm_attention"),
    "autoencoder": ("dataset=pronoun", "objective=autoencoder", "evidence=none"),
}


@pytest.fixture
def built(once):
    """Make an untrained experiment whose patterns are sharp, with few examples."""

    def make(*overrides: str) -> Experiment:
        sizes = ("dataset.num_train=100", "dataset.num_validation=4", "dataset.num_test=60")
        return sharp(once("model.d_model=16", "model.num_layers=2", *sizes, *overrides))

    return make


def asked_of(made: Experiment, count: int = 4) -> Batch:
    batch = made.dataset.splits["validation"].batch(torch.arange(count).numpy())
    return made.objective.training_batch(batch._replace(noise_key=torch.arange(count)))


def looped(rows: PatternRows) -> dict[str, list[float]]:
    """Measure rows by going over every weight, in double precision."""
    found = defaultdict(lambda: [[] for _ in range(rows.pattern.shape[1])])
    pattern, valid = rows.pattern.double().tolist(), rows.valid.tolist()
    for b, layer in enumerate(pattern):
        for h, head in enumerate(layer):
            for q, weights in enumerate(head):
                if not bool(rows.counted[b, q]):
                    continue

                def put(name: str, value: float, h: int = h) -> None:
                    found[name][h].append(value)

                nats = -sum(p * math.log(p) for p in weights if p > 0)
                window = rows.window or len(weights)
                seen = sum(
                    valid[b][k]
                    and (rows.query_at is None or not rows.causal or k <= q)
                    and (rows.query_at is None or abs(k - q) < window)
                    for k in range(len(weights))
                )
                put("entropy", nats)
                put("effective_keys", math.exp(nats))
                put("confidence", max(weights))
                if seen > 1:
                    put("normalised_entropy", nats / math.log(seen))
                for h2, other in enumerate(layer):
                    pairs = zip(weights, other[q], strict=True)
                    apart = sum(
                        x * math.log(2 * x / (one + two)) / 2
                        for one, two in pairs
                        for x in (one, two)
                        if x > 0
                    )
                    put(f"between {h2}", apart)
                if rows.query_at is None:
                    continue
                assert rows.tokens is not None
                tokens = rows.tokens[b].tolist()
                put("distance", sum(p * abs(k - q) for k, p in enumerate(weights)))
                put("previous", weights[q - 1] if q else 0)
                put("current", weights[q])
                put("next", weights[q + 1] if q + 1 < len(weights) else 0)
                put("first", weights[0])
                if q >= 4:
                    put("sink", sum(weights[:4]))
                before = [k for k in range(q) if tokens[k] == tokens[q]]
                put("duplicate_token", sum(weights[k] for k in before))
                put("induction", sum(weights[k + 1] for k in before))
                if before:
                    put("prefix_matching", sum(weights[k + 1] for k in before))
    every = range(rows.pattern.shape[1])
    means = {
        name: [sum(v) / len(v) if v else math.nan for v in values] for name, values in found.items()
    }
    between = [means.pop(f"between {other}") for other in every]
    if len(every) > 1:
        apart = [[between[other][h] for other in every if other != h] for h in every]
        means["other_heads"] = [sum(a) / len(a) for a in apart]
        means["nearest_head"] = [min(a) for a in apart]
    return means


@pytest.mark.parametrize("case", [*CASES, *ACROSS])
def test_statistics_are_the_means_that_loops_give(built, case):
    made = built(*(CASES | ACROSS)[case])
    asked = asked_of(made)
    found = head_statistics(made.subject, made.dataset.splits["validation"])
    with torch.no_grad(), record_patterns(made.model.eval()) as patterns:
        made.model(*asked.model_inputs)
    assert list(found) == made.model.attention_layers()
    assert set(found) == set(patterns)
    for layer, pattern in patterns.items():
        expected = looped(build_pattern_rows(made.model, layer, pattern, asked))
        assert set(found[layer]) == set(expected)
        for measure, values in expected.items():
            got = found[layer][measure]
            assert len(got) == layer.num_heads
            assert got.dtype == torch.float32
            wanted = torch.tensor(values)
            torch.testing.assert_close(got, wanted, atol=2e-5, rtol=1e-5, equal_nan=True)


def test_rows_between_two_sequences_have_no_positions(built):
    made = built(*ACROSS["encoder-decoder"])
    found = head_statistics(made.subject, made.dataset.splits["validation"])
    assert any(layer.axes.crosses for layer in found)
    for layer, measures in found.items():
        across = layer.axes.crosses
        assert ("distance" in measures) == ("induction" in measures) == (not across)
        assert {"entropy", "normalised_entropy", "confidence", "nearest_head"} <= set(measures)
    made = built(*ACROSS["autoencoder"])
    found = head_statistics(made.subject, made.dataset.splits["validation"])
    measures = {layer.path: measures for layer, measures in found.items()}
    assert "distance" not in measures["bottleneck.cross.attend"]
    assert any(path.startswith("blocks.") and ".cross." in path for path in measures)


@pytest.mark.parametrize("case", ["padded causal", "masked", "wide window"])
def test_no_size_of_batches_or_parts_moves_a_number(built, case, monkeypatch):
    made = built(*CASES[case])
    split = made.dataset.splits["validation"]
    whole = head_statistics(made.subject, split, measure_rank=True)
    for batch_size, queries in ((1, 64), (3, 7), (64, 1)):
        monkeypatch.setattr("attnlab.attend.QUERIES", queries)
        parted = head_statistics(made.subject, split, measure_rank=True, batch_size=batch_size)
        for name, measures in whole.items():
            for measure, values in measures.items():
                torch.testing.assert_close(
                    parted[name][measure], values, atol=2e-5, rtol=1e-5, equal_nan=True
                )
    if case != "masked":
        batches = [split[0:3], split[3:4]]
        given = head_statistics(made.subject, batches, measure_rank=True)
        for name, measures in whole.items():
            assert measures.keys() == given[name].keys()
            for measure, values in measures.items():
                torch.testing.assert_close(given[name][measure], values, atol=2e-5, rtol=1e-5)


@examples(30)
@given(
    seed=st.integers(0, 999),
    length=st.integers(1, 12),
    num_heads=st.integers(1, 4),
    parts=st.integers(1, 12),
    causal=st.booleans(),
)
def test_any_parting_of_the_queries_gives_the_numbers_of_the_whole(
    seed, length, num_heads, parts, causal
):
    draw = torch.Generator().manual_seed(seed)
    valid = torch.arange(length) < torch.randint(1, length + 1, (3, 1), generator=draw)
    scores = 3 * torch.randn(3, num_heads, length, length, generator=draw)
    scores = scores.masked_fill(~valid[:, None, None], -torch.inf)
    if causal:
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
    tokens = torch.randint(3, (3, length), generator=draw)
    pattern = scores.softmax(dim=-1)
    rows = PatternRows(pattern, valid, valid, torch.arange(length), tokens, causal)
    whole, parted = summarise([rows]), summarise(rows.split_queries(parts))
    # Parts may also be of sequences.
    each = (
        PatternRows(
            pattern[b, None], valid[b, None], valid[b, None], rows.query_at, tokens[b, None]
        )
        for b in range(3)
    )
    alone = summarise(each)
    assert whole.keys() == parted.keys() == alone.keys()
    for name, values in whole.items():
        torch.testing.assert_close(parted[name], values, atol=1e-6, rtol=1e-6, equal_nan=True)
        if not causal:
            torch.testing.assert_close(alone[name], values, atol=1e-6, rtol=1e-6, equal_nan=True)


def test_what_padding_pays_counts_for_nothing():
    valid = torch.arange(5) < torch.tensor([[5], [3]])
    pattern = valid[:, None, None].float().expand(2, 2, 5, 5)
    pattern = pattern / pattern.sum(dim=-1, keepdim=True)
    tokens = torch.arange(5).expand(2, 5)
    means = summarise([PatternRows(pattern, valid, valid, torch.arange(5), tokens)])
    wild = pattern.clone()
    wild[1, :, 3:] = torch.nan
    again = summarise([PatternRows(wild, valid, valid, torch.arange(5), tokens)])
    assert means["effective_keys"].tolist() == pytest.approx([(5 * 5 + 3 * 3) / 8] * 2)
    assert means["normalised_entropy"].tolist() == pytest.approx([1, 1])
    assert means["sink"].tolist() == pytest.approx([4 / 5] * 2)
    assert means["nearest_head"].tolist() == [0, 0]
    assert means["prefix_matching"].isnan().all()
    for name, values in means.items():
        torch.testing.assert_close(again[name], values, equal_nan=True)


def test_a_diverged_pattern_is_not_passed_over():
    valid = torch.ones(1, 3, dtype=torch.bool)
    pattern = torch.full((1, 2, 3, 3), 1 / 3)
    pattern[0, 1, 1] = torch.nan
    means = summarise([PatternRows(pattern, valid, valid)])
    assert [not value.isnan() for value in means["entropy"]] == [True, False]
    assert [not value.isnan() for value in means["confidence"]] == [True, False]


def test_the_rank_is_a_mean_over_sequences():
    valid = torch.ones(2, 4, dtype=torch.bool)
    pattern = torch.stack([torch.eye(4), torch.full((4, 4), 0.25)])[:, None]
    tally = Tally()
    tally.add_rank(gram_matrix(pattern, valid))
    assert tally.means()["effective_rank"].tolist() == pytest.approx([2.5])


def test_summarising_leaves_no_trace_and_keeps_one_layer(built):
    made = built(*CASES["causal"], "model.dropout=0.2")
    model, split = made.model.train(), made.dataset.splits["validation"]
    before = torch.get_rng_state()
    first = head_statistics(made.subject, split)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(weights.grad is None for weights in model.parameters())
    assert all(not module._forward_hooks for module in model.modules())
    torch.manual_seed(5)
    again = head_statistics(made.subject, split)
    for name, measures in first.items():
        for measure, values in measures.items():
            torch.testing.assert_close(again[name][measure], values, rtol=0, atol=0, equal_nan=True)


def test_a_few_rows_of_one_layer_are_held(built, monkeypatch):
    # Heads this wide go through the fused kernel, which never writes the square down.
    made = built(*CASES["causal"], "model.d_model=160")
    monkeypatch.setattr("attnlab.attend.QUERIES", 8)
    heard, most = [], []
    original = module.build_pattern_rows

    def watched(model, layer, pattern, asked, start):
        assert pattern.shape[2] == 8
        heard.append(weakref.ref(pattern))
        gc.collect()
        most.append(sum(reference() is not None for reference in heard))
        return original(model, layer, pattern, asked, start)

    monkeypatch.setattr(module, "build_pattern_rows", watched)
    split = made.dataset.splits["validation"]
    # What there was before need not be searched for garbage each time.
    gc.freeze()
    head_statistics(made.subject, split)
    gc.unfreeze()
    assert most == [1] * 2 * 3


def test_what_cannot_be_summarised_is_refused(built):
    made, lstm = built(*CASES["causal"]), built("dataset=mqar", "variant=lstm")
    split = made.dataset.splits["validation"]
    with refuses(LookupError, "evidence.heads.no_attention"):
        head_statistics(lstm.subject, lstm.dataset.splits["validation"])
    with refuses(ValueError, "evidence.heads.no_batches"):
        head_statistics(made.subject, [])
    one = head_statistics(made.subject, split, layers=[1])
    assert list(one) == made.model.attention_layers()[1:]
    with refuses(LookupError, "evidence.heads.layer"):
        head_statistics(made.subject, split, layers=[2])


def test_the_named_heads_are_those_with_most(built):
    made = built(*CASES["causal"])
    split = made.dataset.splits[made.dataset.report_split]
    found = StrongestHeads(made.subject, num_examples=5).measure()
    each = head_statistics(made.subject, [split[0:5]])
    for name, role in (
        *(("previous", "previous"), ("induction", "induction"), ("sink", "sink")),
        ("duplicate_token", "duplicate token"),
    ):
        scores = torch.stack([measures[name] for measures in each.values()])
        head = HeadRef(*divmod(int(scores.argmax()), 4))
        assert found.scalars[name] == pytest.approx(float(scores.max()), abs=1e-6)
        named = found.heads[name]
        assert (named.head, named.role, named.weight) == (head, role, found.scalars[name])
    assert found.scalars.keys() == found.heads.keys()
    first = dict(found.scalars)
    for name, named in found.heads.items():
        first |= {f"{name}_layer": float(named.head.layer), f"{name}_head": float(named.head.head)}
    assert StrongestHeads.finding_from_old_record(first) == found
    lstm = built("dataset=mqar", "variant=lstm")
    # What is read is another sequence: nothing is before or after a query.
    across = built(*ACROSS["lstm that reads"])
    for nothing in (lstm, across):
        found = StrongestHeads(nothing.subject).measure()
        assert found.scalars == found.heads == {}
