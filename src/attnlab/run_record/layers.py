"""The layers of a run's model as its record states them: each once, under the name of its rows."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from attnlab.layers import AttentionLayer, Axes, MixingLayer
from attnlab.run_record.forms import SCHEMA, sealed
from attnlab.run_record.read import json_object

FILE = "layers.json"
Layer = AttentionLayer | MixingLayer


class Form(msgspec.Struct):
    """layers.json: what an attempt's model is made of."""

    schema: int
    attention: list[AttentionLayer]
    mixing: list[MixingLayer]


@dataclass(frozen=True)
class Layers:
    """The layers of a model that show who reads whom."""

    attention: Sequence[AttentionLayer] = ()
    mixing: Sequence[MixingLayer] = ()

    @cached_property
    def by_source(self) -> Mapping[str, Layer]:
        """The layers by what the record calls their patterns and matrices."""
        return {layer.source: layer for layer in (*self.attention, *self.mixing)}

    @cached_property
    def by_path(self) -> Mapping[str, AttentionLayer]:
        """The attention layers by what the record calls them where it measures their heads."""
        return {layer.path: layer for layer in self.attention}

    def to_json(self) -> dict[str, Any]:
        """Return it as layers.json has it."""
        lists = {"attention": list(self.attention), "mixing": list(self.mixing)}
        return sealed({"schema": SCHEMA, **msgspec.to_builtins(lists)})


def read_layers(attempt: Path) -> Layers | None:
    """Read what an attempt states; None of one by attnlab 0.1, which states nothing.

    Raises RecordError where it is damaged.
    """
    value = json_object(attempt / FILE, attempt.parents[1], Form)
    if value is None:
        return None
    form = msgspec.convert(value, Form)
    return Layers(form.attention, form.mixing)


def inferred_layers(
    measured: Mapping[str, int],
    recorded: Mapping[str, int],
    num_layers: int,
    crossing: Collection[str] = (),
) -> Layers:
    """Infer the layers of a record of attnlab 0.1 from what its rows are called.

    `measured` has the number of heads by the path of each attention layer whose heads were
    measured: all of them, in their order. `recorded` has heads by the source of patterns, of which
    a recorder may have kept some: their layers have their numbers only where as many are there as
    the model has; else an index of -1 says that nobody knows. `crossing` has the paths or sources
    of those whose rows show that one sequence reads another.
    """
    paths = dict(measured)
    if not paths:
        attending = {s: heads for s, heads in recorded.items() if s.endswith(".pattern")}
        paths = {source.removesuffix(".pattern"): heads for source, heads in attending.items()}
    mixing = {source: heads for source, heads in recorded.items() if source.endswith(".mixing")}
    knows_all = bool(measured) or len(paths) == num_layers
    names_of = {path: path.split(".") for path in (*paths, *mixing)}
    first_names = {names[0] for names in names_of.values()}
    has_encoder = "encoder" in first_names or any("cross" in names for names in names_of.values())

    def axes(path: str) -> Axes:
        """Return which sequences a layer works on, as the families of 0.1 named their parts."""
        names = path.split(".")
        if names[0] == "bottleneck":
            return Axes("latents", "inputs")
        # The LSTM's `attention` reads an encoder that attends nowhere, or its own stack.
        if "cross" in names or {path, f"{path}.pattern"} & {*crossing}:
            return Axes("prefix", "latents" if "bottleneck" in first_names else "inputs")
        if has_encoder and names[0] != "encoder":
            return Axes("prefix", "prefix")
        return Axes("inputs", "inputs")

    return Layers(
        [
            AttentionLayer(index if knows_all else -1, path, num_heads, axes(path))
            for index, (path, num_heads) in enumerate(paths.items())
        ],
        [
            MixingLayer(index, path, source, num_heads, axes(path), is_linear=True)
            for index, (source, num_heads) in enumerate(mixing.items())
            for path in (source.rpartition(".")[0],)
        ],
    )
