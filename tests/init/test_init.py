"""An initialisation does to every parameter what its docstring says."""

import math
from functools import partial

import pytest
import torch
import yaml
from torch import nn

from attnlab.building import NO_USER_TARGETS
from attnlab.building import build as made
from attnlab.config import compose, conf_dir, search_path
from attnlab.errors import ConfigError
from attnlab.ffn.base import FFN
from attnlab.init.gpt2 import GPT2
from attnlab.model.base import DECODER, ENCODER, ENCODER_DECODER, Model
from attnlab.model.recurrent import Recurrent
from attnlab.model.transformer import Transformer
from tests.choices import choices
from tests.model.build import part, transformer
from tests.model.law import law
from tests.prose import keys_at_fault, refuses

# Each part beside the defaults; one that is for bidirectional models is built in one.
ARMS = {
    **{mixer: {"mixer": mixer} for mixer in choices("model/mixer")},
    **{ffn: {"ffn": ffn} for ffn in choices("model/ffn")},
    **{position: {"position": position} for position in choices("model/position")},
    "encoder-decoder": {},
}
NUM_LAYERS = 3


def build(name: str) -> Model:
    arm = ARMS[name]
    if name == "encoder-decoder":
        arrangement = ENCODER_DECODER
    else:
        competes = "ffn" in arm and part("ffn", name).func.routes_across_tokens
        arrangement = ENCODER if competes else DECODER
    torch.manual_seed(0)
    return transformer(arrangement, num_layers=NUM_LAYERS, **arm)


def check_spread(name: str, weights: torch.Tensor, wanted: float) -> None:
    count = weights.numel()
    # Five standard errors of a standard deviation, and of a mean, over so many numbers.
    assert float(weights.std()) == pytest.approx(wanted, rel=5 / math.sqrt(2 * count)), name
    assert abs(float(weights.mean())) < 5 * wanted / math.sqrt(count), name


@law(ARMS)
def test_gpt2_does_to_every_parameter_what_its_table_says(arm):
    model = build(arm)
    built = {name: weights.detach().clone() for name, weights in model.named_parameters()}
    GPT2(std=0.5)(model)
    into_stream = set()
    for path, layer in model.named_modules():
        for name, weights in layer.named_parameters(recurse=False):
            weights, where = weights.detach(), f"{path}.{name}"
            if isinstance(layer, (nn.Linear, nn.Embedding, nn.LSTM, FFN)) and weights.ndim > 1:
                parts = where.split(".")
                narrow = "blocks" in parts and ("output" in parts or "contract" in parts)
                into_stream |= {where} if narrow else set()
                check_spread(where, weights, 0.5 / math.sqrt(2 * NUM_LAYERS) if narrow else 0.5)
            elif isinstance(layer, (nn.Linear, nn.LSTM)):
                assert not weights.any(), where
            else:
                assert torch.equal(weights, built[where]), where
    # In each block at least one of the mixer and one of the network: a part that calls its
    # projection otherwise would not be scaled.
    for block in range(NUM_LAYERS):
        for sublayer in ("mixer", *(("ffn",) if arm != "none" else ())):
            assert any(w.startswith(f"blocks.{block}.{sublayer}.") for w in into_stream)


def test_the_default_leaves_every_part_as_it_is_built():
    init = made(
        yaml.safe_load((conf_dir() / "init/default.yaml").read_text()), "init", NO_USER_TARGETS
    )
    torch.manual_seed(0)
    model = build("multihead")
    before = {name: p.clone() for name, p in model.named_parameters()}
    init(model)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_the_recurrent_baseline_is_refused_before_anything_is_built():
    with search_path(), refuses(ConfigError, "init.gpt2_for_a_recurrence") as refusal:
        compose(["dataset=mqar", "variant=lstm", "init=gpt2"])
    assert isinstance(refusal.value, ConfigError)
    assert keys_at_fault(refusal.value) == ["init"]
    with refuses(ValueError, "init.gpt2_on_a_recurrence"):
        GPT2()(Recurrent(5, 5, 5, DECODER))


@law(("layer", "rms"))
def test_norms_without_a_shift_have_none_anywhere(norm):
    block = partial(part("block", "pre_norm"), norm=norm, norm_bias=False)
    parts = {"position": part("position", "learned"), "ffn": part("ffn", "mlp")}
    model = Transformer(*(5, 5, 5, DECODER), mixer=part("mixer", "multihead"), block=block, **parts)
    norms = [name for name, _ in model.named_parameters() if "norm" in name]
    assert len(norms) == 2 * 2 + 1
    assert all(name.endswith("weight") for name in norms)
