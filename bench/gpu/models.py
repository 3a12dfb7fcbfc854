"""attnlab's models as they are measured: of the parts that conf/ offers, on random tokens."""

from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.config import compose, conf_dir, search_path
from attnlab.measure import Work
from attnlab.mixer.base import Mixer
from attnlab.model.base import DECODER, Model
from attnlab.optimizer.adamw import AdamW
from attnlab.position.base import Position
from bench.gpu.timing import autocast


def mixers() -> list[str]:
    """List what conf/ offers."""
    return sorted(path.stem for path in Path(conf_dir(), "model/mixer").glob("*.yaml"))


def mixer_words(name: str, num_heads: int) -> list[str]:
    """Give the overrides that choose a mixer, with so many heads where it has heads."""
    knobs = yaml.safe_load(Path(conf_dir(), f"model/mixer/{name}.yaml").read_text())
    heads = [f"model.mixer.num_heads={num_heads}"] if "num_heads" in knobs else []
    return [f"model/mixer={name}", *heads]


def decoder(words: Sequence[str], num_tokens: int, length: int) -> Model:
    """Build a causal model of these overrides over a vocabulary of its own."""
    with search_path() as own:
        # Any dataset that asks for the next token will do: the model is given other widths.
        config = compose(["dataset=mqar", *words], own)
    torch.manual_seed(0)
    model = config.build("model", num_tokens, num_tokens, length, DECODER)
    config.build("init")(model)
    return model


def layer(name: str, d_model: int, num_heads: int) -> Mixer:
    """Build a causal mixer by itself, where no position is marked."""
    words = ["dataset=mqar", "model/position=none", *mixer_words(name, num_heads)]
    with search_path() as own:
        config = compose([*words, f"model.d_model={d_model}"], own)
    torch.manual_seed(0)
    return config.build("model.mixer")(d_model, Position(d_model, 0), True, 0)


def compiled(model: nn.Module, backend: str) -> nn.Module:
    """Give the form of a model that torch compiles when it is first called."""
    return torch.compile(model, backend=backend)  # pyright: ignore[reportReturnType]


class Answers(nn.Module):
    """attnlab's model as its peers are: logits alone."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """Give logits at every position."""
        return self.model(inputs)[0]


def training_step(model: nn.Module, tokens: Tensor, of: nn.Module | None = None) -> Work:
    """Make a step under bf16 autocast: forward, loss, backward, clipping and fused AdamW.

    `tokens` are one longer than what the model reads. The parameters are those of `of`, where
    `model` is but a compiled form of it.
    """
    inputs, targets = tokens[:, :-1], tokens[:, 1:].flatten()
    owner = model if of is None else of
    optimizer = AdamW().build(owner)

    def step() -> None:
        with autocast(tokens.device):
            loss = F.cross_entropy(model(inputs).flatten(0, 1).float(), targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(owner.parameters(), 1.0)
        optimizer.step()

    return step
