"""The table in a docstring is what the code draws: every parameter of every part of conf/.

A row is `names | law`; a class's own rows come before those of its family, whose table stands in
the family's base class. The first row that matches a name counts.
"""

import inspect
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.ffn.base import FFN
from attnlab.mixer.base import Mixer
from attnlab.model.base import DECODER, ENCODER_DECODER, Arrangement
from attnlab.model.recurrent import Recurrent
from attnlab.model.transformer import Transformer
from attnlab.position.base import Position
from tests.choices import choices
from tests.model.build import part
from tests.model.law import law

WIDTH, LENGTH = 64, 32
MIXED = {"hybrid", "lstm_additive"}
"""Their parameters are those of other mixers."""


@cache
def table(kind: type) -> list[tuple[list[str], str]]:
    """The rows of a class, then those of what it inherits from."""
    rows: list[tuple[list[str], str]] = []
    for one in kind.__mro__:
        if "__doc__" in vars(one) and one.__module__.startswith("attnlab"):
            said = inspect.cleandoc(one.__doc__ or "").partition("Initialisation")[2]
            for names, law in re.findall(r"^    (\S.*?) \| (.+)$", said, re.MULTILINE):
                rows.append((names.split(", "), law))
    return rows


def laws(module: nn.Module) -> Iterator[tuple[str, Tensor, str, list[str]]]:
    for name, weights in module.named_parameters():
        found = [(law, n) for n, law in table(type(module)) if any(fnmatchcase(name, x) for x in n)]
        assert found, f"{type(module).__name__}: no row says how {name} starts"
        yield name, weights.detach(), *found[0]


def uniform(values: Tensor, low: float, high: float) -> bool:
    flat = values.flatten().double().numpy()
    if flat.min() < low - 1e-6 or flat.max() > high + 1e-6:
        return False
    return stats.kstest(flat, stats.uniform(low, high - low).cdf).pvalue > 1e-4


def fan_in(module: nn.Module, name: str) -> int:
    owner, _, last = name.rpartition(".")
    layer: Any = module.get_submodule(owner)
    weights = layer.weight if last == "bias" else layer.get_parameter(last)
    # An expert's matrix is transposed: (expert, d_in, d_out).
    return weights.shape[1]


def holds(module: nn.Module, name: str, values: Tensor, law: str, names: list[str]) -> bool:
    if re.fullmatch(r"-?[\d.]+", law):
        return bool((values == float(law)).all())
    if law == "U(1/sqrt(fan_in))":
        bound = fan_in(module, name) ** -0.5
        return uniform(values, -bound, bound)
    if law == "U(1/sqrt(d_model))":
        return uniform(values, -(WIDTH**-0.5), WIDTH**-0.5)
    if law == "U(1/sqrt(kernel_size))":
        width = next(module.get_parameter(n).shape[-1] for n in names if "bias" not in n)
        return uniform(values, -(width**-0.5), width**-0.5)
    if found := re.fullmatch(r"N\(0, (.+)\)", law):
        told = {"std": getattr(module, "std", 0.0), "1/sqrt(d_model)": WIDTH**-0.5}
        std = told.get(found[1]) or float(found[1])
        return stats.kstest(values.flatten().double().numpy(), stats.norm(0, std).cdf).pvalue > 1e-4
    if found := re.fullmatch(r"log U\(([\d.]+), ([\d.]+)\)", law):
        return uniform(values.exp(), *map(float, found.groups()))
    if found := re.fullmatch(r"softplus inverse of log-uniform \(([\d.]+), ([\d.]+)\)", law):
        low, high = (torch.tensor(float(x)).log().item() for x in found.groups())
        return uniform(F.softplus(values).log(), low, high)
    raise AssertionError(f"{type(module).__name__}: nobody knows the law {law!r}")


def check(modules: list[nn.Module]) -> None:
    """Hold the parameters of some copies against the tables; copies give small ones numbers."""
    rows = [list(laws(module)) for module in modules]
    for copies in zip(*rows, strict=True):
        name, _, law, names = copies[0]
        values = torch.stack([weights for _, weights, _, _ in copies])
        assert holds(modules[0], name, values, law, names), f"{name} does not start as {law}"


@law(sorted({*choices("model/mixer")} - MIXED))
def test_a_mixer_starts_as_its_table_says(name):
    made = [part("mixer", name)(WIDTH, Position(WIDTH, LENGTH), True, 0) for _ in range(12)]
    assert made[0]._position[0] not in made[0].modules()
    check(made)


@law(choices("model/ffn"))
def test_a_network_starts_as_its_table_says(name):
    check([part("ffn", name)(WIDTH) for _ in range(4)])


@law(choices("model/position"))
def test_a_position_scheme_starts_as_its_table_says(name):
    made = [part("position", name)(WIDTH, LENGTH) for _ in range(8)]
    for scheme in made:
        scheme.prepare_heads(4, 4)
    check(made)


@law([DECODER, ENCODER_DECODER, Arrangement(False, True, 4)])
def test_a_transformer_starts_as_its_table_says(arrangement):
    check(
        [
            Transformer(
                *(50, 40, LENGTH, arrangement),
                mixer=part("mixer", "multihead"),
                position=part("position", "sinusoidal"),
                ffn=part("ffn", "mlp"),
                block=part("block", "pre_norm"),
                d_model=WIDTH,
            )
            for _ in range(3)
        ]
    )


@law([None, "multihead"])
def test_a_recurrent_model_starts_as_its_table_says(attention):
    make = attention and part("mixer", attention)
    check(
        [
            Recurrent(50, 40, LENGTH, ENCODER_DECODER, d_model=WIDTH, attention=make)
            for _ in range(3)
        ]
    )


@law([Mixer, FFN, Transformer, Recurrent])
def test_a_family_has_its_table_in_one_place(family):
    assert "Initialisation" in (family.__doc__ or "")
    assert table(family)
