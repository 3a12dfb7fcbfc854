"""The recorded maps of a run on one sequence over its steps, in the bytes that a page embeds."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from attnlab.figures.attention_panels import View
from attnlab.layers import AttentionLayer, HeadRef, Layer
from attnlab.run_record.pattern_table import Pattern, PatternWeights

PROBES = 2
"""The number of probes of a run that a page shows: the first that were recorded."""
MOST_TOKENS = 64
"""The number of tokens that a page shows of a longer sequence: up to the answering position."""


@dataclass(frozen=True, eq=False)
class MapHistory:
    """The map of one layer, or of the influence (None), at each step, in the record's bytes."""

    layer: Layer | None
    query_at: Sequence[int]
    codes: UInt8[np.ndarray, "step head query key"]
    numbers: Sequence[int]
    """The number of each head in its layer."""

    @property
    def is_attention(self) -> bool:
        """Whether the layer attends."""
        return isinstance(self.layer, AttentionLayer)

    def head_name(self, head: int) -> str:
        """Return the name of a head; layers and heads are counted from 0, as everywhere."""
        if self.layer is None:
            return "influence (gradient x input)"
        return f"{self.layer.name}, head {self.numbers[head]}"


@dataclass(frozen=True, eq=False)
class ProbeHistory:
    """One probe of one run, over the steps at which all its maps were recorded."""

    probe: str
    tokens: Sequence[str]
    answer_position: int
    steps: Sequence[int]
    maps: Sequence[MapHistory]
    cut: int
    """The number of tokens of the sequence that are not shown."""
    roles: Mapping[int, str]
    """The role of a token in the question, by its position."""
    hides_cross_attention: bool
    """Whether attention between two sequences was recorded too, which is not shown."""

    @cached_property
    def heads(self) -> list[tuple[int, int]]:
        """All heads as (index of a map, head in it), attention first."""
        attention_heads, further_heads = [], []
        for map_index, map_history in enumerate(self.maps):
            map_heads = [(map_index, map_head) for map_head in range(map_history.codes.shape[1])]
            if map_history.is_attention:
                attention_heads += map_heads
            else:
                further_heads += map_heads
        return attention_heads + further_heads

    @property
    def has_attention(self) -> bool:
        """Whether any of the maps is attention."""
        return any(map_history.is_attention for map_history in self.maps)

    def index_of_head(self, head: HeadRef | None) -> int | None:
        """Return the index of an attention head in `heads`, or None where it was not recorded."""
        if head is None:
            return None
        for head_index, (map_index, map_head) in enumerate(self.heads):
            layer = self.maps[map_index].layer
            if not isinstance(layer, AttentionLayer):
                continue
            if head == HeadRef(layer.index, self.maps[map_index].numbers[map_head]):
                return head_index
        return None

    @property
    def first_head_of_last_layer(self) -> int:
        """The index of the first head of the last attention layer, else of the first map."""
        attention_maps = [
            map_index for map_index, map_history in enumerate(self.maps) if map_history.is_attention
        ]
        return self.heads.index((attention_maps[-1], 0)) if attention_maps else 0

    def head_name(self, head_index: int) -> str:
        """Return the name of the head at an index of `heads`."""
        map_index, map_head = self.heads[head_index]
        return self.maps[map_index].head_name(map_head)

    def weights(self, head_index: int, query: int, step: int = -1) -> Float[np.ndarray, " key"]:
        """Return a head's weight of each token in the row of the query, else of the answer."""
        map_index, map_head = self.heads[head_index]
        query_row = self._row_of_query(map_index, query)
        codes = self.maps[map_index].codes[step, map_head, query_row]
        return PatternWeights(codes=codes[None, None]).exact[0, 0]

    def view(
        self, head_index: int, query: int | None = None, step: int = -1, title: str = ""
    ) -> View:
        """Return the picture of one head at one of the steps."""
        query = self.answer_position if query is None else query
        map_index, _ = self.heads[head_index]
        shown_query = self.maps[map_index].query_at[self._row_of_query(map_index, query)]
        weights = self.weights(head_index, query, step)
        return View(title or self.probe, self.tokens, shown_query, weights, self.roles)

    def page_data(self) -> dict[str, Any]:
        """Return the history as the page's script reads it."""
        return {
            "steps": list(self.steps),
            "asked": self.answer_position,
            "keys": len(self.tokens),
            "heads": [[map_index, map_head] for map_index, map_head in self.heads],
            "maps": [
                {
                    "queries": list(map_history.query_at),
                    "heads": map_history.codes.shape[1],
                    "codes": base64.b64encode(map_history.codes.tobytes()).decode(),
                }
                for map_history in self.maps
            ],
        }

    @property
    def size(self) -> int:
        """The number of bytes that it takes in a page."""
        return sum(map_history.codes.size for map_history in self.maps) * 4 // 3

    def _row_of_query(self, map_index: int, query: int) -> int:
        """Return the row of the query in a map, else of the answer's position, else the last."""
        queries = list(self.maps[map_index].query_at)
        for position in (query, self.answer_position):
            if position in queries:
                return queries.index(position)
        return -1


