"""What heads do together is what the definitions say."""

import math

import numpy as np
import pytest
import torch

from attnlab.experiment import Experiment
from attnlab.interp.circuits import (
    effective_rank,
    gram_matrix,
    rollout,
    value_and_output_weights,
)
from attnlab.mixer.base import GroupedAttention
from attnlab.tap import edit, record
from tests.prose import refuses

EVERY = torch.ones(1, 6, dtype=torch.bool)


def rank_of(pattern: torch.Tensor, counted: torch.Tensor = EVERY) -> float:
    return float(effective_rank(gram_matrix(pattern[None, None], counted)))


def test_the_effective_rank_is_that_of_known_matrices():
    assert rank_of(torch.eye(6)) == pytest.approx(6)
    assert rank_of(torch.full((6, 6), 1 / 6)) == pytest.approx(1)
    assert rank_of(torch.eye(6)[[0, 0, 0, 0, 0, 0]]) == pytest.approx(1)
    # Singular values sqrt(3), sqrt(3): two kinds of row, three times each.
    assert rank_of(torch.eye(6)[[0, 0, 0, 1, 1, 1]]) == pytest.approx(2)
    # sqrt(4) and sqrt(1): shares 2/3 and 1/3.
    wanted = math.exp(2 / 3 * math.log(3 / 2) + 1 / 3 * math.log(3))
    assert rank_of(torch.eye(6)[[0, 0, 0, 0, 1]], EVERY[:, :5]) == pytest.approx(wanted)
    # Padded queries are no rows.
    assert rank_of(torch.eye(6), torch.arange(6)[None] < 4) == pytest.approx(4)


def test_the_effective_rank_agrees_with_singular_values_and_adds_up_over_parts():
    pattern = torch.randn(2, 3, 7, 9).softmax(dim=-1)
    causal = torch.ones(7, 7).tril() / torch.arange(1, 8)[:, None]
    counted = torch.arange(7) < torch.tensor([[7], [5]])
    pattern[0, 0] = torch.nn.functional.pad(causal, (0, 2))
    parts = [gram_matrix(pattern[:, :, s], counted[:, s]) for s in (slice(0, 3), slice(3, 7))]
    ranks = effective_rank(torch.stack(parts).sum(dim=0))
    for sequence in range(2):
        for head in range(3):
            rows = pattern[sequence, head, counted[sequence]].double().numpy()
            shares = np.linalg.svd(rows, compute_uv=False)
            shares /= shares.sum()
            shares = shares[shares > 1e-15]
            wanted = math.exp(-(shares * np.log(shares)).sum())
            assert float(ranks[sequence, head]) == pytest.approx(wanted, abs=1e-5)


def test_rollout_multiplies_half_attention_and_half_staying():
    patterns = [torch.randn(2, heads, 5, 5).softmax(dim=-1) for heads in (3, 1, 2)]
    found = rollout(patterns)
    expected = np.stack([np.eye(5), np.eye(5)])
    for layer, pattern in enumerate(patterns):
        for sequence in range(2):
            mean = sum(pattern[sequence].double().numpy()) / pattern.shape[1]
            expected[sequence] = (mean / 2 + np.eye(5) / 2) @ expected[sequence]
        np.testing.assert_allclose(found[:, layer].numpy(), expected, atol=1e-6)
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(2, 3, 5))
    # Two layers that look one back: half, then a quarter, a half and a quarter.
    back = torch.eye(5)[[0, 0, 1, 2, 3]][None, None]
    assert rollout([back, back])[0, 1, 4].tolist() == [0, 0, 0.25, 0.5, 0.25]
    with refuses(ValueError, "evidence.circuits.rollout_of_nothing"):
        rollout([])


@pytest.mark.parametrize("mixer", ["multihead", "grouped_query"])
def test_a_head_reads_and_writes_by_the_parts_of_its_weights(composed, mixer):
    words = ("dataset=mqar", "depth=shallow", "model.d_model=16", "model/position=none")
    experiment = Experiment(composed(*words, f"model/mixer={mixer}"))
    layer = next(m for m in experiment.model.modules() if isinstance(m, GroupedAttention))
    value, output = value_and_output_weights(layer)
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        layer.query_key_value.bias.zero_()
        layer.output.bias.zero_()
        with record(layer, "*.pattern") as heard:
            whole = layer(x)
        (pattern,) = heard.values()
        for head in range(4):
            alone = torch.arange(4) == head
            mask = alone.float()[:, None, None]
            with edit(layer, "*.pattern", lambda _, weights, mask=mask: weights * mask):
                found = layer(x)
            expected = pattern[:, head] @ x @ value[head].T @ output[head].T
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
            whole = whole - expected
    torch.testing.assert_close(whole, torch.zeros_like(whole), atol=1e-5, rtol=0)
