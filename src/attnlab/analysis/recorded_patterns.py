"""The recorded patterns of a run, read one layer and one step at a time.

from pathlib import Path
from attnlab.analysis.recorded_patterns import RecordedPatterns
from attnlab.run_record.record import Record

patterns = RecordedPatterns(Record(Path("runs/pronoun-...")))
probe = patterns.probe("tired")
probe.steps, [layer.name for layer in probe.layers]
patterns.pattern("tired", probe.steps[-1], probe.layers[0].source).weights  # head query key
patterns.rollout(probe, probe.steps[-1], probe.layers[0])  # query key

A table of patterns may have gigabytes: its rows stay compressed, and only what is asked for is
decompressed. The model is never loaded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from attnlab.errors import RequestError
from attnlab.layers import AttentionLayer, Axes, Layer
from attnlab.run_record.pattern_table import INFLUENCE, TABLE, Pattern, PatternWeights
from attnlab.run_record.read import refuse_damaged_rows
from attnlab.run_record.record import Record

ANSWER = "answer"
"""The key of the influence on the answer, which belongs to no layer; as in `attnlab attend`."""
AXES_COLUMNS = ("tokens", "reading", "query_at", "numbers")


@dataclass(frozen=True, eq=False)
class RecordedLayer:
    """What was recorded of one layer on a probe: whose heads, from which tokens, to which."""

    source: str
    layer: Layer | None
    """None for the influence of each token on the answer."""
    numbers: Sequence[int]
    """The number of each head in its layer."""
    tokens: Sequence[str]
    """The token of each key."""
    queries: Sequence[str]
    """The token of each query that was recorded."""
    query_at: Sequence[int]
    """The position of each query in its own sequence."""
    answer_position: int
    """The position in the queries' sequence that the model answers from."""
    roles: Sequence[str]
    """The role of each key in the question; empty if none is known."""
    is_crossing: bool
    """Whether the queries are of another sequence than the keys."""

    @property
    def key(self) -> str:
        """The short name in addresses: `1` of attention, `m0` of a mixing layer, `answer`."""
        if self.layer is None:
            return ANSWER
        if isinstance(self.layer, AttentionLayer):
            return self.source if self.layer.number is None else str(self.layer.index)
        return f"m{self.layer.index}"

    @property
    def name(self) -> str:
        """Its name in tables and pages."""
        if self.layer is None:
            return "influence on the answer (gradient x input)"
        return self.layer.name

    @property
    def kind(self) -> str:
        """One of attention, mixing (a linear layer's matrix), traced and influence."""
        if self.layer is None:
            return "influence"
        if isinstance(self.layer, AttentionLayer):
            return "attention"
        return "mixing" if self.layer.is_linear else "traced"

    @property
    def answer_row(self) -> int:
        """The row of the query that the model answers from; the last where it has no row."""
        positions = list(self.query_at)
        return (
            positions.index(self.answer_position)
            if self.answer_position in positions
            else len(positions) - 1
        )

    @property
    def is_square(self) -> bool:
        """Whether every token of one sequence is a query and a key, in order."""
        return not self.is_crossing and list(self.query_at) == list(range(len(self.tokens)))

    def head_index(self, head: int) -> int:
        """Return the index of a head in the recorded weights, by its number in the layer.

        Raises RequestError for one that was not recorded.
        """
        numbers = list(self.numbers)
        if head not in numbers:
            raise RequestError(
                f"head {head}: of {self.name} were recorded {', '.join(map(str, numbers))}"
            )
        return numbers.index(head)


