"""What was recorded of a run on one sentence, step by step, in the bytes that a page carries."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from attnlab.figures.attention import MEANT, OTHER, View
from attnlab.runs.patterns import INFLUENCE, Pattern

PROBES = 2
"""Probes of a run that a page shows, the first that were recorded."""
MOST_TOKENS = 64
"""Tokens of a longer sequence that are shown: those up to the one that the model answers from."""


@dataclass(frozen=True, eq=False)
class Source:
    """What one tap passed, or the influence: a code for each weight, as in the record."""

    name: str
    query_at: Sequence[int]
    codes: UInt8[np.ndarray, "step head query key"]
    numbers: Sequence[int]
    """The number of each head in its layer."""

    @property
    def is_attention(self) -> bool:
        return self.name.endswith(".pattern")

    @property
    def path(self) -> str:
        """The path of what attends, by which the record names its layer."""
        return self.name.removesuffix(".pattern")

    @property
    def block(self) -> int | None:
        """The block that the tap is in, counted from 0."""
        number = re.search(r"\bblocks\.(\d+)\.", self.name)
        return int(number[1]) if number else None


@dataclass(frozen=True, eq=False)
class Film:
    """One probe of one run, over the steps at which all its sources were recorded."""

    probe: str
    tokens: Sequence[str]
    asked_at: int
    steps: Sequence[int]
    sources: Sequence[Source]
    cut: int
    """Tokens of the sequence that are not shown."""
    roles: Mapping[int, str]
    """What a token is to the question, by its position."""
    layers: Sequence[str] = ()
    """The paths of all attention layers of the model, recorded or not, in their order."""
    reads: bool = False
    """Whether it was recorded too what its sequences pay to one another."""

    @cached_property
    def heads(self) -> list[tuple[int, int]]:
        """All (source, head), attention first."""
        of = [(at, head) for at, s in enumerate(self.sources) for head in range(s.codes.shape[1])]
        return sorted(of, key=lambda pair: not self.sources[pair[0]].is_attention)

    @property
    def has_attention(self) -> bool:
        return any(source.is_attention for source in self.sources)

    def layer_of(self, source: Source) -> int | None:
        """Return the number of an attention layer among those of the model, as in evidence."""
        return list(self.layers).index(source.path) if source.path in self.layers else None

    def head_at(self, layer: int | float | None, head: int | float | None) -> int | None:
        """Return the place of an attention head, or None where it was not recorded."""
        for place, (at, number) in enumerate(self.heads):
            source = self.sources[at]
            where = self.layer_of(source) if source.is_attention else None
            if where is not None and (where, source.numbers[number]) == (layer, head):
                return place
        return None

    @property
    def first_of_last_layer(self) -> int:
        """The place of the first head of the last attention layer, or of the influence."""
        attention = [at for at, (s, _) in enumerate(self.heads) if self.sources[s].is_attention]
        lasts = [at for at in attention if self.heads[at][0] == self.heads[attention[-1]][0]]
        return next(iter([*lasts, 0]))

    def head_name(self, head: int) -> str:
        """Say which head this is; layers and heads count from 0, as in the record."""
        at, number = self.heads[head]
        source = self.sources[at]
        if source.name == INFLUENCE:
            return "influence (gradient x input)"
        layer = self.layer_of(source) if source.is_attention else None
        if layer is not None:
            return f"layer {layer}, head {source.numbers[number]}"
        # Beside attention layers, which are counted by themselves, others go by their block.
        place = "block" if self.has_attention else "layer"
        where = source.path if source.block is None else f"{place} {source.block}"
        kind = "" if source.is_attention else " (mixing)"
        return f"{where}, head {source.numbers[number]}{kind}"

    def weights(self, head: int, query: int, step: int = -1) -> Float[np.ndarray, " key"]:
        """Give what a head pays to each token, from the query or else from where it is asked."""
        source, number = self.heads[head]
        codes = self.sources[source].codes[step, number, self._row(source, query)]
        return (codes.astype(np.float64) / 255) ** 2

    def view(self, head: int, query: int | None = None, step: int = -1, title: str = "") -> View:
        """Give the picture of one head at one of the steps."""
        query = self.asked_at if query is None else query
        shown = self.sources[self.heads[head][0]].query_at[self._row(self.heads[head][0], query)]
        weights = self.weights(head, query, step)
        return View(title or self.probe, self.tokens, shown, weights, self.roles)

    def packed(self) -> dict[str, Any]:
        """Write it for the page's script."""
        return {
            "steps": list(self.steps),
            "asked": self.asked_at,
            "keys": len(self.tokens),
            "heads": [list(pair) for pair in self.heads],
            "sources": [
                {
                    "queries": list(source.query_at),
                    "heads": source.codes.shape[1],
                    "codes": base64.b64encode(source.codes.tobytes()).decode(),
                }
                for source in self.sources
            ],
        }

    @property
    def size(self) -> int:
        """Bytes that it takes in a page."""
        return sum(source.codes.size for source in self.sources) * 4 // 3

    def _row(self, source: int, query: int) -> int:
        queries = self.sources[source].query_at
        return next((list(queries).index(q) for q in (query, self.asked_at) if q in queries), -1)


