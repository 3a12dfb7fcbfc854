"""What a part of the user's own does wrong is said before anything is trained or written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor, nn

from attnlab.cli import main
from attnlab.config import compose, search_path
from attnlab.config.config import Config
from attnlab.errors import ConfigError
from attnlab.ffn.base import FFN
from attnlab.mixer.base import Mixer
from attnlab.model.block import PreNorm
from attnlab.optimizer.base import Optimizer
from attnlab.position.base import Position
from attnlab.schedule.base import Schedule
from tests.child import TINY
from tests.prose import says

ROOT = Path(__file__).parents[2]


class Tokenwise(Mixer):
    """Mixes nothing."""

    def __init__(
        self, d_model: int, position: Position | None = None, causal: bool = True, layer: int = 0
    ) -> None:
        super().__init__(d_model, position, causal)
        self.maps = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return self.maps(x)


class Blind(Tokenwise):
    """Averages what stands before."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return self.maps(x).cumsum(dim=1)


class SeesFuture(Tokenwise):
    """Averages all, whatever `causal` says."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return self.maps(x) + x.mean(dim=1, keepdim=True)


class ClaimsDirection(SeesFuture):
    """Says that it reads from left to right."""

    unidirectional = True


class Narrow(Tokenwise):
    """Returns one channel, which would be broadcast over the stream."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return self.maps(x)[..., :1]


class Chunked(Blind):
    """Can only mix sequences that are longer than a few tokens."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        assert x.shape[1] > 8
        return super().forward(x, valid)


class Noisy(Tokenwise):
    """Draws noise in evaluation too."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return self.maps(x) + torch.randn_like(x)


class IgnoresPosition(Blind):
    """Says that it rotates, and does not."""

    position_inputs = frozenset({"rotate"})


class Rotates(IgnoresPosition):
    """Rotates as it says."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        positions = torch.arange(x.shape[1], device=x.device)
        return super().forward(self.position.rotate(x[:, None], positions)[:, 0])


class Tripled(FFN):
    """Keeps to what it states."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.maps = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        return 3 * self.maps(x), {}


class NarrowFFN(Tripled):
    """Returns one channel."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        return self.maps(x)[..., :1], {}


class LossLess(Tripled):
    """Forgets the losses."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:  # pyright: ignore
        return self.maps(x)


class Infinite(Tripled):
    """Divides by zero."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        return self.maps(x) / 0, {}


class MixingFFN(Tripled):
    """Mixes positions, and does not say so."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        return self.maps(x) + x.mean(dim=1, keepdim=True), {}


class RoutingFFN(MixingFFN):
    """Mixes positions as it says."""

    routes_across_tokens = True


class OwnBlock(PreNorm):
    """A block of one's own."""

    def __init__(
        self,
        d_model: int,
        position: Position,
        causal: bool,
        mixer: Callable[..., Mixer],
        ffn: Callable[..., FFN],
        layer: int = 0,
        reads: bool = False,
    ) -> None:
        super().__init__(d_model, position, causal, mixer, ffn, layer, reads)


class PeekingBlock(OwnBlock):
    """Adds the mean of all positions."""

    def forward(self, x: Tensor, valid: Tensor | None = None, *memory: Any) -> Any:  # pyright: ignore
        x, losses = super().forward(x, valid, *memory)
        return x + x.mean(dim=1, keepdim=True), losses


class NarrowBlock(OwnBlock):
    """Returns one channel."""

    def forward(self, x: Tensor, valid: Tensor | None = None, *memory: Any) -> Any:  # pyright: ignore
        x, losses = super().forward(x, valid, *memory)
        return x[..., :1], losses


class Added(Position):
    """Adds a number to each position."""

    signal = "embed"

    def embed(self, x: Tensor, at: Tensor) -> Tensor:
        return x + at[:, None]


class Centred(Added):
    """Takes the mean of all positions away."""

    def embed(self, x: Tensor, at: Tensor) -> Tensor:
        return x - x.mean(dim=1, keepdim=True)