@dataclass(frozen=True, eq=False)
class RecordedProbe:
    """One probe of a run: its layers, and the steps at which all of them were recorded."""

    name: str
    steps: Sequence[int]
    layers: Sequence[RecordedLayer]
    """Attention in its order, layers that mix without it, then the influence on the answer."""

    @property
    def first_choice(self) -> RecordedLayer:
        """The layer that a page opens at: the last one that attends within a sequence."""
        for kind in ("attention", "mixing", "traced", "influence"):
            of_kind = [layer for layer in self.layers if layer.kind == kind]
            within = [layer for layer in of_kind if not layer.is_crossing]
            if within or of_kind:
                return (within or of_kind)[-1]
        raise RequestError(f"probe {self.name!r} has no layers")

    def layer(self, key: str) -> RecordedLayer:
        """Return a layer by its key. Raises RequestError for one that was not recorded."""
        for layer in self.layers:
            if key == layer.key:
                return layer
        keys = ", ".join(layer.key for layer in self.layers)
        raise RequestError(f"layer {key[:60]!r}: of this probe were recorded {keys}")

    def require_step(self, step: int) -> int:
        """Return a step. Raises RequestError where nothing was recorded then."""
        if step not in self.steps:
            raise RequestError(
                f"step {step}: patterns were recorded after {_list_briefly(self.steps)}"
            )
        return step

    def step_until(self, step: int) -> int:
        """Return the last recorded step that is not later, else the first one."""
        earlier = [recorded for recorded in self.steps if recorded <= step]
        return earlier[-1] if earlier else self.steps[0]


class RecordedPatterns:
    """The patterns of a run, of which one layer at one step is decompressed at a time."""

    def __init__(self, record: Record) -> None:
        self._path = record.path
        self._table = record.rows(TABLE)
        self._layers = record.layers
        self._places: dict[str, dict[str, dict[int, int]]] = {}
        self._probes: dict[str, RecordedProbe] = {}
        if self._table.num_rows:
            columns = (self._table[name].to_pylist() for name in ("probe", "source", "step"))
            for place, (probe, source, step) in enumerate(zip(*columns, strict=True)):
                # A later attempt may have recorded a step again.
                self._places.setdefault(probe, {}).setdefault(source, {})[step] = place

    @property
    def probe_names(self) -> list[str]:
        """The names of the probes, in the order of the record."""
        return list(self._places)

    def probe(self, name: str) -> RecordedProbe:
        """Return what was recorded of a probe, as at its last step.

        Raises RequestError for a probe that the run does not have.
        """
        if name not in self._places:
            raise RequestError(
                f"probe {name[:60]!r}: this run recorded {_list_briefly(self.probe_names)}"
            )
        if name not in self._probes:
            self._probes[name] = self._read_probe(name)
        return self._probes[name]

    def pattern(self, probe: str, step: int, source: str) -> Pattern:
        """Return the pattern of a layer at a step. Raises RequestError where there is none."""
        place = self._places.get(probe, {}).get(source, {}).get(step)
        if place is None:
            raise RequestError(f"step {step}: {source[:60]!r} of {probe[:60]!r} was not recorded")
        with refuse_damaged_rows(self._path, TABLE):
            return Pattern.from_row(self._row(place), self._layers)

    def rollout(
        self, probe: RecordedProbe, step: int, until: RecordedLayer
    ) -> Float[np.ndarray, "query key"]:
        """Compute the share of each input in each position after a layer (Abnar & Zuidema 2020).

        As `attnlab.interp.circuits.rollout`, from the record. Raises RequestError where it lacks a
        layer, a head or a query that the product needs.
        """
        contributions: np.ndarray | None = None
        for layer in self.rollout_layers(probe, until):
            mean = self.pattern(probe.name, step, layer.source).weights.mean(axis=0)
            with_residual = (mean + np.eye(len(mean), dtype=np.float32)) / 2
            contributions = (
                with_residual if contributions is None else with_residual @ contributions
            )
        assert contributions is not None
        return contributions

    def rollout_layers(self, probe: RecordedProbe, until: RecordedLayer) -> list[RecordedLayer]:
        """Return the layers that a rollout multiplies, the lowest first.

        Raises RequestError where the record lacks a layer, a head or a query of them.
        """
        wanted = [layer for layer in self._layers.attention if layer.axes == Axes()]
        if until.layer not in wanted:
            raise RequestError(f"rollout: not of {until.name}, which is no attention in the text")
        layer_by_source = {layer.source: layer for layer in probe.layers}
        layers = []
        for layer in wanted[: wanted.index(until.layer) + 1]:
            recorded = layer_by_source.get(layer.source)
            if recorded is None or len(recorded.numbers) < layer.num_heads:
                raise RequestError(
                    f"rollout: not recorded; it needs every head up to {until.name}, and the "
                    f"record lacks some of {layer.name}"
                )
            if not recorded.is_square:
                raise RequestError(f"rollout: not recorded; {layer.name} lacks rows of queries")
            layers.append(recorded)
        return layers

    def _read_probe(self, name: str) -> RecordedProbe:
        places_by_source = self._places[name]
        last_step = max(step for places in places_by_source.values() for step in places)
        # Two attempts of a run may record different layers, so the last step decides.
        last_places = {
            source: places[last_step]
            for source, places in places_by_source.items()
            if last_step in places
        }
        steps = set.intersection(
            *(
                {
                    step
                    for step, place in places_by_source[source].items()
                    if self._have_same_axes(place, last_place)
                }
                for source, last_place in last_places.items()
            )
        )
        layers = [self._layer(place) for place in last_places.values()]
        order = ("attention", "mixing", "traced", "influence")
        return RecordedProbe(
            name,
            sorted(steps),
            sorted(layers, key=lambda layer: (order.index(layer.kind), _index(layer))),
        )

    def _layer(self, place: int) -> RecordedLayer:
        """Return what a row says of its layer, without decompressing its weights."""
        with refuse_damaged_rows(self._path, TABLE):
            row = self._row(place, without="codes")
            source, tokens, query_at = row["source"], row["tokens"], row["query_at"]
            numbers, reading = row.get("numbers"), row.get("reading") or None
            roles = row.get("roles") or ()
            if source != INFLUENCE and source not in self._layers.by_source:
                raise ValueError(f"{source!r} is none of the layers that the run states")
            # Queries of another sequence are stored as their own tokens, one a query.
            queries = reading or [tokens[position] for position in query_at]
            if min([0, *query_at]) < 0 or len(queries) != len(query_at):
                raise ValueError(f"{query_at} are not all positions")
            if len(roles) not in (0, len(tokens)):
                raise ValueError(f"{len(tokens)} tokens cannot have {len(roles)} roles")
            return RecordedLayer(
                source=source,
                layer=self._layers.by_source.get(source),
                numbers=list(range(int(row["heads"])) if numbers is None else numbers),
                tokens=tokens,
                queries=queries,
                query_at=query_at,
                answer_position=int(row["asked_at"]),
                roles=roles,
                is_crossing=reading is not None,
            )

    def _row(self, place: int, without: str = "") -> Mapping[str, Any]:
        row = self._table.slice(place, 1)
        return (row.drop_columns([without]) if without else row).to_pylist()[0]

    def _have_same_axes(self, place: int, last_place: int) -> bool:
        """Return whether two rows have the same heads, queries and keys."""
        return place == last_place or all(
            self._table[name][place].equals(self._table[name][last_place])
            for name in AXES_COLUMNS
            if name in self._table.column_names
        )


