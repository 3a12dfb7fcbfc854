"""What is kept of a run can be read again."""

from typing import Any

import numpy as np
import pytest
import torch

from attnlab.evidence.base import check_finding
from attnlab.experiment import Experiment
from attnlab.layers import HeadRef
from attnlab.model.base import Model
from attnlab.run_record.finding import Finding, NamedHead
from tests.prose import says


def untyped(scalars: dict[str, Any]) -> Finding:
    """Return a finding as code without our tests' checks of types would build it."""
    finding = Finding()
    vars(finding)["scalars"] = scalars
    return finding


@pytest.fixture
def model(composed) -> Model:
    return Experiment(composed("dataset=pronoun", "model.d_model=8", "model.num_layers=1")).model


def test_numbers_of_other_libraries_become_plain_ones(model):
    finding = untyped({"numpy": np.float32(0.5), "torch": torch.tensor(2.0), "int": 1})
    scalars = check_finding("mine", finding, model).scalars
    assert scalars == {"numpy": 0.5, "torch": 2.0, "int": 1.0}
    assert {type(value) for value in scalars.values()} == {float}


WRONG: dict[str, Any] = {
    "no_finding": {"weight": 0.5},
    "no_number": untyped({"weight": [0.5, 0.25]}),
    "two_lines": untyped({"two\nlines": 0.5}),
    "no_head": Finding({}, {"anchor": NamedHead(HeadRef(7, 9), "anchor", 0.5)}),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_an_evidence_must_not_return_is_named_with_the_evidence(model, name):
    with pytest.raises((TypeError, ValueError)) as raised:
        check_finding("mine", WRONG[name], model)
    says(f"launch.finding.{name}", str(raised.value))