class Halved(Position):
    """Rotates half of the channels, and loses the others."""

    signal = "rotate"

    def rotate(self, x: Tensor, at: Tensor) -> Tensor:
        return x[..., : x.shape[-1] // 2]


class Headless(Position):
    """Gives the same bias to all heads, without their axis."""

    signal = "bias"

    def bias(self, num_heads: int, query_at: Tensor, key_at: Tensor, causal: bool) -> Tensor:
        return -(query_at[:, None] - key_at).abs().float()


class Endless(Headless):
    """Divides by a distance of zero."""

    def bias(self, num_heads: int, query_at: Tensor, key_at: Tensor, causal: bool) -> Tensor:
        distance = (query_at[:, None] - key_at).abs().float()
        return (1 / distance).expand(num_heads, -1, -1)


class Masked(Headless):
    """Hides what is far away."""

    def bias(self, num_heads: int, query_at: Tensor, key_at: Tensor, causal: bool) -> Tensor:
        distance = (query_at[:, None] - key_at).abs().float()
        return distance.masked_fill(distance > 3, -torch.inf).expand(num_heads, -1, -1)


class Misnamed(Added):
    """Names a signal that there is not."""

    signal = "add"


class OwnOptimizer(Optimizer):
    """Follows the gradient."""

    def __init__(self, *, lr: float = 0.1, gradient_clip: float | None = 1.0) -> None:
        super().__init__(lr, gradient_clip)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=self.lr)


class Fused(OwnOptimizer):
    """Needs weights on a device that has memory."""

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=self.lr, fused=True)


class ReturnsNone(OwnOptimizer):
    """Forgets its return."""

    def build(self, model: nn.Module) -> torch.optim.Optimizer:  # pyright: ignore
        super().build(model)


class ReturnsModel(OwnOptimizer):
    """Returns something else."""

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return model  # pyright: ignore[reportReturnType]


class Misspelt(OwnOptimizer):
    """Asks the model for what it does not have."""

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.blokcs.parameters(), lr=self.lr)  # pyright: ignore


class NoRate(OwnOptimizer):
    """Forgets what its base needs."""

    def __init__(self, *, lr: float = 0.1, gradient_clip: float | None = 1.0) -> None:
        self.rate, self.clip = lr, gradient_clip


class NoScale(Schedule):
    """Forgets its return."""

    def __init__(self, *, warmup_steps: int = 2) -> None:
        self.warmup_steps = warmup_steps

    def scale(self, step: int, max_steps: int) -> float:  # pyright: ignore
        """Return nothing."""


class Logs(pl.Callback):
    """Logs by the module, as in other programs."""

    def __init__(self, after: int = 3, rate: float = 1.0) -> None:
        self.after = after

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        pl_module.log_dict({"mine": torch.tensor(self.after)})


def write_choice(directory: Path, group: str, kind: type | str, **knobs: object) -> list[str]:
    """Write a YAML of the user's own, and return the override that chooses it."""
    target = kind if isinstance(kind, str) else f"{__name__}.{kind.__name__}"
    node: dict[str, object] = {"_target_": target, **knobs}
    if group == "callbacks":
        node = {"defaults": ["default"], "mine": node}
    (directory / group).mkdir(parents=True)
    (directory / group / "mine.yaml").write_text(yaml.safe_dump(node, sort_keys=False))
    return [f"{group}=mine"]


def compose_own(directory: Path, overrides: list[str]) -> Config:
    with search_path(directory) as user_targets:
        return compose([*TINY, *overrides], user_targets)


CAUSAL = "objective.causal=true"
RATES = {"lr": 0.1, "gradient_clip": 1.0}
MIXERS = {
    "sees_future": (SeesFuture, [CAUSAL]),
    "claims_direction": (ClaimsDirection, []),
    "narrow": (Narrow, []),
    "ignores_position": (IgnoresPosition, ["model/position=rope"]),
}
LAYERS = {
    "narrow_ffn": ("model/ffn", NarrowFFN, []),
    "ffn_without_losses": ("model/ffn", LossLess, []),
    "infinite_ffn": ("model/ffn", Infinite, []),
    "mixing_ffn": ("model/ffn", MixingFFN, []),
    "peeking_block": ("model/block", PeekingBlock, [CAUSAL]),
    "narrow_block": ("model/block", NarrowBlock, []),
    "centred_position": ("model/position", Centred, [CAUSAL]),
    "halved_position": ("model/position", Halved, []),
    "headless_bias": ("model/position", Headless, []),
    "endless_bias": ("model/position", Endless, []),
    "misnamed_signal": ("model/position", Misnamed, []),
}
SOUND_LAYERS = [
    ("model/ffn", Tripled, [CAUSAL]),
    ("model/ffn", RoutingFFN, []),
    ("model/block", OwnBlock, [CAUSAL]),
    ("model/block", PeekingBlock, []),
    ("model/position", Added, [CAUSAL]),
    ("model/position", Centred, []),
    ("model/position", Masked, [CAUSAL]),
]
OTHERS = {
    "returns_none": ("optimizer", ReturnsNone, RATES),
    "returns_model": ("optimizer", ReturnsModel, RATES),
    "misspelt": ("optimizer", Misspelt, RATES),
    "no_rate": ("optimizer", NoRate, RATES),
    "no_scale": ("schedule", NoScale, {"warmup_steps": 2}),
    "partial_optimizer": ("optimizer", OwnOptimizer, {"_partial_": True, **RATES}),
    "no_partial_mixer": ("model/mixer", Tokenwise, {}),
    "partial_callback": ("callbacks", Logs, {"_partial_": True}),
    "no_package": ("optimizer", "no_such_package.SGD", RATES),
    "type_of_a_callback": ("callbacks", Logs, {"after": "ten", "rate": 2}),
}