def shrink(
    codes: UInt8[np.ndarray, "head query key"], most: int
) -> UInt8[np.ndarray, "head row column"]:
    """Return maps of at most `most` rows and columns, each the largest weight of its block."""
    for axis in (1, 2):
        size = codes.shape[axis]
        if size > most:
            starts = np.arange(most) * size // most
            codes = np.maximum.reduceat(codes, starts, axis=axis)
    return codes


def weight_codes(weights: Float[np.ndarray, "query key"]) -> UInt8[np.ndarray, "query key"]:
    """Return weights as the record's bytes; those above 1 by rounding become 1."""
    return PatternWeights(exact=np.clip(weights, 0, 1)[None]).codes[0]


def has_patterns(record: Record) -> bool:
    """Return whether a run recorded patterns, without checking them."""
    return any(record.path.glob(f"attempts/*/{TABLE}.arrow"))


def _index(layer: RecordedLayer) -> int:
    return 0 if layer.layer is None else layer.layer.index


def _list_briefly(values: Sequence[Any]) -> str:
    """Return the first and last few values of a list as text."""
    texts = [repr(value)[:60] if isinstance(value, str) else str(value) for value in values]
    if len(texts) > 9:
        texts[5:-3] = ["..."]
    return ", ".join(texts) or "nothing"
