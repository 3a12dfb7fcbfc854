"""The range of a metric is stated where it is defined, kept in the record, and read from there."""

from math import inf

import pytest

from attnlab.experiment import Experiment
from attnlab.metric.base import bounded
from attnlab.run_record.bounds import ANY, NOT_NEGATIVE, SHARE, metric_bounds, stated_bounds


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("test_100/accuracy@length=8", SHARE),
        ("validation/loss", NOT_NEGATIVE),
        ("test/blocks.0.ffn.load.3", SHARE),
        ("test/perplexity", (1, inf)),
        ("pronoun/end_cut_right", SHARE),
        ("context/within_8", NOT_NEGATIVE),
        ("routing/layer0/balance", ANY),
    ],
)
def test_the_range_of_a_metric_of_attnlab_is_known_of_older_records_too(metric, expected):
    assert metric_bounds(metric, None) == expected


def test_a_metric_of_ones_own_states_its_range_and_what_states_none_may_be_anything():
    @bounded(-1, 1)
    def correlation(logits, targets):
        return logits

    stated = stated_bounds({"correlation": correlation, "free": lambda logits, targets: logits}, {})
    assert metric_bounds("test/correlation", stated) == (-1, 1)
    assert metric_bounds("test/free", stated) == ANY
    # Only what a record states counts, where it states some.
    assert metric_bounds("test/accuracy", stated) == ANY


def test_an_experiment_states_the_ranges_of_its_metrics_and_evidence(composed):
    stated = Experiment(composed("dataset=pronoun", "metric=[accuracy,top_k]")).bounds
    assert stated["accuracy"] == stated["top_k"] == stated["pronoun/*flip"] == (0.0, 1.0)
    assert stated["loss"] == (0.0, None)
