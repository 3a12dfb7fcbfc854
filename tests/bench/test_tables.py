"""The arms of the other tables are the same computations, and each table has all of them."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from attnlab.measure import Measurement
from attnlab.model.base import parameters
from attnlab.model.cost import FORMULAS
from bench import length, lstm, moe
from bench.peers import MEDIUM, TINY
from bench.ratio import ratio, table

# What the peers' packages do at their import is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None,
    reason="transformers is not installed (pip install attnlab[bench])",
)
SIZES = {"tiny": replace(TINY, batch=2, length=8, num_layers=1)}


def flops(model: torch.nn.Module, *inputs: torch.Tensor) -> int:
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        model(*inputs)
    return counter.get_total_flops()


@needs_transformers
@pytest.mark.parametrize("shape", [TINY, MEDIUM], ids=["tiny", "medium"])
def test_the_networks_multiply_as_much_for_a_token(shape):
    """Within 5 %: gated experts have a multiple of 8 rows (3 % too many at d=64), and a router."""
    x = torch.randn(1, 64, shape.d_model)
    counted = {name: flops(ffn, x) for name, ffn in moe.arms(shape.d_model).items()}
    assert set(counted) == {
        moe.OURS,
        moe.DENSE,
        "attnlab, mixtral",
        "attnlab, swiglu",
        *moe.MIXTRAL,
    }
    assert counted[moe.DENSE] == 2 * 2 * 64 * 4 * shape.d_model**2
    for count in counted.values():
        assert count == pytest.approx(counted[moe.DENSE], rel=0.05)


@needs_transformers
def test_mixtrals_block_is_as_large_as_our_gated_mixture():
    made = moe.arms(64)
    for name in moe.MIXTRAL:
        assert parameters(made[name]) == parameters(made["attnlab, mixtral"])
        # Three matrices of 88 rows an expert, for two of 128.
        assert parameters(made[name]) == pytest.approx(parameters(made[moe.OURS]), rel=0.04)


@needs_transformers
def test_mixtrals_block_answers_alike_in_both_of_its_ways():
    x = torch.randn(2, 8, 64)
    made = moe.arms(64)
    first, second = (made[name] for name in moe.MIXTRAL)
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(first(x)[0], second(x)[0])


@needs_transformers
@pytest.mark.parametrize("dtype", moe.PRECISIONS.values(), ids=moe.PRECISIONS)
def test_a_pass_reaches_every_weight_and_the_input_and_leaves_nothing(dtype):
    for name, ffn in moe.arms(64).items():
        x = torch.randn(4, 64, 64, requires_grad=True)
        reached = set()

        def note(weights: torch.Tensor, reached: set[int] = reached) -> None:
            assert weights.grad is not None
            if weights.grad.abs().sum() > 0:
                reached.add(id(weights))

        wanted = [*ffn.parameters(), x]
        for weights in wanted:
            weights.register_post_accumulate_grad_hook(note)
        moe.work(ffn, x, torch.randn(4, 64, 64), dtype)()
        assert reached == {id(weights) for weights in wanted}, name
        assert all(weights.grad is None for weights in wanted)


@pytest.mark.parametrize("shape", [TINY, MEDIUM], ids=["tiny", "medium"])
def test_the_bare_lstm_is_the_same_network(shape):
    made = lstm.arms(shape)
    ours, bare = made[lstm.OURS], made[lstm.BARE]
    assert parameters(ours) == parameters(bare)
    tokens = torch.randint(256, (2, 16))
    assert flops(ours, tokens) == flops(bare, tokens)


def test_the_bare_lstm_answers_as_ours_does_with_its_weights():
    made = lstm.arms(TINY)
    ours: Any = made[lstm.OURS].model
    bare: Any = made[lstm.BARE]
    bare.tokens.load_state_dict(ours.embedding.state_dict())
    bare.head.load_state_dict(ours.head.state_dict())
    for number, layer in enumerate(ours.layers):
        for name, weights in layer["forwards"].named_parameters():
            getattr(bare.lstm, name.replace("l0", f"l{number}")).data.copy_(weights)
    tokens = torch.randint(256, (2, 16))
    torch.testing.assert_close(bare(tokens), made[lstm.OURS](tokens))


def test_a_ratio_is_the_median_over_rounds_and_a_table_has_each():
    times = {"a": [1.0, 2.0, 9.0], "b": [2.0, 2.0, 3.0]}
    assert ratio(times, "a", "b") == 1.0
    assert ratio(times, "b", "b") == 1.0
    lines = list(table("tiny", "said", times, {"of a": "a", "of b": "b"}))
    assert lines[1] == "### Tiny"
    assert lines[-2:] == ["| a | 2000.00 | 1.000 | 1.000 |", "| b | 2000.00 | 1.000 | 1.000 |"]
    assert {line.count("|") for line in lines[-4:]} == {5}


@needs_transformers
@pytest.mark.slow
def test_the_table_of_mixtures_has_every_arm_in_every_precision():
    lines = list(moe.tables(SIZES, rounds=2, least=0.0))
    assert sum(line.startswith("### ") for line in lines) == 2
    for name in moe.arms(64):
        assert sum(line.startswith(f"| {name} ") for line in lines) == 2


@pytest.mark.slow
def test_the_table_of_lstms_has_both_in_every_precision():
    lines = list(lstm.tables(SIZES, rounds=2, least=0.0))
    assert sum(line.startswith(f"| {lstm.OURS} ") for line in lines) == 2
    assert sum(line.startswith(f"| {lstm.BARE} ") for line in lines) == 2


@pytest.mark.slow
def test_the_table_of_lengths_has_every_mixer():
    lines = list(length.tables(lengths=(16, 32), tokens=32, rounds=1))
    rows = {line.split(" | ")[0].removeprefix("| "): line.split(" | ") for line in lines[5:]}
    assert set(rows) == set(length.mixers())
    assert {len(row) for row in rows.values()} == {lines[3].count(" | ") + 1}


def test_a_mixer_is_linear_if_its_state_has_one_size():
    assert [length.is_linear(length.arm(name, 64), 64) for name in ("lstm", "multihead")] == [
        True,
        False,
    ]


def test_a_mixer_leaves_before_its_batch_could_exceed_the_limit():
    cell = Measurement("", "backward", 512, 4, (1.0,), 1000, 1, None)
    assert length.expected([], 512, 2048) == 0
    # Four times as much for a sequence, and half as many of them.
    assert length.expected([cell], 1024, 2048) == 2000
    # One sequence stays.
    assert length.expected([cell], 4096, 2048) == 64 * 1000 / 4
    lines = list(length.tables(["multihead"], lengths=(8, 16), tokens=16, rounds=1, limit=1.0))
    assert lines[-1].split(" | ")[3] == "-"
