"""A run leaves the process as it found it."""

import random

import numpy as np
import torch

from attnlab.process_state import preserve_process_state


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_what_a_run_sets_and_draws_is_undone():
    with preserve_process_state():
        expected = drawn()
    settings = torch.get_num_threads(), torch.get_float32_matmul_precision()
    with preserve_process_state():
        drawn()
        torch.set_num_threads(settings[0] + 1)
        torch.set_float32_matmul_precision("medium")
        torch.manual_seed(3)
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == settings
    assert drawn() == expected
