"""The layers of a run's model as its record states them, under the names used in its rows."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from attnlab.layers import AttentionLayer, Axes, ExpertLayer, Layer, LSTMLayer, MixingLayer
from attnlab.run_record.forms import SCHEMA, sealed
from attnlab.run_record.read import json_object

FILE = "layers.json"


class Form(msgspec.Struct):
    """layers.json: the layers of an attempt's model."""

    schema: int
    attention: list[AttentionLayer]
    mixing: list[MixingLayer]
    experts: list[ExpertLayer] = []
    lstm: list[LSTMLayer] = []


@dataclass(frozen=True)
class Layers:
    """The numbered layers of a model: those that mix positions, and those of experts."""

    attention: Sequence[AttentionLayer] = ()
    mixing: Sequence[MixingLayer] = ()
    experts: Sequence[ExpertLayer] = ()
    """Empty in records of attnlab 0.1, which state none."""
    lstm: Sequence[LSTMLayer] = ()
    """Empty in records of attnlab 0.1, which state none."""

    @cached_property
    def by_source(self) -> Mapping[str, Layer]:
        """The layers by the source of their patterns and matrices in the record."""
        return {layer.source: layer for layer in (*self.attention, *self.mixing)}

    @cached_property
    def by_path(self) -> Mapping[str, AttentionLayer]:
        """The attention layers by their path, which names them in the table of measures."""
        return {layer.path: layer for layer in self.attention}

    def to_json(self) -> dict[str, Any]:
        """Return the content of layers.json."""
        lists = {field.name: list(getattr(self, field.name)) for field in fields(self)}
        return sealed({"schema": SCHEMA, **msgspec.to_builtins(lists)})


def read_layers(attempt: Path) -> Layers | None:
    """Load the layers that an attempt states; None for an attempt by attnlab 0.1.

    Raises RecordError if the file is damaged.
    """
    value = json_object(attempt / FILE, attempt.parents[1], Form)
    if value is None:
        return None
    form = msgspec.convert(value, Form)
    return Layers(form.attention, form.mixing, form.experts, form.lstm)


def inferred_layers(
    measured_heads: Mapping[str, int],
    recorded_heads: Mapping[str, int],
    num_layers: int,
    crossing: Collection[str] = (),
) -> Layers:
    """Infer the layers of a record of attnlab 0.1 from the names in its rows.

    `measured_heads` maps the paths of attention layers whose heads were measured to their number of
    heads: all layers, in their order, or none. `recorded_heads` maps the sources of recorded
    patterns to their number of heads; attention layers are taken from it if `measured_heads` is
    empty. As a recorder may have left layers out, these then get an index only if there are
    `num_layers` of them, else -1 (unknown). `crossing` has the paths or sources of layers whose
    rows show that one sequence reads another.
    """
    paths = dict(measured_heads)
    if not paths:
        pattern_heads = {s: heads for s, heads in recorded_heads.items() if s.endswith(".pattern")}
        paths = {source.removesuffix(".pattern"): heads for source, heads in pattern_heads.items()}
    mixing = {
        source: heads for source, heads in recorded_heads.items() if source.endswith(".mixing")
    }
    names_of = {path: path.split(".") for path in (*paths, *mixing)}
    first_names = {names[0] for names in names_of.values()}
    has_encoder = "encoder" in first_names or any("cross" in names for names in names_of.values())

    # An encoder has layers beyond `num_layers`, so a count alone does not tell which these are.
    has_all_layers = bool(measured_heads) or (not has_encoder and len(paths) == num_layers)

    def axes(path: str) -> Axes:
        """Return the sequences that a layer works on, from the names that 0.1 gave modules."""
        names = path.split(".")
        if names[0] == "bottleneck":
            return Axes("latents", "inputs")
        # The LSTM's `attention` reads an encoder without attention, or its own stack.
        if "cross" in names or {path, f"{path}.pattern"} & {*crossing}:
            return Axes("prefix", "latents" if "bottleneck" in first_names else "inputs")
        if has_encoder and names[0] != "encoder":
            return Axes("prefix", "prefix")
        return Axes("inputs", "inputs")

    return Layers(
        [
            AttentionLayer(index if has_all_layers else -1, path, num_heads, axes(path))
            for index, (path, num_heads) in enumerate(paths.items())
        ],
        [
            MixingLayer(index, path, source, num_heads, axes(path), is_linear=True)
            for index, (source, num_heads) in enumerate(mixing.items())
            for path in (source.rpartition(".")[0],)
        ],
    )
