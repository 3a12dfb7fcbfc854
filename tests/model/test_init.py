"""An initialisation does to every parameter what its docstring says."""

import math

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from attnlab.assemble import Experiment
from attnlab.config import compose, conf_dir, search_path
from attnlab.errors import ConfigError
from attnlab.init.gpt2 import GPT2
from attnlab.model.recurrent import Recurrent
from tests.conftest import choices
from tests.model.test_laws import transformer

PAIRS = [(m, f) for m in choices("model/mixer") for f in choices("model/ffn")]


def spread(weights: torch.Tensor) -> float:
    return float(weights.detach().std())


@pytest.mark.parametrize(("mixer", "ffn"), PAIRS)
def test_gpt2_draws_every_matrix_and_scales_those_into_the_stream(mixer, ffn):
    torch.manual_seed(0)
    num_layers = 3
    model = transformer(mixer, "learned", ffn, True, num_layers=num_layers)
    GPT2(std=0.5)(model)
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    scales = {id(p) for m in norms for p in [m.weight]}
    into_stream = 0
    for name, weights in model.named_parameters():
        if id(weights) in scales:
            assert torch.equal(weights, torch.ones_like(weights)), name
        elif weights.ndim == 1:
            assert not weights.any(), name
        else:
            narrow = name.startswith("blocks.") and (".output." in name or "contract" in name)
            into_stream += narrow
            wanted = 0.5 / math.sqrt(2 * num_layers) if narrow else 0.5
            # Five standard errors of a standard deviation over n numbers.
            assert spread(weights) == pytest.approx(
                wanted, rel=5 / math.sqrt(2 * weights.numel())
            ), name
            assert abs(float(weights.detach().mean())) < 5 * wanted / math.sqrt(weights.numel())
    # One of the mixer and one of the network in each block: a part that calls its projection
    # otherwise would not be scaled.
    assert into_stream == num_layers * (1 if ffn == "none" else 2)


def test_the_default_leaves_every_part_as_it_is_built():
    init = instantiate(
        OmegaConf.load(conf_dir() / "init/default.yaml"), _execution_whitelist_=["attnlab.*"]
    )
    torch.manual_seed(0)
    model = transformer("multihead", "learned", "mlp", True)
    before = {name: p.clone() for name, p in model.named_parameters()}
    init(model)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_the_recurrent_baseline_is_refused_before_anything_is_built():
    with search_path(), pytest.raises(ConfigError, match=r"init: gpt2 is for blocks.*init=default"):
        compose(["dataset=mqar", "variant=lstm", "init=gpt2"])
    with pytest.raises(ValueError, match="Recurrent"):
        GPT2()(Recurrent(5, 5, 5, True))


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_norms_without_a_shift_have_none_anywhere(composed, norm):
    words = ["dataset=mqar", f"model.block.norm={norm}", "model.block.norm_bias=false"]
    model = Experiment(composed(*words)).model
    norms = [name for name, _ in model.named_parameters() if "norm" in name]
    assert len(norms) == 2 * 2 + 1
    assert all(name.endswith("weight") for name in norms)
