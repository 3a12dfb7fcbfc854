"""Somebody's module as a mixer: what it claims is tried, and what it needs it gets."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnlab.cli import main
from attnlab.config import compose, search_path
from attnlab.errors import ConfigError
from attnlab.mixer.adapter import Adapter
from attnlab.mixer.base import Bidirectional, build_mixer
from attnlab.position.base import Position
from attnlab.run_record.record import find_runs
from tests.model.law import law
from tests.prose import keys_at_fault, refuses, says

D_MODEL, LENGTH = 16, 11

THEIRS = '''
import torch
from torch import nn


class Shift(nn.Module):
    """In zoology's interface: wiring and knobs in one row, layer_idx, state_size."""

    def __init__(self, d_model, by=1, layer_idx=None, zero=False):
        super().__init__()
        self.d_model, self.by, self.layer_idx = d_model, by, layer_idx
        self.out_proj = nn.Linear(d_model, d_model)
        if zero:
            nn.init.zeros_(self.out_proj.weight)

    def forward(self, x, **kwargs):
        pad = (0, 0, self.by, 0) if self.by > 0 else (0, 0, 0, -self.by)
        moved = nn.functional.pad(x, pad)
        return self.out_proj(moved[:, : x.shape[1]] if self.by > 0 else moved[:, -self.by :])

    def state_size(self, batch_size=1, sequence_length=2048):
        return self.by * self.d_model


class Mean(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x):
        return self.weight * x.mean(dim=1, keepdim=True).expand(-1, x.shape[1], -1)