def films(
    patterns: Sequence[Pattern], dataset: str, layers: Sequence[str] | None = None
) -> list[Film]:
    """Put the patterns of a run together, a film for each probe.

    `layers` are the paths of the model's attention layers in their order; None where the patterns
    have all of them. Of a model with an encoder, a film is what its inputs pay to one another: it
    has one sequence.
    """
    if layers is None:
        attention = (p.source for p in patterns if p.source.endswith(".pattern"))
        layers = [name.removesuffix(".pattern") for name in dict.fromkeys(attention)]
    within = [pattern for pattern in patterns if pattern.reading is None]
    tokens: dict[str, Sequence[str]] = {}
    for pattern in within:
        tokens.setdefault(pattern.probe, list(pattern.tokens))
    return [
        replace(
            _film([p for p in within if p.probe == probe and list(p.tokens) == shown], dataset),
            layers=layers,
            reads=any(p.reading is not None for p in patterns if p.probe == probe),
        )
        for probe, shown in tokens.items()
    ]


def roles(tokens: Sequence[str], dataset: str) -> Mapping[int, str]:
    """Say which noun of a sentence of `pronoun` is meant; nothing of another dataset's."""
    if dataset != "pronoun":
        return {}
    # The task loads torch, which a page of another one does not need.
    from attnlab.dataset.pronoun import ADJECTIVES, NOUNS

    nouns, adjectives = (
        {word: kind for kind, text in words.items() for word in text.split()}
        for words in (NOUNS, ADJECTIVES)
    )
    deciding = {adjectives[token] for token in tokens if token in adjectives}
    places = {at: nouns[token] for at, token in enumerate(tokens) if token in nouns}
    return {at: MEANT if kind in deciding else OTHER for at, kind in places.items()}


def _film(patterns: Sequence[Pattern], dataset: str) -> Film:
    # What is recorded may have changed between two attempts: the last step says what is shown.
    end = max(pattern.step for pattern in patterns)
    last = {pattern.source: pattern for pattern in patterns if pattern.step == end}
    by = {(p.step, p.source): p for p in patterns if _alike(p, last.get(p.source))}
    names = list(last)
    steps = sorted({step for step, _ in by if all((step, name) in by for name in names)})
    first = next(iter(last.values()))
    end = min(len(first.tokens), max(first.asked_at + 1, MOST_TOKENS))
    window = slice(max(0, end - MOST_TOKENS), end)
    tokens = list(first.tokens[window])
    return Film(
        probe=first.probe,
        tokens=tokens,
        roles=roles(tokens, dataset),
        asked_at=first.asked_at - window.start,
        steps=steps,
        sources=[_source([by[step, name] for step in steps], window) for name in names],
        cut=len(first.tokens) - (end - window.start),
    )


def _source(patterns: Sequence[Pattern], window: slice) -> Source:
    first = patterns[0]
    rows = [row for row, at in enumerate(first.query_at) if window.start <= at < window.stop]
    weights = np.stack([pattern.weights[:, rows, window] for pattern in patterns])
    return Source(
        name=first.source,
        query_at=[first.query_at[row] - window.start for row in rows],
        codes=np.rint(255 * np.sqrt(np.minimum(weights, 1))).astype(np.uint8),
        numbers=list(first.numbers),
    )


def _alike(pattern: Pattern, last: Pattern | None) -> bool:
    """Whether a pattern has the heads, queries and keys of the last one."""
    return last is not None and all(
        list(getattr(pattern, of)) == list(getattr(last, of))
        for of in ("numbers", "query_at", "tokens")
    )