def probe_histories(patterns: Sequence[Pattern]) -> list[ProbeHistory]:
    """Build a history for each probe from the patterns of a run.

    In a model with an encoder, a history has the attention among the inputs only, so that all its
    maps are of one sequence.
    """
    self_patterns = [pattern for pattern in patterns if pattern.query_tokens is None]
    tokens_by_probe: dict[str, Sequence[str]] = {}
    for pattern in self_patterns:
        tokens_by_probe.setdefault(pattern.probe, list(pattern.tokens))
    return [
        _build_history(
            [
                pattern
                for pattern in self_patterns
                if pattern.probe == probe and list(pattern.tokens) == probe_tokens
            ],
            hides_cross_attention=any(
                pattern.query_tokens is not None for pattern in patterns if pattern.probe == probe
            ),
        )
        for probe, probe_tokens in tokens_by_probe.items()
    ]


def _build_history(patterns: Sequence[Pattern], hides_cross_attention: bool) -> ProbeHistory:
    """Return the history of one probe from all patterns within its sequence."""
    # Two attempts of a run may record different maps, so the last step decides what is shown.
    last_step = max(pattern.step for pattern in patterns)
    last_pattern_by_layer = {
        pattern.layer: pattern for pattern in patterns if pattern.step == last_step
    }
    pattern_by_step_and_layer = {
        (pattern.step, pattern.layer): pattern
        for pattern in patterns
        if _has_same_axes(pattern, last_pattern_by_layer.get(pattern.layer))
    }
    steps = sorted(
        {
            step
            for step, _ in pattern_by_step_and_layer
            if all((step, layer) in pattern_by_step_and_layer for layer in last_pattern_by_layer)
        }
    )
    first_pattern = next(iter(last_pattern_by_layer.values()))
    end = min(len(first_pattern.tokens), max(first_pattern.answer_position + 1, MOST_TOKENS))
    window = slice(max(0, end - MOST_TOKENS), end)
    return ProbeHistory(
        probe=first_pattern.probe,
        tokens=list(first_pattern.tokens[window]),
        roles={position: role for position, role in enumerate(first_pattern.roles[window]) if role},
        answer_position=first_pattern.answer_position - window.start,
        steps=steps,
        maps=[
            _build_map([pattern_by_step_and_layer[step, layer] for step in steps], window)
            for layer in last_pattern_by_layer
        ],
        cut=len(first_pattern.tokens) - (end - window.start),
        hides_cross_attention=hides_cross_attention,
    )


def _build_map(patterns: Sequence[Pattern], window: slice) -> MapHistory:
    """Return the maps of one layer over the steps, restricted to a window of positions."""
    first_pattern = patterns[0]
    rows = [
        row
        for row, position in enumerate(first_pattern.query_at)
        if window.start <= position < window.stop
    ]
    return MapHistory(
        layer=first_pattern.layer,
        query_at=[first_pattern.query_at[row] - window.start for row in rows],
        codes=np.stack([pattern.codes[:, rows, window] for pattern in patterns]),
        numbers=list(first_pattern.numbers),
    )


def _has_same_axes(pattern: Pattern, last_pattern: Pattern | None) -> bool:
    """Return whether a pattern has the heads, queries and keys of the last pattern."""
    return last_pattern is not None and all(
        list(getattr(pattern, name)) == list(getattr(last_pattern, name))
        for name in ("numbers", "query_at", "tokens")
    )
