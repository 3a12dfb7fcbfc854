"""Curves of a list of runs, on the records of 0.1."""

from pathlib import Path

import attnlab
from attnlab.errors import RequestError
from tests.prose import refuses

RUNS = Path(__file__).parents[1] / "records/runs"


def test_a_metric_of_curves_may_name_its_split():
    runs = attnlab.runs(RUNS, where="variant=multihead dataset=pronoun state=finished")
    for split in ("train", "validation"):
        of_split = runs.curve_table("loss", split)
        assert of_split.num_rows
        assert runs.curve_table(f"{split}/loss").equals(of_split)
        assert runs.curve_table(f"{split}/loss", split).equals(of_split)
    assert runs.curve_table("loss").equals(runs.curve_table("validation/loss"))


def test_a_wrong_metric_of_curves_is_refused_with_the_nearest():
    runs = attnlab.runs(RUNS, where="variant=multihead dataset=pronoun state=finished")
    for name, (metric, split) in {
        "name": ("validation/los", None),
        "split": ("valid/loss", None),
        "two_splits": ("validation/loss", "train"),
        "no_name": ("validation/", None),
    }.items():
        with refuses(RequestError, f"api.curves.{name}"):
            runs.curves(metric, split)
