"""The layers of a run's model as its record states them, under the names used in its rows."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from attnlab.layers import AttentionLayer, Axes, ExpertLayer, Layer, LSTMLayer, MixingLayer
from attnlab.run_record.forms import SCHEMA, seal
from attnlab.run_record.read import read_json_object, refuse_damaged_rows

FILE = "layers.json"


class LayersForm(msgspec.Struct):
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
        return seal({"schema": SCHEMA, **msgspec.to_builtins(lists)})


def read_layers(attempt_dir: Path) -> Layers | None:
    """Load the layers that an attempt states; None for an attempt by attnlab 0.1.

    Raises RecordError if the file is damaged.
    """
    content = read_json_object(attempt_dir / FILE, attempt_dir.parents[1], LayersForm)
    if content is None:
        return None
    form = msgspec.convert(content, LayersForm)
    return Layers(form.attention, form.mixing, form.experts, form.lstm)


def measured_layers(head_rows: pa.Table, run_dir: Path) -> tuple[dict[str, int], set[str]]:
    """Return the number of heads of each measured layer, and the layers that cross sequences.

    Layers are named by their paths. Raises RecordError for damaged rows.
    """
    num_heads_by_path: dict[str, int] = {}
    measures_by_path: dict[str, set[str]] = {}
    with refuse_damaged_rows(run_dir, "heads"):
        columns = ["layer", "measure", "heads"]
        for row in head_rows.select(columns).to_pylist() if head_rows.num_rows else ():
            num_heads_by_path[row["layer"]] = len(row["heads"])
            measures_by_path.setdefault(row["layer"], set()).add(row["measure"])
    # Queries and keys of different sequences have no distance.
    crossing_paths = {
        path
        for path, measures in measures_by_path.items()
        if "entropy" in measures and "distance" not in measures
    }
    return num_heads_by_path, crossing_paths


def recorded_layers(pattern_rows: pa.Table, run_dir: Path) -> tuple[dict[str, int], set[str]]:
    """Return the number of heads of each layer with patterns, and those that cross sequences.

    Layers are named by the sources of their patterns. Raises RecordError for damaged rows.
    """
    num_heads_by_source: dict[str, int] = {}
    crossing_sources: set[str] = set()
    with refuse_damaged_rows(run_dir, "patterns"):
        # Earlier versions recorded patterns within one sequence only.
        columns = ["source", "heads", *({"reading"} & {*pattern_rows.column_names})]
        for row in pattern_rows.select(columns).to_pylist() if pattern_rows.num_rows else ():
            num_heads_by_source[row["source"]] = int(row["heads"])
            if row.get("reading"):
                crossing_sources.add(row["source"])
    return num_heads_by_source, crossing_sources


def infer_layers(
    num_measured_heads: Mapping[str, int],
    num_recorded_heads: Mapping[str, int],
    num_layers: int,
    crossing_layers: Collection[str] = (),
) -> Layers:
    """Infer the layers of a record of attnlab 0.1 from the names in its rows.

    `num_measured_heads` maps the paths of attention layers whose heads were measured to their
    number of heads: all layers, in their order, or none. `num_recorded_heads` maps the sources of
    recorded patterns to their number of heads; attention layers are taken from it if
    `num_measured_heads` is empty. As a recorder may have left layers out, these then get an index
    only if there are `num_layers` of them, else -1 (unknown). `crossing_layers` has the paths or
    sources of layers whose rows show that one sequence reads another.
    """
    attention_heads = dict(num_measured_heads)
    if not attention_heads:
        attention_heads = {
            source.removesuffix(".pattern"): num_heads
            for source, num_heads in num_recorded_heads.items()
            if source.endswith(".pattern")
        }
    mixing_heads = {
        source: num_heads
        for source, num_heads in num_recorded_heads.items()
        if source.endswith(".mixing")
    }
    module_names = [path.split(".") for path in (*attention_heads, *mixing_heads)]
    top_modules = {names[0] for names in module_names}
    has_encoder = "encoder" in top_modules or any("cross" in names for names in module_names)

    # An encoder has layers beyond `num_layers`, so a count alone does not tell which these are.
    has_all_layers = bool(num_measured_heads) or (
        not has_encoder and len(attention_heads) == num_layers
    )

    def infer_axes(path: str) -> Axes:
        """Return the sequences that a layer works on, from the names that 0.1 gave modules."""
        names = path.split(".")
        if names[0] == "bottleneck":
            return Axes("latents", "inputs")
        # The LSTM's `attention` reads an encoder without attention, or its own stack.
        if "cross" in names or {path, f"{path}.pattern"} & {*crossing_layers}:
            return Axes("prefix", "latents" if "bottleneck" in top_modules else "inputs")
        if has_encoder and names[0] != "encoder":
            return Axes("prefix", "prefix")
        return Axes("inputs", "inputs")

    attention_layers = [
        AttentionLayer(index if has_all_layers else -1, path, num_heads, infer_axes(path))
        for index, (path, num_heads) in enumerate(attention_heads.items())
    ]
    mixing_layers = []
    for index, (source, num_heads) in enumerate(mixing_heads.items()):
        path = source.rpartition(".")[0]
        mixing_layers.append(
            MixingLayer(index, path, source, num_heads, infer_axes(path), is_linear=True)
        )
    return Layers(attention_layers, mixing_layers)
