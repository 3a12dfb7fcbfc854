"""No training step makes a GPU's host wait, as far as a machine without one can tell."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench import fake_gpu

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def imagined() -> dict[str, Any]:
    """What each arm does; in a process of its own, since a device is imagined for good."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.fake_gpu"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_training_step_leaves_every_value_on_its_device(imagined):
    arms = imagined["arms"]
    faults = {arm: found for arm, found in arms.items() if not isinstance(found, str)}
    assert arms.keys() == fake_gpu.arms().keys()
    assert {arm: found for arm, found in faults.items() if found} == {}
    assert len(faults) > 3 * len(arms) / 4, "most arms are refused"


def test_an_operation_that_asks_for_a_value_is_noticed(imagined):
    expected = ["_local_scalar_dense", "_to_copy", "index.Tensor", "nonzero"]
    assert imagined["noticed"] == expected
