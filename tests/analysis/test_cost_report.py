"""What models cost: names of arms, numbers of a length, and what cannot be measured."""

from dataclasses import asdict

import pytest

from attnlab.analysis.cost_arms import arm_names
from attnlab.analysis.cost_report import length_cost
from attnlab.measure import Measurement


@pytest.mark.parametrize(
    ("combinations", "names"),
    [
        ([[]], ["default"]),
        ([["trainer.threads=1"]], ["default"]),
        ([["variant=lstm", "trainer.threads=1"]], ["lstm"]),
        ([["variant=lstm", "size=medium"], ["variant=moe", "size=medium"]], ["lstm", "moe"]),
        (
            [
                ["model/mixer=lstm", "model.num_layers=1"],
                ["model/mixer=lstm", "model.num_layers=2"],
            ],
            ["1", "2"],
        ),
        (
            [["model/mixer=lstm", "model.num_layers=1"], ["model/mixer=a/b", "model.num_layers=2"]],
            ["mixer=lstm num_layers=1", "mixer=a/b num_layers=2"],
        ),
        (
            [
                ["model.dropout=0", "model.block.dropout=.1"],
                ["model.dropout=.1", "model.block.dropout=0"],
            ],
            ["model.dropout=0 model.block.dropout=.1", "model.dropout=.1 model.block.dropout=0"],
        ),
    ],
)
def test_an_arm_is_called_by_what_sets_it_apart(combinations, names):
    assert arm_names(combinations, "default") == names


def test_a_row_has_the_median_and_the_quartiles_of_the_rounds():
    cell = Measurement("", "forward", 8, 2, (5.0, 1.0, 3.0, 2.0, 4.0), 10, 20, None)
    row = length_cost(cell)
    assert (row.low, row.seconds, row.high) == (2, 3, 4)
    assert row.tokens_per_second == 16 / 3
    single = length_cost(Measurement("", "forward", 8, 2, (5.0,), 10, 20, None))
    assert (single.low, single.seconds, single.high) == (5, 5, 5)


def test_a_length_that_the_memory_does_not_suffice_for_has_no_numbers():
    row = asdict(length_cost(Measurement("", "forward", 8, 2, (), None, None, 16)))
    known = {"length": 8, "batch": 2, "rounds": [], "state_size": 16}
    assert row == {**dict.fromkeys(row), **known}
