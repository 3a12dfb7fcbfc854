"""The maps of one text: who reads whom, layer by layer, and which of them is shown first.

A map has the attention weights of a layer or, in another view, what is made of them: the lengths of
what is read (`norms`), what has been passed on up to each layer (`rollout`), and what could be
(`flow`). Of layers without attention it has what they mix, as shares of a row's absolute values,
which is never called attention.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from attnlab.analysis.report import IN_PYTHON
from attnlab.errors import RequestError
from attnlab.figures import shades
from attnlab.interp.attention_flow import LONGEST, attention_flow
from attnlab.interp.capture import ActivationCapture
from attnlab.interp.circuits import rollout
from attnlab.interp.observe import moved
from attnlab.interp.pattern_stats import entropy
from attnlab.interp.value_norms import weighted_norms
from attnlab.layers import AttentionLayer, Axes
from attnlab.loaded_run import LoadedRun
from attnlab.run_record.patterns import Pattern

VIEWS = ("weights", "norms", "rollout", "flow")
"""Of the attention within a text: as it is, or what is made of it."""
Kind = Literal["attention", "norms", "rollout", "flow", "mixing", "traced", "answer"]
ANSWER = "answer"
"""How the influence on the answers is named as a layer."""
MEAN = "mean"
"""How the mean of a layer's heads is named as a head."""
MEASURES: dict[Kind, str] = {
    "attention": "attention",
    "norms": "lengths of what each head reads, as shares of their row",
    "rollout": "shares of the inputs in it, if attention were all that moves them",
    "flow": "how much of each input can reach a position, 0 to 1",
    "mixing": "mixing matrix, sizes of its entries as shares of their row",
    "traced": "influence of the inputs on the outputs, by |gradient x input|",
    "answer": "each token's share of |gradient x input|",
}
TEXT = Axes("inputs", "inputs")


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """The weights of one layer."""

    source: str
    """What the record calls it; of another view, the path of the layer and the view."""
    layer: int | None
    """The number of the attention layer; None where nothing attends, and of a flow."""
    queries: Sequence[str]
    keys: Sequence[str]
    weights: Float[np.ndarray, "head query key"]
    """By head; a rollout and a flow have one row of maps, of the heads' mean."""
    kind: Kind = field(metadata=IN_PYTHON)
    name: str = field(metadata=IN_PYTHON)
    axes: Axes = field(metadata=IN_PYTHON)
    row: int = field(metadata=IN_PYTHON)
    """The row of the query, or of the position that answers where the text is not what reads."""
    path: str = field(metadata=IN_PYTHON, default="")
    """The layer, as the model names its module; empty for a map of the whole model."""

    @property
    def measure(self) -> str:
        """What the weights are."""
        return MEASURES[self.kind]

    @property
    def by_head(self) -> bool:
        """Whether it has maps of heads, and not of their mean."""
        return self.kind not in ("rollout", "flow")

    @property
    def query(self) -> str:
        """The position of the row, and what stands there."""
        return f"{self.row} ({shades.name(self.queries[self.row])})"

    @property
    def entropies(self) -> Float[np.ndarray, " head"]:
        """The entropy of the row in each head (nats); infinity of one that looks nowhere."""
        rows = torch.from_numpy(np.ascontiguousarray(self.weights[None, :, self.row, None]))
        return np.where(self.weights[:, self.row].any(axis=1), entropy(rows)[0, :, 0], np.inf)

    def title(self, head: int | str) -> str:
        """Return the names of the layer and of a head, as far as there are several."""
        if self.kind == "answer":
            return "influence on the answer at each position"
        if not self.by_head or (len(self.weights) == 1 and self.kind in ("mixing", "traced")):
            return self.name
        return f"{self.name}, {'mean of heads' if head == MEAN else f'head {head}'}"


@dataclass(frozen=True, eq=False)
class ShownMap:
    """The map that is shown of all, which head of it, and why this one."""

    source: str
    layer: int | None
    head: int | str
    """A number, or "mean"."""
    row: int
    """The row that is marked."""
    title: str
    measure: str
    """What the weights are."""
    why: str
    """By what it was chosen; empty where it was asked for."""
    axes: Axes
    map: AttentionMap = field(metadata=IN_PYTHON)

    @property
    def weights(self) -> Float[np.ndarray, "query key"]:
        """The weights that are shown."""
        weights = self.map.weights
        return weights.mean(axis=0) if isinstance(self.head, str) else weights[self.head]

    @classmethod
    def make(cls, shown: AttentionMap, head: int | str, why: str = "") -> "ShownMap":
        """Return a map with a head of it chosen."""
        title, place = shown.title(head), (shown.source, shown.layer, head, shown.row)
        return cls(*place, title, shown.measure, why, shown.axes, shown)


