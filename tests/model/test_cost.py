"""FLOPs and parameters against closed forms."""

import pytest
import torch

from attnlab.ffn.mlp import MLP
from attnlab.ffn.moe import MoE
from attnlab.mixer.multihead import MultiHead
from attnlab.model.base import active_parameters, parameters
from attnlab.model.block import PreNorm
from attnlab.model.cost import flops
from attnlab.model.recurrent import Recurrent
from attnlab.model.transformer import Transformer
from attnlab.position.learned import Learned

TOKENS, OUTPUTS, LENGTH, WIDTH, BATCH = 11, 6, 8, 16, 3


def transformer(ffn, causal: bool, num_layers: int = 2) -> Transformer:
    return Transformer(
        TOKENS, OUTPUTS, LENGTH, causal, mixer=MultiHead, position=Learned, ffn=ffn,
        block=PreNorm, num_layers=num_layers, d_model=WIDTH,
    )  # fmt: skip


@pytest.mark.parametrize("causal", [True, False])
def test_a_transformers_flops_are_its_products(causal):
    inputs = torch.zeros(BATCH, LENGTH, dtype=torch.long)
    projections, ffn = 4 * WIDTH * WIDTH, 2 * WIDTH * 4 * WIDTH
    attention = 2 * LENGTH * WIDTH
    per_token = 2 * (2 * (projections + ffn + attention) + WIDTH * OUTPUTS)
    assert flops(transformer(MLP, causal), inputs) == BATCH * LENGTH * per_token


def test_active_experts_alone_are_counted():
    inputs = torch.zeros(BATCH, LENGTH, dtype=torch.long)
    dense = flops(transformer(MLP, True, 1), inputs)
    sparse = flops(transformer(MoE, True, 1), inputs)
    # Two experts half as wide, and the router.
    assert sparse - dense == 2 * BATCH * LENGTH * WIDTH * 8


@pytest.mark.parametrize("causal", [True, False])
def test_an_lstms_flops_are_its_products(causal):
    model = Recurrent(TOKENS, OUTPUTS, LENGTH, causal, num_layers=2, d_model=WIDTH)
    inputs = torch.zeros(BATCH, LENGTH, dtype=torch.long)
    ways = 1 if causal else 2
    first, second = WIDTH + WIDTH, ways * WIDTH + WIDTH
    per_token = 2 * (4 * WIDTH * ways * (first + second) + ways * WIDTH * OUTPUTS)
    assert flops(model, inputs) == BATCH * LENGTH * per_token


def test_counting_leaves_the_mode_as_it_was():
    model = transformer(MLP, True).train()
    flops(model, torch.zeros(1, LENGTH, dtype=torch.long))
    assert model.training


def test_active_parameters_leave_out_the_experts_that_a_token_does_not_use():
    dense, sparse = transformer(MLP, True), transformer(MoE, True)
    assert active_parameters(dense) == parameters(dense)
    per_expert = 2 * WIDTH * 2 * WIDTH
    assert parameters(sparse) - active_parameters(sparse) == 2 * 6 * per_expert
