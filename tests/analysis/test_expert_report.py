"""A report of experts has the numbers of the routing that it is made of."""

import numpy as np
import pytest
import torch

from attnlab.analysis.expert_report import expert_report
from attnlab.commands.render.experts import draw_token_experts
from attnlab.errors import RequestError
from attnlab.figures import expert_load as figures
from attnlab.interp.expert_routing import compute_routing
from tests.prose import refuses

SMALL = ("dataset.num_train=40", "dataset.num_validation=20", "dataset.num_test=20")
MOE = ("dataset=pronoun", "variant=moe", *SMALL)


def test_a_layer_has_what_its_routing_has(offer):
    run = offer(*MOE)
    report = expert_report(run, "test", num_examples=15, num_tokens=5)
    found = compute_routing(run.subject, run.dataset.splits["test"], num_examples=15)
    assert (report.run, report.step, report.split) == (run.record.name, run.step, "test")
    assert [(layer.layer, layer.name) for layer in report.layers] == [
        (layer.index, layer.path) for layer in found
    ]
    for layer, routed in zip(report.layers, found.values(), strict=True):
        assert torch.equal(layer.load, routed.load)
        assert torch.equal(layer.co_assignment, routed.co_assignment)
        assert (layer.dead, layer.drops) == (routed.dead_experts, routed.drops)
        assert (layer.balance, layer.router_entropy) == (routed.balance, routed.normalised_entropy)
        assert layer.token_information == routed.token.normalised_information
        assert len(layer.tokens) == 5
        # Nothing that is left out is more frequent than what is there.
        counts = routed.assignment_counts.sum(dim=1)
        assert [token.count for token in layer.tokens] == counts.sort(descending=True)[0][
            :5
        ].tolist()
        for token in layer.tokens:
            row = routed.assignment_counts[list(run.objective.inputs).index(token.token)]
            assert token.count == int(row.sum())
            assert token.shares == pytest.approx((row / row.sum()).tolist())


def test_a_layer_that_is_named_is_that_of_the_whole_report(offer):
    run = offer(*MOE)
    (one,) = expert_report(run, layer=1).to_json()["layers"]
    assert one == expert_report(run).to_json()["layers"][1]
    assert expert_report(run, layer=np.int64(1)).to_json()["layers"] == [one]


def test_a_picture_of_tokens_has_their_counts(offer, monkeypatch):
    run, drawn = offer(*MOE), []
    monkeypatch.setattr("attnlab.figures.base.render_chart", lambda chart, ending: b"")
    monkeypatch.setattr(figures, "draw_token_table", lambda *given: drawn.append(given))
    draw_token_experts(expert_report(run, layer=0, num_tokens=999), ".svg")
    ((tokens, counts, _, _),) = drawn
    table = next(
        iter(compute_routing(run.subject, run.dataset.splits["validation"]).values())
    ).assignment_counts
    at = [list(run.objective.inputs).index(token) for token in tokens]
    np.testing.assert_array_equal(counts, table[at].numpy())
    assert counts.sum() == table.sum()


def test_what_is_not_there_is_refused(offer):
    run = offer(*MOE)
    with refuses(RequestError, "analysis.expert_report.split"):
        expert_report(run, "tets")
    for layer in (-1, 2):
        with refuses(RequestError, f"analysis.expert_report.layer_{layer}"):
            expert_report(run, layer=layer)
    with refuses(RequestError, "analysis.expert_report.none"):
        expert_report(offer("dataset=pronoun", "variant=multihead", *SMALL))
