"""A flow is the narrowest cut, found by trying all of them, and what is known in closed form."""

from itertools import product

import numpy as np
import pytest
import torch
from jaxtyping import Float

from attnlab.interp.attention_flow import attention_flow
from attnlab.interp.circuits import rollout
from tests.prose import refuses


def drawn(*heads: int, size: int = 4, batch: int = 1) -> list[torch.Tensor]:
    return [(3 * torch.randn(batch, count, size, size)).softmax(dim=-1) for count in heads]


def widths(patterns: list[torch.Tensor], sequence: int = 0) -> Float[np.ndarray, "layer seq seq"]:
    means = [pattern[sequence].double().numpy().mean(axis=0) for pattern in patterns]
    return np.stack([(mean + np.eye(len(mean))) / 2 for mean in means])


def narrowest_cut(edges: Float[np.ndarray, "layer seq seq"], query: int, key: int) -> float:
    """Try every set of nodes that holds the source and not the sink (Ford & Fulkerson 1956)."""
    num_layers, length, _ = edges.shape
    cuts = []
    for choice in product([0.0, 1.0], repeat=(num_layers - 1) * length):
        between = np.reshape(choice, (num_layers - 1, length))
        # Other inputs lead nowhere, so they may stand on the side of the source.
        sides = np.vstack([np.arange(length) != key, between, np.arange(length) == query])
        cuts.append(sum(sides[at + 1] @ edges[at] @ (1 - sides[at]) for at in range(num_layers)))
    return min(cuts)


def test_through_one_layer_a_flow_is_the_edge():
    patterns = drawn(3, size=6, batch=2)
    found = attention_flow(patterns)
    for sequence in range(2):
        np.testing.assert_allclose(found[sequence], widths(patterns, sequence)[0], atol=1e-7)


def test_a_small_flow_is_as_near_as_its_capacity_is_rounded():
    patterns = drawn(2, size=32)
    found, edges = attention_flow(patterns)[0].double().numpy(), widths(patterns)[0]
    # Besides the rounding of float32, in which flows are given.
    assert (np.abs(found - edges) <= 2.0**-31 + 2.0**-24 * edges).all()


def test_through_two_layers_it_is_what_fits_through_each_position_between():
    patterns = drawn(2, 3, size=7)
    lower, upper = widths(patterns)
    expected = np.minimum(upper[:, :, None], lower[None]).sum(axis=1)
    np.testing.assert_allclose(attention_flow(patterns)[0], expected, atol=1e-7)


def test_through_more_it_is_the_narrowest_of_all_cuts():
    patterns = drawn(1, 4, 2)
    found, edges = attention_flow(patterns)[0], widths(patterns)
    for query in range(4):
        for key in range(4):
            cut = narrowest_cut(edges, query, key)
            assert float(found[query, key]) == pytest.approx(cut, abs=1e-6)
    assert not torch.allclose(found, rollout(patterns)[0, -1], atol=0.05)


def test_a_bottleneck_is_all_that_passes():
    # Both layers look at 0 alone: from 2 to 0 by way of 0 or of 2, each half as wide as all.
    first = torch.tensor([1.0, 0, 0]).expand(1, 1, 3, 3)
    found = attention_flow([first, first])[0]
    assert found[2].tolist() == pytest.approx([1.0, 0, 0.5])
    assert found[0].tolist() == pytest.approx([1.0, 0, 0])
    # A thin edge below is all that a wide one above can use.
    thin = torch.tensor([[1.0, 0, 0], [0.2, 0.8, 0], [0, 0, 1]])[None, None]
    wide = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0]])[None, None]
    assert attention_flow([thin, wide])[0, 2].tolist() == pytest.approx([0.1, 0.5, 0.5])


def test_no_flow_comes_from_the_future_and_padding_has_none():
    hidden = torch.ones(5, 5).triu(1).bool()
    scores = [torch.randn(2, 2, 5, 5).masked_fill(hidden, -torch.inf) for _ in range(3)]
    causal = [score.softmax(dim=-1) for score in scores]
    valid = torch.arange(5) < torch.tensor([[5], [3]])
    found = attention_flow(causal, valid)
    assert (found[:, hidden] == 0).all()
    assert found.dtype == torch.float32
    assert (found[1, 3:] == 0).all()
    assert (found[1, :, 3:] == 0).all()
    # What is not there changes nothing of the rest.
    short = attention_flow([pattern[1:, :, :3, :3] for pattern in causal])
    torch.testing.assert_close(found[1, :3, :3], short[0], atol=1e-6, rtol=0)


def test_the_longest_sequence_has_a_flow_and_no_longer_one(monkeypatch):
    monkeypatch.setattr("attnlab.interp.attention_flow.LONGEST", 3)
    assert attention_flow(drawn(1, size=3)).shape == (1, 3, 3)
    with refuses(ValueError, "evidence.flow.longest"):
        attention_flow(drawn(1, size=4))


def test_what_has_no_flow_is_refused():
    with refuses(ValueError, "evidence.flow.nothing"):
        attention_flow([])
    with refuses(ValueError, "evidence.flow.too_long"):
        attention_flow([torch.full((1, 1, 65, 65), 1 / 65)])
    with refuses(ValueError, "evidence.flow.lengths"):
        attention_flow([*drawn(1, size=3), *drawn(1, size=4)])
    with refuses(ValueError, "evidence.flow.batches"):
        attention_flow([*drawn(1), *drawn(1, batch=2)])
