"""Who says nothing, or no number, is not right."""

import math

import pytest
import torch

from attnlab.metric.accuracy import accuracy
from attnlab.metric.base import finish_metric, tally
from attnlab.metric.f1 import F1
from attnlab.metric.sequence_accuracy import sequence_accuracy
from attnlab.metric.top_k import top_k

TARGETS = torch.tensor([[0, 1, 2, 3]])


def score(metric, logits: torch.Tensor) -> float:
    return float(finish_metric(metric, *tally(metric, logits, TARGETS)))


@pytest.mark.parametrize("metric", [accuracy, sequence_accuracy, top_k])
def test_an_answer_that_is_no_number_is_wrong(metric):
    assert score(metric, torch.full((1, 4, 9), math.nan)) == 0
    # One output of each answer is no number: the target's own, and for the last another.
    broken = torch.eye(9)[torch.tensor([[0, 1, 2, 5]])].bool()
    logits = torch.eye(9)[TARGETS].masked_fill(broken, math.nan)
    # The last target may still be among the five likeliest.
    assert score(metric, logits) == (0.25 if metric is top_k else 0)


def test_f1_of_answers_that_are_no_numbers_is_zero():
    assert score(F1(), torch.full((1, 4, 9), math.nan)) == 0


@pytest.mark.parametrize("k", [1, 3, 8])
def test_a_tie_is_no_hit(k):
    assert score(lambda *a: top_k(*a, k=k), torch.zeros(1, 4, 9)) == 0
    assert score(lambda *a: top_k(*a, k=9), torch.zeros(1, 4, 9)) == 1


def test_without_ties_it_is_the_librarys():
    logits = torch.randn(1, 4, 9, generator=torch.Generator().manual_seed(0))
    for k in range(1, 10):
        hits = (logits.topk(k).indices == TARGETS[..., None]).any(-1).float().mean()
        assert score(lambda *a, k=k: top_k(*a, k=k), logits) == pytest.approx(float(hits))
