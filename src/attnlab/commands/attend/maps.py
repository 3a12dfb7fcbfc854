"""The heat map of `attnlab attend`: of which layer and head, in the terminal and for print."""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.text import Text

from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.evidence.axes import Axes, axes
from attnlab.evidence.intervene import attention_layers
from attnlab.figures import shades
from attnlab.runs.patterns import INFLUENCE, Pattern
from attnlab.trained import Trained

ANSWER = "answer"
"""How the influence on the answers is named as a layer."""
MEASURES = {
    "pattern": "attention",
    "mixing": "mixing matrix, sizes of its entries as shares of their row",
    "influence": "influence of the inputs on the outputs, by |gradient x input|",
}
SEQUENCES = {"inputs": "the text", "prefix": "the answer so far", "latents": "the latents"}


@dataclass(frozen=True, eq=False)
class Chosen:
    """A map, and the head of it that is shown."""

    pattern: Pattern
    layer: str
    head: int | str
    """A number, or "mean"."""
    at: int
    """The row that is marked."""
    why: str
    of: Axes

    @property
    def weights(self) -> Float[np.ndarray, "query key"]:
        heads = self.pattern.weights
        return heads.mean(axis=0) if isinstance(self.head, str) else heads[self.head]

    @property
    def measure(self) -> str:
        """What the weights are."""
        return _measure(self.pattern)

    @property
    def title(self) -> str:
        """The layer and the head, as far as there are several."""
        if self.pattern.source == INFLUENCE:
            return "influence on the answer at each position"
        if len(self.pattern.weights) == 1 and not self.pattern.is_attention:
            return self.layer
        return f"{self.layer}, {'mean of heads' if self.head == 'mean' else f'head {self.head}'}"

    @property
    def query(self) -> str:
        """The marked row, and what stands there."""
        return f"{self.at} ({shades.name(self.pattern.queries[self.at])})"

    def show(self, console: Console, most_rows: int | None) -> None:
        """Print it, with what it is above and what of it is shown below."""
        console.print(f"{self.title}: {self.measure}{self.why}", style="bold")
        console.print(_reads(self.of))
        drawn = shades.heat_map(
            self.weights,
            self.pattern.queries,
            self.pattern.tokens,
            self.at,
            console.width,
            most_rows=most_rows,
            square=not self.of.across,
            coloured=console.color_system in ("256", "truecolor") and not console.no_color,
        )
        for line in drawn.lines:
            console.print(line)
        if drawn.said:
            console.print(drawn.said)


def choose(
    loaded: Trained,
    arguments: Namespace,
    patterns: Sequence[Pattern],
    mixed: Callable[[], Sequence[Pattern]],
    query: int,
) -> Chosen:
    """Take the map that is asked for, of `patterns` or of `Trained.mixing`, which takes a while.

    Raises RequestError for a layer or head that is not there.
    """
    given: str | None = arguments.layer
    attending = {number(loaded, p): p for p in patterns if p.is_attention}
    if given is None and attending:
        inner = Axes("inputs", "inputs")
        own = {n: p for n, p in attending.items() if _axes(loaded, p) == inner} or attending
        among = "heads" if len(own) == len(attending) else "heads of the encoder"
        named = {f"layer {n}": p for n, p in own.items()}
        return _sharpest(loaded, arguments, named, query, among)
    if given is not None and given.isdecimal() and int(given) in attending:
        return _head(loaded, arguments, attending[int(given)], f"layer {given}", query)
    *mixing, influence = mixed()
    linear = {_path(p): p for p in mixing if p.source.endswith(".mixing")}
    if given == ANSWER or (given is None and not linear):
        return _head(loaded, arguments, influence, ANSWER, query)
    if given is None:
        return _sharpest(loaded, arguments, linear, query, "mixing matrices")
    if given.isdecimal() and not attending and int(given) < len(mixing):
        return _head(loaded, arguments, mixing[int(given)], f"layer {given}", query)
    named = [
        p
        for p in (*attending.values(), *mixing)
        if p.source == given or p.source.startswith(f"{given}.")
    ]
    if len(named) != 1:
        paths = [_path(p) for p in (*attending.values(), *mixing)]
        count = len(attending or mixing)
        if not count:
            raise RequestError(
                f"--layer {given}: no layer of {loaded.record.name} has a map; leave it out, or "
                f"give {ANSWER}, for the influence on the answers"
            )
        raise RequestError(
            f"--layer {given}: expected a number below {count}, one of "
            f"{', '.join([*paths, ANSWER])}"
        )
    return _head(loaded, arguments, named[0], _path(named[0]), query)


