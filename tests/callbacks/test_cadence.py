"""When things happen in training."""

from hypothesis import given
from hypothesis import strategies as st

from attnlab.callbacks.cadence import Cadence
from tests.depth import examples
from tests.refused_calls import refused_calls


def test_listed_steps_take_the_place_of_the_even_ones():
    cadence = Cadence(50, 10, patterns_at=[0, 7, 7, 50], statistics_every=20)
    assert [step for step in range(51) if cadence.records(step)] == [0, 7, 50]
    assert [step for step in range(51) if cadence.measures(step)] == [0, 20, 40, 50]
    assert not any(Cadence(50, 10, statistics_every=None).measures(step) for step in range(51))
    assert all(cadence.writes(step) for step in (7, 20, 40, 50))


@examples(50)
@given(st.integers(1, 2000), st.integers(1, 12))
def test_recordings_are_evenly_spaced_by_the_logarithm_of_the_step(steps, per_decade):
    cadence = Cadence(steps, 10, patterns_per_decade=per_decade)
    at = [step for step in range(steps + 1) if cadence.records(step)]
    assert at[0] == 0
    assert at[-1] == steps
    exact = {round(10 ** (i / per_decade)) for i in range(per_decade * 4 + 1)}
    assert set(at) - {0, steps} == {step for step in exact if step < steps}


def test_the_default_cadence_is_this_one():
    cadence = Cadence(1000, 100)
    at = [step for step in range(1001) if cadence.records(step)]
    assert at == [0, 1, 2, 3, 6, 10, 18, 32, 56, 100, 178, 316, 562, 1000]


def test_evidence_is_measured_in_training_only_where_that_is_asked_for():
    cadence = Cadence(50, 10, evidence_every=20, checkpoint_every=50)
    assert [step for step in range(51) if cadence.measures_evidence(step)] == [0, 20, 40, 50]
    assert all(cadence.writes(step) for step in (20, 40))
    assert not any(Cadence(50, 10).measures_evidence(step) for step in range(51))


def test_a_cadence_that_cannot_be_kept_is_refused():
    refused_calls(
        "callbacks.cadence.{}",
        {
            "log_every": lambda: Cadence(50, 10, log_every=0),
            "test_every": lambda: Cadence(50, 10, test_every=0),
            "evidence_every": lambda: Cadence(50, 10, evidence_every=0),
            "statistics_every": lambda: Cadence(50, 10, statistics_every=0),
            "patterns_at": lambda: Cadence(50, 10, patterns_at=[-1, 5]),
        },
    )
