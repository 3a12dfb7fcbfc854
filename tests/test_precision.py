"""What a forward pass is computed in is what Lightning's training computes it in."""

import warnings
from contextlib import suppress

import pytest
import pytorch_lightning as pl
import torch

from attnlab.precision import TYPES, forward_context, parameter_type


def conditions(device_type: str) -> dict[str, object]:
    """Return all that decides the types of a forward pass."""
    return {
        "autocast": torch.is_autocast_enabled(device_type),
        "products": torch.is_autocast_enabled(device_type)
        and torch.get_autocast_dtype(device_type),
        "default": torch.get_default_dtype(),
    }


@pytest.mark.parametrize("precision", TYPES)
def test_the_context_and_the_weights_are_those_of_lightning(precision):
    with warnings.catch_warnings():
        # On a CPU it takes 16-mixed for bf16-mixed, and says so.
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(accelerator="cpu", precision=precision, logger=False, max_steps=1)
    plugin = trainer.precision_plugin
    with plugin.forward_context():
        of_lightning = conditions("cpu")
    with forward_context(precision, "cpu"):
        assert conditions("cpu") == of_lightning
    module = plugin.convert_module(torch.nn.Linear(2, 2))
    assert {weights.dtype for weights in module.parameters()} == {
        parameter_type(precision) or torch.float32
    }


@pytest.mark.parametrize("precision", TYPES)
def test_nothing_is_left_behind(precision):
    before = conditions("cpu"), torch.get_float32_matmul_precision()
    with suppress(KeyError), forward_context(precision, "cpu", "medium"):
        assert torch.get_float32_matmul_precision() == "medium"
        raise KeyError
    assert (conditions("cpu"), torch.get_float32_matmul_precision()) == before


def test_a_gpu_computes_float16_where_a_cpu_cannot():
    assert TYPES["16-mixed"].products == torch.float16
    with forward_context("16-mixed", "cpu"):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