def picture(
    loaded: Trained,
    arguments: Namespace,
    patterns: Sequence[Pattern],
    mixed: Callable[[], Sequence[Pattern]],
    chosen: Chosen,
    caption: Sequence[str],
) -> bytes:
    """Draw the map that was chosen, or all layers and heads where none was."""
    # Altair takes a while to load, and the terminal needs none.
    from attnlab.figures.base import drawn
    from attnlab.figures.heatmap import Map, heat_map, multiples

    run = f"{loaded.record.name}, step {loaded.step}"
    attending = sorted((p for p in patterns if p.is_attention), key=lambda p: number(loaded, p))
    whole = attending or [p for p in mixed() if p.source != INFLUENCE]
    several = sum(len(p.weights) for p in whole) > 1
    if (arguments.layer, arguments.head) == (None, None) and several and _attends(chosen):
        rows, of = [], []
        for place, pattern in enumerate(whole):
            name = f"layer {place}" if attending else _path(pattern)
            at = _row(loaded, pattern, chosen.at)
            rows.append(
                [
                    Map(f"{name}, head {head}", pattern.queries, pattern.tokens, weights, at)
                    for head, weights in enumerate(pattern.weights)
                ]
            )
            of.append(_titles(_axes(loaded, pattern)))
        measures = "; ".join(dict.fromkeys(_measure(pattern) for pattern in whole))
        what = (
            "all attention layers and heads" if attending else f"all layers and heads, {measures}"
        )
        title = f"{run}: {what}"
        figure: Any = multiples(rows, title, caption, of)
    else:
        one = Map("", chosen.pattern.queries, chosen.pattern.tokens, chosen.weights, chosen.at)
        title = f"{run}: {chosen.title}"
        said = f"{chosen.measure[0].upper()}{chosen.measure[1:]}{chosen.why}."
        figure = heat_map(one, title, [said, *caption], _titles(chosen.of))
    return drawn(figure, arguments.output.suffix)


def number(loaded: Trained, pattern: Pattern) -> int:
    """Give the number that `ablate` gives a layer that attends."""
    return attention_layers(loaded.model).index(_path(pattern))


def _sharpest(
    loaded: Trained,
    arguments: Namespace,
    layers: Mapping[str, Pattern],
    query: int,
    among: str,
) -> Chosen:
    """Take the layer with the head whose row at the query has the least entropy."""
    rows = {name: one.weights[:, _row(loaded, one, query)] for name, one in layers.items()}
    layer = min(rows, key=lambda name: _entropies(rows[name]).min())
    chosen = _head(loaded, arguments, layers[layer], layer, query)
    if sum(map(len, rows.values())) == 1:
        return chosen
    if arguments.head is None:
        return replace(chosen, why=f"; of all {among}, the sharpest at query {chosen.query}")
    if len(layers) == 1:
        return chosen
    return replace(
        chosen, why=f"; of all {among}, its layer has the sharpest at query {chosen.query}"
    )


def _head(
    loaded: Trained, arguments: Namespace, pattern: Pattern, layer: str, query: int
) -> Chosen:
    given: str | None = arguments.head
    count, at = len(pattern.weights), _row(loaded, pattern, query)
    of = _axes(loaded, pattern)
    if given is None:
        sharpest = int(_entropies(pattern.weights[:, at]).argmin())
        one = Chosen(pattern, layer, sharpest, at, "", of)
        why = f"; of its {count} heads, the sharpest at query {one.query}" if count > 1 else ""
        return replace(one, why=why)
    if given != "mean" and not (given.isdecimal() and int(given) < count):
        raise RequestError(
            f"--head {given}: {layer} has {count} head{'s' * (count > 1)}; give a number below "
            f"{count}, or mean"
        )
    return Chosen(pattern, layer, given if given == "mean" else int(given), at, "", of)


def _entropies(rows: Float[np.ndarray, "head key"]) -> Float[np.ndarray, " head"]:
    """Give the entropy of each row in nats; of a row of zeros, which looks nowhere, infinity."""
    entropies = (-rows * np.log(np.where(rows > 0, rows, 1))).sum(axis=1)
    return np.where(rows.any(axis=1), entropies, np.inf)


def _path(pattern: Pattern) -> str:
    return pattern.source.rpartition(".")[0]


def _attends(chosen: Chosen) -> bool:
    """Say whether it is of a layer, not of the answers."""
    return chosen.pattern.source != INFLUENCE


def _measure(pattern: Pattern) -> str:
    if pattern.source == INFLUENCE:
        return "each token's share of |gradient x input|"
    return MEASURES[pattern.source.rpartition(".")[2]]


def _axes(loaded: Trained, pattern: Pattern) -> Axes:
    if pattern.source == INFLUENCE:
        return Axes("prefix" if loaded.model.arrangement.encoder else "inputs", "inputs")
    return axes(loaded.model, pattern.source)


def _row(loaded: Trained, pattern: Pattern, query: int) -> int:
    """Give the row of the query, or of the position that is asked where the text does not look."""
    return query if _axes(loaded, pattern).queries == "inputs" else pattern.asked_at


def _reads(of: Axes) -> Text:
    queries, keys = SEQUENCES[of.queries], SEQUENCES[of.keys]
    return Text(f"down: queries ({queries}); across: keys ({keys}); darker: more")


def _titles(of: Axes) -> tuple[str, str]:
    if not of.across:
        return "query", "key"
    return f"query: {SEQUENCES[of.queries]}", f"key: {SEQUENCES[of.keys]}"