@dataclass(frozen=True, eq=False)
class TextMaps:
    """All maps of one text in one view, each computed when it is first asked for."""

    loaded_run: LoadedRun
    text: str
    captured: ActivationCapture
    patterns: Sequence[Pattern]
    """What was captured, in the form of the record."""
    query: int
    view: str

    @cached_property
    def attending(self) -> list[AttentionMap]:
        """Those of the layers that attend, in the order of a pass.

        Raises RequestError where the model or the text has none of the view.
        """
        if self.view == "weights":
            return [self._of(p) for p in self.patterns if p.attention is not None]
        captured, name = self.captured.patterns, self.loaded_run.record.name
        if not captured:
            raise RequestError(
                f"the view `{self.view}` needs attention within the text, and no layer of {name} "
                "has tokens see one another; take the view `weights`"
            )
        if self.view == "norms":
            return self._norms()
        weights = [rearrange(pattern, "h q k -> 1 h q k") for pattern in captured.values()]
        if self.view == "rollout":
            return [
                self._made(rolled, "rollout", layer)
                for layer, rolled in zip(captured, rollout(weights)[0], strict=True)
            ]
        if len(self.captured.inputs) > LONGEST:
            raise RequestError(
                f"the view `flow` takes at most {LONGEST} tokens, and the text has "
                f"{len(self.captured.inputs)}; the view `rollout` takes any number"
            )
        return [self._made(attention_flow(weights)[0], "flow")]

    @cached_property
    def mixed(self) -> list[AttentionMap]:
        """Those of the layers that do not attend, then the influence on the answers.

        They cost a pass for each position of the text. None in any view but `weights`.
        """
        if self.view != "weights":
            return []
        return [self._of(pattern) for pattern in self.loaded_run.mixing(self.text)]

    @property
    def all(self) -> list[AttentionMap]:
        """All of them."""
        return [*self.attending, *self.mixed]

    @property
    def layers(self) -> list[AttentionMap]:
        """Those of the layers that attend, by their numbers; where none does, of all layers."""
        attending = sorted(self.attending, key=lambda each: each.layer or 0)
        return attending or [each for each in self.mixed if each.kind != "answer"]

    def choose(self, layer: int | str | None = None, head: int | str | None = None) -> ShownMap:
        """Return the map that is asked for, or the one with the sharpest row at the query.

        Raises RequestError for a layer or head that is not there.
        """
        if self.view in ("rollout", "flow"):
            return self._choose_whole(layer, head)
        attending = {each.layer: each for each in self.attending}
        if layer is None and attending:
            own = [each for each in attending.values() if each.axes == TEXT]
            own = own or list(attending.values())
            among = "heads" if len(own) == len(attending) else "heads of the encoder"
            return _sharpest(own, head, among)
        if isinstance(layer, int) and layer in attending:
            return _head(attending[layer], head)
        mixing = [each for each in self.mixed if each.kind != "answer"]
        linear = [each for each in mixing if each.kind == "mixing"]
        if self.mixed and (layer == ANSWER or (layer is None and not linear)):
            return _head(self.mixed[-1], head)
        if layer is None:
            return _sharpest(linear, head, "mixing matrices")
        if isinstance(layer, int) and not attending and 0 <= layer < len(mixing):
            return _head(mixing[layer], head)
        maps = [*attending.values(), *mixing]
        named = [
            each for each in maps if each.source == layer or each.source.startswith(f"{layer}.")
        ]
        if len(named) != 1:
            raise self._no_layer(layer, len(attending or mixing), maps)
        return _head(named[0], head)

    def _choose_whole(self, layer: int | str | None, head: int | str | None) -> ShownMap:
        """Take the map of a view that has none of single heads: after the last layer, if unsaid."""
        if head not in (None, MEAN):
            raise RequestError(
                f"--head {head}: the view `{self.view}` is of the mean of all heads; leave it out"
            )
        if self.view == "flow" and layer is not None:
            raise RequestError(f"--layer {layer}: the view `flow` is of all layers; leave it out")
        maps = self.attending
        if layer is None:
            why = f"after the last of {len(maps)} attention layers" if len(maps) > 1 else ""
            return ShownMap.make(maps[-1], MEAN, why)
        named = [each for each in maps if layer in (each.layer, each.path, each.source)]
        if len(named) != 1:
            raise self._no_layer(layer, len(maps), maps)
        return ShownMap.make(named[0], MEAN)

    def _no_layer(
        self, layer: int | str | None, count: int, maps: Sequence[AttentionMap]
    ) -> RequestError:
        if not count:
            return RequestError(
                f"--layer {layer}: no layer of {self.loaded_run.record.name} has a map; leave it "
                f"out, or give {ANSWER}, for the influence on the answers"
            )
        names = [*(each.path for each in maps), *([ANSWER] if self.view == "weights" else [])]
        return RequestError(
            f"--layer {layer}: expected a number below {count}, one of {', '.join(names)}"
        )

    def _norms(self) -> list[AttentionMap]:
        """Return the lengths of what each head reads, of the layers whose heads have values."""
        run = self.loaded_run
        asked = moved(run.objective.probe(run.read(self.text)), run.subject.device)
        try:
            norms = weighted_norms(run.subject, asked)
        except LookupError:
            norms = {}
        shares = {layer: each.shares[0] for layer, each in norms.items() if layer.axes == TEXT}
        if not shares:
            raise RequestError(
                "the view `norms` needs heads with values of their own width, and no layer of "
                f"{run.record.name} that reads the text has any; take the view `weights`"
            )
        return [self._made(each, "norms", layer) for layer, each in shares.items()]

    def _of(self, pattern: Pattern) -> AttentionMap:
        """Return a pattern as a map."""
        layer = pattern.layer
        if layer is None:
            encoder = self.loaded_run.model.arrangement.encoder
            name, axes = ANSWER, Axes("prefix" if encoder else "inputs", "inputs")
        else:
            name, axes = layer.path if pattern.attention is None else layer.name, layer.axes
        if pattern.mixing is not None:
            kind: Kind = "mixing" if pattern.mixing.is_linear else "traced"
        else:
            kind = "answer" if layer is None else "attention"
        number = None if pattern.attention is None else pattern.attention.index
        row = self.query if axes.queries == "inputs" else pattern.asked_at
        queries, keys = list(pattern.queries), list(pattern.tokens)
        return AttentionMap(
            *(pattern.source, number, queries, keys, pattern.weights, kind, name, axes, row),
            path="" if layer is None else layer.path,
        )

    def _made(
        self,
        weights: Float[Tensor, "*head query key"],
        kind: Kind,
        layer: AttentionLayer | None = None,
    ) -> AttentionMap:
        """Return what a view makes of the text's own attention as a map."""
        names = self.loaded_run.objective.inputs
        tokens = [names[int(token)] for token in self.captured.inputs]
        if weights.ndim == 2:
            weights = rearrange(weights, "q k -> 1 q k")
        source = kind if layer is None else f"{layer.path}.{kind}"
        number = None if layer is None else layer.index
        name = f"{kind} through all attention layers" if layer is None else layer.name
        if kind == "rollout":
            name = f"rollout after {name}"
        array = weights.float().cpu().numpy()
        return AttentionMap(
            *(source, number, tokens, tokens, array, kind, name, TEXT, self.query),
            path="" if layer is None else layer.path,
        )


def _sharpest(maps: Sequence[AttentionMap], head: int | str | None, among: str) -> ShownMap:
    """Take the layer with the head whose row at the query has the least entropy."""
    layer = min(maps, key=lambda each: each.entropies.min())
    shown = _head(layer, head)
    if sum(len(each.weights) for each in maps) == 1:
        return shown
    if head is None:
        return replace(shown, why=f"of all {among}, the sharpest at query {layer.query}")
    if len(maps) == 1:
        return shown
    why = f"of all {among}, its layer has the sharpest at query {layer.query}"
    return replace(shown, why=why)


def _head(shown: AttentionMap, head: int | str | None) -> ShownMap:
    """Take a head of a map: the one that is asked for, or the sharpest at the query."""
    count = len(shown.weights)
    if head is None:
        sharpest = int(shown.entropies.argmin())
        why = f"of its {count} heads, the sharpest at query {shown.query}" if count > 1 else ""
        return ShownMap.make(shown, sharpest, why)
    if head != MEAN and not (isinstance(head, int) and 0 <= head < count):
        raise RequestError(
            f"--head {head}: {shown.name} has {count} head{'s' * (count > 1)}; give a number below "
            f"{count}, or {MEAN}"
        )
    return ShownMap.make(shown, head)