@pytest.mark.parametrize("name", MIXERS)
def test_a_mixer_that_does_not_do_what_it_must_is_refused(tmp_path, name):
    kind, overrides = MIXERS[name]
    overrides = [*write_choice(tmp_path, "model/mixer", kind, _partial_=True), *overrides]
    with pytest.raises(ConfigError) as raised:
        compose_own(tmp_path, overrides)
    says(f"own_parts.{name}", "\n".join(raised.value.faults))


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [
        (Blind, [CAUSAL]),
        (SeesFuture, []),
        (Chunked, [CAUSAL]),
        (Noisy, [CAUSAL]),
        (IgnoresPosition, []),
        (Rotates, ["model/position=rope", CAUSAL]),
    ],
)
def test_a_mixer_that_keeps_to_what_it_states_is_taken(tmp_path, kind, overrides):
    overrides = [*write_choice(tmp_path, "model/mixer", kind, _partial_=True), *overrides]
    state = torch.get_rng_state()
    compose_own(tmp_path, overrides)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_that_does_not_do_what_it_must_is_refused(tmp_path, name):
    group, kind, overrides = LAYERS[name]
    overrides = [*write_choice(tmp_path, group, kind, _partial_=True), *overrides]
    with pytest.raises(ConfigError) as raised:
        compose_own(tmp_path, overrides)
    says(f"own_parts.{name}", "\n".join(raised.value.faults))


@pytest.mark.parametrize(("group", "kind", "overrides"), SOUND_LAYERS)
def test_a_layer_that_keeps_to_what_it_states_is_taken(tmp_path, group, kind, overrides):
    overrides = [*write_choice(tmp_path, group, kind, _partial_=True), *overrides]
    state = torch.get_rng_state()
    compose_own(tmp_path, overrides)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", OTHERS)
def test_another_part_that_cannot_do_its_work_is_refused(tmp_path, name):
    group, kind, knobs = OTHERS[name]
    overrides = write_choice(tmp_path, group, kind, **knobs)
    with pytest.raises(ConfigError) as raised:
        compose_own(tmp_path, overrides)
    says(f"own_parts.{name}", "\n".join(raised.value.faults), ROOT)


def test_an_optimizer_that_needs_memory_of_its_weights_is_taken(tmp_path):
    compose_own(tmp_path, write_choice(tmp_path, "optimizer", Fused, **RATES))


def test_which_learning_rate_a_dataset_gives_to_an_optimizer_of_ones_own_is_said(tmp_path):
    overrides = write_choice(tmp_path, "optimizer", OwnOptimizer, **RATES)
    config = compose_own(tmp_path, overrides)
    assert config.values["optimizer"]["lr"] == 5e-3
    (note,) = config.notes
    says("own_parts.rate_of_the_dataset", note)
    stated = compose_own(tmp_path, [*overrides, "optimizer.lr=0.005"])
    assert stated.notes == ()
    assert compose_own(tmp_path, []).notes == ()


def test_whole_numbers_of_a_callback_stay_as_they_are_written(tmp_path):
    config = compose_own(tmp_path, write_choice(tmp_path, "callbacks", Logs, rate=2))
    assert type(config.values["callbacks"]["mine"]["rate"]) is int


def test_a_value_that_a_callback_logs_by_the_module_does_not_vanish(tmp_path, capsys):
    overrides = write_choice(tmp_path / "mine", "callbacks", Logs)
    where = [f"runs_dir={tmp_path / 'runs'}", "--config-dir", str(tmp_path / "mine")]
    assert main(["train", *TINY, *where, *overrides]) == 1
    assert "pl_module.log('mine') writes nowhere" in " ".join(capsys.readouterr().out.split())
