"""Small models of the parts that conf/ offers."""

from functools import cache
from typing import Any

from hydra import compose
from omegaconf import OmegaConf

from attnlab.building import build
from attnlab.config import search_path
from attnlab.model.base import Arrangement, Model
from attnlab.model.recurrent import Recurrent
from attnlab.model.transformer import Transformer

TOKENS, OUTPUTS, LENGTH, WIDTH = 11, 7, 9, 16


@cache
def part(group: str, name: str) -> Any:
    """Make a choice of `model/GROUP` as it is composed, with what it takes from other groups."""
    with search_path() as own:
        node: Any = OmegaConf.to_container(
            compose(f"model/{group}/{name}").model[group], resolve=True
        )
    return build(node, "model", own)


def transformer(
    arrangement: Arrangement,
    *,
    mixer: str = "multihead",
    position: str = "learned",
    ffn: str = "mlp",
    block: str = "pre_norm",
    cross: str | None = None,
    **knobs: Any,
) -> Model:
    """Build a narrow Transformer of the parts of these names."""
    reader = {} if cross is None else {"cross": part("mixer", cross)}
    make_block = part("block", block)
    return Transformer(
        *(TOKENS, knobs.pop("num_outputs", OUTPUTS), LENGTH, arrangement),
        mixer=part("mixer", mixer),
        position=part("position", position),
        ffn=part("ffn", ffn),
        block=lambda *wiring: make_block(*wiring, **reader),
        d_model=WIDTH,
        **knobs,
    )


def recurrent(arrangement: Arrangement, *, attention: str | None = None, **knobs: Any) -> Model:
    """Build a narrow stack of LSTMs."""
    return Recurrent(
        *(TOKENS, knobs.pop("num_outputs", OUTPUTS), LENGTH, arrangement),
        attention=None if attention is None else part("mixer", attention),
        d_model=WIDTH,
        **knobs,
    )
