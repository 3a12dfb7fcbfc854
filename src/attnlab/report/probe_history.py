"""What was recorded of a run on one sequence, step by step, in the bytes that a page carries."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from attnlab.figures.attention import View
from attnlab.layers import AttentionLayer, HeadRef
from attnlab.run_record.layers import Layer
from attnlab.run_record.patterns import Pattern, Weights

PROBES = 2
"""Probes of a run that a page shows, the first that were recorded."""
MOST_TOKENS = 64
"""Tokens of a longer sequence that are shown: those up to the one that the model answers from."""


@dataclass(frozen=True, eq=False)
class MapHistory:
    """What one layer passed at each step, or the influence (None): the bytes of the record."""

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
        """Return what a head is called; layers and heads count from 0, as everywhere."""
        if self.layer is None:
            return "influence (gradient x input)"
        return f"{self.layer.name}, head {self.numbers[head]}"


@dataclass(frozen=True, eq=False)
class ProbeHistory:
    """One probe of one run, over the steps at which all its maps were recorded."""

    probe: str
    tokens: Sequence[str]
    asked_at: int
    steps: Sequence[int]
    maps: Sequence[MapHistory]
    cut: int
    """Tokens of the sequence that are not shown."""
    roles: Mapping[int, str]
    """What a token is to the question, by its position."""
    crosses: bool
    """Whether it was recorded too what its sequences pay to one another, which is not shown."""

    @cached_property
    def heads(self) -> list[tuple[int, int]]:
        """All (map, head), attention first."""
        places = [(at, head) for at, m in enumerate(self.maps) for head in range(m.codes.shape[1])]
        return sorted(places, key=lambda place: not self.maps[place[0]].is_attention)

    @property
    def has_attention(self) -> bool:
        """Whether any of its maps is attention."""
        return any(shown.is_attention for shown in self.maps)

    def place_of(self, head: HeadRef | None) -> int | None:
        """Return the place of an attention head in `heads`, or None where it was not recorded."""
        if head is None:
            return None
        for place, (at, number) in enumerate(self.heads):
            layer = self.maps[at].layer
            if isinstance(layer, AttentionLayer) and head == HeadRef(
                layer.index, self.maps[at].numbers[number]
            ):
                return place
        return None

    @property
    def first_of_last_layer(self) -> int:
        """The place of the first head of the last attention layer, or of the first map."""
        attending = [at for at, shown in enumerate(self.maps) if shown.is_attention]
        return self.heads.index((attending[-1], 0)) if attending else 0

    def head_name(self, place: int) -> str:
        """Return what the head at a place is called."""
        at, number = self.heads[place]
        return self.maps[at].head_name(number)

    def weights(self, place: int, query: int, step: int = -1) -> Float[np.ndarray, " key"]:
        """Return what a head pays to each token, from the query or else from where it is asked."""
        at, number = self.heads[place]
        row = self.maps[at].codes[step, number, self._row(at, query)]
        return Weights(codes=row[None, None]).exact[0, 0]

    def view(self, place: int, query: int | None = None, step: int = -1, title: str = "") -> View:
        """Return the picture of one head at one of the steps."""
        query = self.asked_at if query is None else query
        at = self.heads[place][0]
        shown = self.maps[at].query_at[self._row(at, query)]
        weights = self.weights(place, query, step)
        return View(title or self.probe, self.tokens, shown, weights, self.roles)

    def packed(self) -> dict[str, Any]:
        """Write it for the page's script."""
        return {
            "steps": list(self.steps),
            "asked": self.asked_at,
            "keys": len(self.tokens),
            "heads": [list(place) for place in self.heads],
            "maps": [
                {
                    "queries": list(shown.query_at),
                    "heads": shown.codes.shape[1],
                    "codes": base64.b64encode(shown.codes.tobytes()).decode(),
                }
                for shown in self.maps
            ],
        }

    @property
    def size(self) -> int:
        """Bytes that it takes in a page."""
        return sum(shown.codes.size for shown in self.maps) * 4 // 3

    def _row(self, at: int, query: int) -> int:
        queries = list(self.maps[at].query_at)
        return next((queries.index(q) for q in (query, self.asked_at) if q in queries), -1)


def probe_histories(patterns: Sequence[Pattern]) -> list[ProbeHistory]:
    """Put the patterns of a run together: a history for each probe.

    Of a model with an encoder, a history is what its inputs pay to one another: it has one
    sequence.
    """
    within = [pattern for pattern in patterns if pattern.reading is None]
    tokens: dict[str, Sequence[str]] = {}
    for pattern in within:
        tokens.setdefault(pattern.probe, list(pattern.tokens))
    return [
        _history(
            [p for p in within if p.probe == probe and list(p.tokens) == of_inputs],
            any(p.reading is not None for p in patterns if p.probe == probe),
        )
        for probe, of_inputs in tokens.items()
    ]


def _history(patterns: Sequence[Pattern], crosses: bool) -> ProbeHistory:
    # What is recorded may have changed between two attempts: the last step says what is shown.
    last_step = max(pattern.step for pattern in patterns)
    last = {pattern.layer: pattern for pattern in patterns if pattern.step == last_step}
    by = {(p.step, p.layer): p for p in patterns if _fits(p, last.get(p.layer))}
    steps = sorted({step for step, _ in by if all((step, layer) in by for layer in last)})
    first = next(iter(last.values()))
    end = min(len(first.tokens), max(first.asked_at + 1, MOST_TOKENS))
    window = slice(max(0, end - MOST_TOKENS), end)
    return ProbeHistory(
        probe=first.probe,
        tokens=list(first.tokens[window]),
        roles={at: role for at, role in enumerate(first.roles[window]) if role},
        asked_at=first.asked_at - window.start,
        steps=steps,
        maps=[_map([by[step, layer] for step in steps], window) for layer in last],
        cut=len(first.tokens) - (end - window.start),
        crosses=crosses,
    )


def _map(patterns: Sequence[Pattern], window: slice) -> MapHistory:
    first = patterns[0]
    rows = [row for row, at in enumerate(first.query_at) if window.start <= at < window.stop]
    return MapHistory(
        layer=first.layer,
        query_at=[first.query_at[row] - window.start for row in rows],
        codes=np.stack([pattern.codes[:, rows, window] for pattern in patterns]),
        numbers=list(first.numbers),
    )


def _fits(pattern: Pattern, last: Pattern | None) -> bool:
    """Whether a pattern has the heads, queries and keys of the last one."""
    return last is not None and all(
        list(getattr(pattern, name)) == list(getattr(last, name))
        for name in ("numbers", "query_at", "tokens")
    )