'''
space: dict = {}
exec(THEIRS, space)
Shift, Mean = space["Shift"], space["Mean"]


class Blocks(nn.Module):
    """Averages within blocks of four, so that a position sees at most three ahead."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Tensor) -> Tensor:
        blocks = [block.mean(dim=1, keepdim=True).expand_as(block) for block in x.split(4, dim=1)]
        return self.weight * torch.cat(blocks, dim=1)


class Widened(nn.Module):
    """Gives another shape."""

    def __init__(self, d_model: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, x), dim=-1)


def adapted(module: Any, sees: Any, causal: bool = True, layer: int = 0) -> Any:
    make = partial(Adapter, module=module, sees=sees)
    return build_mixer(make, D_MODEL, Position(D_MODEL, LENGTH), causal, layer).eval()


def encoder_layer(d_model: int) -> nn.Module:
    return nn.TransformerEncoderLayer(d_model, 2, 32, batch_first=True)


def test_a_foreign_module_mixes_as_it_does_alone_and_the_trial_moves_nothing():
    torch.manual_seed(3)
    alone = Shift(D_MODEL, by=2)
    torch.manual_seed(3)
    mixer, x = adapted(partial(Shift, by=2), "past"), torch.randn(2, LENGTH, D_MODEL)
    torch.manual_seed(3)
    assert torch.equal(mixer(x), alone(x))


def test_a_module_that_asks_for_its_layer_gets_it():
    assert adapted(Shift, "past", layer=5).module.layer_idx == 5


def test_steps_give_what_forward_gives_and_keep_the_inputs():
    mixer, x = adapted(partial(Shift, by=3), "past"), torch.randn(2, LENGTH, D_MODEL)
    state: Any = None
    outputs = []
    for at in range(LENGTH):
        output, state = mixer.step(x[:, at : at + 1], at, state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, dim=1), mixer(x))
    assert torch.equal(state, x)


def test_the_state_is_what_the_module_says_or_else_the_inputs():
    assert adapted(partial(Shift, by=3), "past").state_size(100) == 3 * D_MODEL
    identity = partial(nn.Linear, out_features=D_MODEL)
    assert adapted(identity, "past").state_size(100) == 100 * D_MODEL


CLAIMS = {
    "sees_next": (partial(Shift, by=-1), "past"),
    "sees_far": (partial(Shift, by=-6, zero=True), "past"),
    "sees_mean": (Mean, "past"),
    "sees_block": (Blocks, "past"),
    "sees_all": (encoder_layer, "past"),
    "sees_past": (Shift, "all"),
    "sees_nothing": (partial(Shift, zero=True), "all"),
}


@pytest.mark.parametrize("key", CLAIMS)
def test_a_wrong_claim_is_refused_wherever_it_is_built(key):
    module, claimed = CLAIMS[key]
    for device in ("cpu", "meta"):
        with torch.device(device), refuses(ValueError, f"mixer.adapter.{key}"):
            adapted(module, claimed, causal=False)


@pytest.mark.parametrize(
    ("key", "module"),
    [
        ("shape", Widened),
        ("tuple", partial(nn.LSTM, hidden_size=D_MODEL, batch_first=True)),
    ],
)
def test_what_does_not_give_its_shape_back_is_refused(key, module):
    with refuses(ValueError, f"mixer.adapter.{key}"):
        adapted(module, "past")


@law(
    (
        partial(nn.Conv1d, out_channels=9, kernel_size=3),
        partial(nn.MultiheadAttention, num_heads=5),
    )
)
def test_a_module_that_fails_on_a_trial_is_refused_with_its_error(module):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        adapted(module, "past")
    # The words are torch's.
    cause = refusal.value.__cause__
    assert isinstance(cause, RuntimeError | AssertionError)
    assert f"{type(cause).__name__}: {cause}" in str(refusal.value)


def test_a_module_that_sees_all_is_refused_for_a_causal_objective():
    with refuses(ValueError, "mixer.adapter.causal"):
        adapted(Mean, "all", causal=True)


def test_a_module_that_sees_the_past_is_built_twice_where_all_may_be_seen():
    mixer, x = adapted(Shift, "past", causal=False), torch.randn(2, LENGTH, D_MODEL)
    assert isinstance(mixer, Bidirectional)
    changed = x.clone()
    changed[:, 6] += 1
    moved = (mixer(changed) - mixer(x)).abs().amax(dim=(0, 2)) > 1e-6
    assert moved.nonzero()[:, 0].tolist() == [5, 7]


def test_a_foreign_module_that_sees_all_never_sees_padding():
    mixer, x = adapted(encoder_layer, "all", causal=False), torch.randn(5, LENGTH, D_MODEL)
    lengths = torch.tensor([LENGTH, 4, 1, 4, 0])
    valid = torch.arange(LENGTH) < lengths[:, None]
    mixed = mixer(x.masked_fill(~valid[..., None], 1e3), valid)
    expected = mixer.module(x[:4], src_key_padding_mask=~valid[:4])
    torch.testing.assert_close(mixed[:4][valid[:4]], expected[valid[:4]], rtol=0, atol=1e-5)
    assert not mixed[~valid].any()
    weights = mixer.module.linear1.weight
    assert torch.autograd.grad(mixed.square().sum(), weights)[0].abs().sum() > 0


YAML = """\
_target_: attnlab.mixer.adapter.Adapter
_partial_: true
sees: past
module:
  _target_: their_mixers.Shift
  _partial_: true
  by: 2
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine/model/mixer").mkdir(parents=True)
    (tmp_path / "mine/model/mixer/shift.yaml").write_text(YAML)
    (tmp_path / "their_mixers.py").write_text(THEIRS)
    monkeypatch.chdir(tmp_path)
    return Path("mine")


SMALL = ["debug=tiny", "dataset=mqar", "dataset.num_train=200", "model.d_model=16"]


def test_a_module_trains_from_the_users_own_package_and_yaml(mine, capsys):
    quick = [*SMALL, "trainer.max_steps=2", "trainer.val_check_interval=2", "trainer.threads=1"]
    arguments = ["train", "--config-dir", str(mine), "model/mixer=shift", *quick]
    assert main(arguments) == 0
    (record,) = find_runs(Path("runs"))
    assert record.result is not None
    assert record.result.steps == 2
    assert "their_mixers.Shift" in record.result.code
    capsys.readouterr()
    assert main([*arguments, "model.mixer.sees=all"]) == 2
    says("mixer.adapter.causal_training", capsys.readouterr().err)
    assert len(find_runs(Path("runs"))) == 1


@pytest.mark.parametrize(
    ("key", "override", "config_key"),
    [
        ("typo", "+model.mixer.module.bye=3", "model.mixer.module.bye"),
        ("wiring", "+model.mixer.module.d_model=3", "model.mixer.module.d_model"),
        ("claim", "model.mixer.module.by=-1", "model"),
    ],
)
def test_a_fault_in_the_users_yaml_is_told_before_anything_is_built(
    mine, key, override, config_key
):
    with search_path(mine) as own, refuses(ConfigError, f"mixer.adapter.{key}") as refusal:
        compose([*SMALL, "model/mixer=shift", override], own)
    assert isinstance(refusal.value, ConfigError)
    assert keys_at_fault(refusal.value) == [config_key]
