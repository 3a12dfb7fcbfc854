"""Whether less of a metric is better is stated once, and what compares reads it there."""

from functools import partial

import pytest

from attnlab.analysis.compare import compare
from attnlab.errors import RequestError
from attnlab.evidence.context import ContextUse
from attnlab.experiment import Experiment
from attnlab.metric.top_k import top_k
from attnlab.run_record.direction import LOSSES, lower_is_better, lower_is_better_names
from tests import fabricated


@pytest.mark.parametrize("stated", [None, LOSSES], ids=["0.1", "now"])
def test_less_of_a_loss_is_better_on_any_split_and_slice(stated):
    lower = ("test/loss", "test/perplexity", "validation/bits_per_byte", "test_100/loss@length=8")
    higher = ("test/accuracy", "accuracy@distance=8-15", "test/lossless", "pronoun/flip")
    assert all(lower_is_better(name, stated) for name in lower)
    assert not any(lower_is_better(name, stated) for name in higher)


def test_evidence_says_of_which_of_its_numbers_less_is_better():
    stated = [*LOSSES, *lower_is_better_names(partial(ContextUse))]
    assert all(lower_is_better(f"context/{name}", stated) for name in ("loss_8", "within_2"))
    assert lower_is_better("context/loss_8", None)


def test_a_metric_says_for_itself_that_less_of_it_is_better(composed):
    def calibration_error(logits, targets):
        return logits[..., 0]

    calibration_error.lower_is_better = True  # pyright: ignore[reportFunctionMemberAccess]
    assert lower_is_better_names(partial(calibration_error), "ece") == ["ece"]
    assert lower_is_better_names(partial(top_k, k=2), "top_k") == []
    assert Experiment(composed("dataset=mqar")).lower_is_better == list(LOSSES)


def results(metric: str, **fields):
    metrics = {"test/accuracy": 0.5, metric: 0.5}
    runs = [fabricated.result(seed=seed, metrics=metrics, **fields) for seed in (0, 1)]
    return {f"run-{fields.get('variant')}-{i}": run for i, run in enumerate(runs)}


@pytest.mark.parametrize(
    ("metric", "higher"),
    [
        ("test/perplexity", False),
        ("test/bits_per_byte", False),
        ("test/loss", False),
        ("test/accuracy", True),
        ("test/accuracy@length=4", True),
    ],
)
def test_a_comparison_of_old_runs_knows_the_direction(metric, higher):
    (panel,) = compare(results(metric, variant="vanilla"), metric=metric)
    assert panel.higher_is_better is higher


def test_a_comparison_reads_what_the_runs_state():
    runs = results("test/ece", variant="vanilla", lower_is_better=("loss", "ece"))
    (panel,) = compare(runs, metric="test/ece")
    assert panel.higher_is_better is False


def test_runs_that_mean_unlike_things_by_a_name_are_not_compared():
    one = results("test/ece", variant="vanilla", lower_is_better=("ece",))
    other = results("test/ece", variant="moe", lower_is_better=())
    with pytest.raises(RequestError):
        compare(one | other, metric="test/ece")
