"""The maps of one text: which tokens read which, layer by layer, and the choice of the map to show.

A map holds the attention weights of a layer or, in another view, what is computed from them: the
norms of the weighted value vectors (`norms`), attention rolled out up to each layer (`rollout`),
and the maximum flow of attention through all layers (`flow`). For a layer without attention it
holds the mixing matrix, as shares of a row's absolute values, which is never called attention.
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
from attnlab.figures import terminal_heatmap
from attnlab.interp.attention_flow import LONGEST, attention_flow
from attnlab.interp.capture import ActivationCapture
from attnlab.interp.circuits import rollout
from attnlab.interp.observe import to_device
from attnlab.interp.pattern_stats import entropy
from attnlab.interp.value_norms import weighted_norms
from attnlab.layers import AttentionLayer, Axes
from attnlab.loaded_run import LoadedRun
from attnlab.run_record.pattern_table import Pattern

VIEWS = ("weights", "norms", "rollout", "flow")
"""The attention within a text as it is, or what is computed from it."""
Kind = Literal["attention", "norms", "rollout", "flow", "mixing", "traced", "answer"]
ANSWER = "answer"
"""The name by which a user selects the influence on the answers in place of a layer."""
MEAN = "mean"
"""The name by which a user selects the mean of a layer's heads in place of a head."""
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
    """Its name in the record; in a view other than `weights`, the layer's path and the view."""
    layer: int | None
    """The number of the attention layer; None for a layer without attention, and for a flow."""
    queries: Sequence[str]
    keys: Sequence[str]
    weights: Float[np.ndarray, "head query key"]
    """One map for each head; a rollout and a flow have a single map, of the heads' mean."""
    kind: Kind = field(metadata=IN_PYTHON)
    name: str = field(metadata=IN_PYTHON)
    """The name of the layer in tables and pages, as in "layer 0" or "mixing layer 0"."""
    axes: Axes = field(metadata=IN_PYTHON)
    row: int = field(metadata=IN_PYTHON)
    """The row of the query; where the queries are not the text's tokens, that of the answer."""
    path: str = field(metadata=IN_PYTHON, default="")
    """The path of the layer's module; empty for a map of the whole model."""

    @property
    def measure(self) -> str:
        """What the weights measure."""
        return MEASURES[self.kind]

    @property
    def is_attention(self) -> bool:
        """Whether it is of attention layers, and not of another layer or of the influence."""
        return self.kind not in ("mixing", "traced", "answer")

    @property
    def has_heads(self) -> bool:
        """Whether it has a map for each head, and not one of their mean."""
        return self.kind not in ("rollout", "flow")

    @property
    def query(self) -> str:
        """The position of the row and its token, as a label."""
        return f"{self.row} ({terminal_heatmap.printable_token(self.queries[self.row])})"

    @property
    def entropies(self) -> Float[np.ndarray, " head"]:
        """The entropy of the row in each head (nats); infinity for a head whose row is all 0."""
        rows = torch.from_numpy(np.ascontiguousarray(self.weights[None, :, self.row, None]))
        return np.where(self.weights[:, self.row].any(axis=1), entropy(rows)[0, :, 0], np.inf)

    def title(self, head: int | str) -> str:
        """Return a title with the layer and the head, without the head where there is only one."""
        if self.kind == "answer":
            return "influence on the answer at each position"
        if not self.has_heads or (len(self.weights) == 1 and self.kind in ("mixing", "traced")):
            return self.name
        return f"{self.name}, {'mean of heads' if head == MEAN else f'head {head}'}"


@dataclass(frozen=True, eq=False)
class ShownMap:
    """The map that is shown, the head that is shown of it, and the reason for the choice."""

    source: str
    layer: int | None
    head: int | str
    """A number, or "mean"."""
    row: int
    """The row that is marked."""
    title: str
    measure: str
    """What the weights measure."""
    reason: str
    """The reason for the choice; empty where the user named the layer and the head."""
    axes: Axes
    map: AttentionMap = field(metadata=IN_PYTHON)

    @property
    def weights(self) -> Float[np.ndarray, "query key"]:
        """The weights that are shown."""
        weights = self.map.weights
        return weights.mean(axis=0) if isinstance(self.head, str) else weights[self.head]

    @classmethod
    def from_map(cls, attention_map: AttentionMap, head: int | str, reason: str = "") -> "ShownMap":
        """Return a map with the head that is shown of it."""
        return cls(
            source=attention_map.source,
            layer=attention_map.layer,
            head=head,
            row=attention_map.row,
            title=attention_map.title(head),
            measure=attention_map.measure,
            reason=reason,
            axes=attention_map.axes,
            map=attention_map,
        )


@dataclass(frozen=True, eq=False)
class TextMaps:
    """All maps of one text in one view, computed when first accessed."""

    loaded_run: LoadedRun
    text: str
    captured: ActivationCapture
    patterns: Sequence[Pattern]
    """The captured patterns, in the form of the record."""
    query: int
    view: str

    @cached_property
    def attention_maps(self) -> list[AttentionMap]:
        """The maps of the attention layers, in the order of a forward pass.

        Raises RequestError where the model or the text has no map of the view.
        """
        if self.view == "weights":
            return [self._map_from_pattern(p) for p in self.patterns if p.attention is not None]
        pattern_by_layer = self.captured.patterns
        if not pattern_by_layer:
            raise RequestError(
                f"the view `{self.view}` needs attention within the text, and no layer of "
                f"{self.loaded_run.record.name} has tokens see one another; take the view `weights`"
            )
        if self.view == "norms":
            return self._norm_maps()
        weights = [rearrange(pattern, "h q k -> 1 h q k") for pattern in pattern_by_layer.values()]
        if self.view == "rollout":
            return [
                self._map_from_weights(layer_rollout, "rollout", layer)
                for layer, layer_rollout in zip(pattern_by_layer, rollout(weights)[0], strict=True)
            ]
        if len(self.captured.inputs) > LONGEST:
            raise RequestError(
                f"the view `flow` takes at most {LONGEST} tokens, and the text has "
                f"{len(self.captured.inputs)}; the view `rollout` takes any number"
            )
        return [self._map_from_weights(attention_flow(weights)[0], "flow")]

    @cached_property
    def maps_without_attention(self) -> list[AttentionMap]:
        """The maps of the layers without attention, then the influence on the answers.

        They cost a forward pass for each position of the text. Empty in every view but `weights`.
        """
        if self.view != "weights":
            return []
        patterns = self.loaded_run.mixing_patterns(self.text, self.captured)
        return [self._map_from_pattern(pattern) for pattern in patterns]

    @property
    def all_maps(self) -> list[AttentionMap]:
        """All maps: those of `attention_maps`, then those of `maps_without_attention`."""
        return [*self.attention_maps, *self.maps_without_attention]

    def choose(self, layer: int | str | None = None, head: int | str | None = None) -> ShownMap:
        """Return the map of a layer and head, or the one with the sharpest row at the query.

        Raises RequestError for a layer or head that the model does not have.
        """
        if self.view in ("rollout", "flow"):
            return self._choose_mean_map(layer, head)
        if layer is None:
            return self._choose_sharpest_map(head)
        return _choose_head(self._map_of_layer(layer), head)

    def _choose_sharpest_map(self, head: int | str | None) -> ShownMap:
        """Return the map that is sharpest at the query, or the influence where no layer is linear.

        Attention within the text comes first, then other attention, then mixing matrices.
        """
        if self.attention_maps:
            text_maps = [
                attention_map for attention_map in self.attention_maps if attention_map.axes == TEXT
            ]
            candidates = text_maps or self.attention_maps
            are_all = len(candidates) == len(self.attention_maps)
            candidate_noun = "heads" if are_all else "heads of the encoder"
            return _choose_sharpest_layer(candidates, head, candidate_noun)
        mixing_matrices = [
            attention_map
            for attention_map in self.maps_without_attention
            if attention_map.kind == "mixing"
        ]
        if self.maps_without_attention and not mixing_matrices:
            return _choose_head(self.maps_without_attention[-1], head)
        return _choose_sharpest_layer(mixing_matrices, head, "mixing matrices")

    def _map_of_layer(self, layer: int | str) -> AttentionMap:
        """Return the map of a layer by its number or name, or the influence on the answers.

        Raises RequestError for a layer that the model does not have.
        """
        map_by_number = {
            attention_map.layer: attention_map for attention_map in self.attention_maps
        }
        if isinstance(layer, int) and layer in map_by_number:
            return map_by_number[layer]
        if layer == ANSWER and self.maps_without_attention:
            return self.maps_without_attention[-1]
        layer_maps = [
            attention_map
            for attention_map in self.maps_without_attention
            if attention_map.kind != "answer"
        ]
        map_by_number = map_by_number or dict(enumerate(layer_maps))
        if isinstance(layer, int) and layer in map_by_number:
            return map_by_number[layer]
        all_layer_maps = [*self.attention_maps, *layer_maps]
        matching_maps = [
            attention_map
            for attention_map in all_layer_maps
            if attention_map.source == layer or attention_map.source.startswith(f"{layer}.")
        ]
        if len(matching_maps) != 1:
            raise self._unknown_layer_error(layer, len(map_by_number), all_layer_maps)
        return matching_maps[0]

    def _choose_mean_map(self, layer: int | str | None, head: int | str | None) -> ShownMap:
        """Return the map of a view that averages heads: of `layer`, else after the last layer."""
        if head not in (None, MEAN):
            raise RequestError(
                f"head {head}: the view `{self.view}` is of the mean of all heads; leave it out"
            )
        if self.view == "flow" and layer is not None:
            raise RequestError(f"layer {layer}: the view `flow` is of all layers; leave it out")
        maps = self.attention_maps
        if layer is None:
            reason = f"after the last of {len(maps)} attention layers" if len(maps) > 1 else ""
            return ShownMap.from_map(maps[-1], MEAN, reason)
        matching_maps = [
            attention_map
            for attention_map in maps
            if layer in (attention_map.layer, attention_map.path, attention_map.source)
        ]
        if len(matching_maps) != 1:
            raise self._unknown_layer_error(layer, len(maps), maps)
        return ShownMap.from_map(matching_maps[0], MEAN)

    def _unknown_layer_error(
        self, layer: int | str | None, num_layers: int, maps: Sequence[AttentionMap]
    ) -> RequestError:
        """Return the error for a layer that no single map matches."""
        if not num_layers:
            return RequestError(
                f"layer {layer}: no layer of {self.loaded_run.record.name} has a map; leave it "
                f"out, or give {ANSWER}, for the influence on the answers"
            )
        layer_names = [
            *(attention_map.path for attention_map in maps),
            *([ANSWER] if self.view == "weights" else []),
        ]
        return RequestError(
            f"layer {layer}: expected a number below {num_layers}, one of {', '.join(layer_names)}"
        )

    def _norm_maps(self) -> list[AttentionMap]:
        """Compute the norms of what each head reads, in the layers whose heads have values."""
        run = self.loaded_run
        batch = to_device(
            run.objective.inspection_batch(run.batch_of_text(self.text)), run.subject.device
        )
        try:
            norms_by_layer = weighted_norms(run.subject, batch)
        except LookupError:
            norms_by_layer = {}
        shares_by_layer = {
            layer: value_norms.shares[0]
            for layer, value_norms in norms_by_layer.items()
            if layer.axes == TEXT
        }
        if not shares_by_layer:
            raise RequestError(
                "the view `norms` needs heads with values of their own width, and no layer of "
                f"{run.record.name} that reads the text has any; take the view `weights`"
            )
        return [
            self._map_from_weights(shares, "norms", layer)
            for layer, shares in shares_by_layer.items()
        ]

    def _map_from_pattern(self, pattern: Pattern) -> AttentionMap:
        """Return a recorded pattern as a map."""
        layer = pattern.layer
        if layer is None:
            has_encoder = self.loaded_run.model.arrangement.encoder
            name, axes = ANSWER, Axes("prefix" if has_encoder else "inputs", "inputs")
        else:
            name, axes = layer.name, layer.axes
        if pattern.mixing is not None:
            kind: Kind = "mixing" if pattern.mixing.is_linear else "traced"
        else:
            kind = "answer" if layer is None else "attention"
        layer_index = None if pattern.attention is None else pattern.attention.index
        return AttentionMap(
            source=pattern.source,
            layer=layer_index,
            queries=list(pattern.queries),
            keys=list(pattern.tokens),
            weights=pattern.weights,
            kind=kind,
            name=name,
            axes=axes,
            row=self.query if axes.queries == "inputs" else pattern.answer_position,
            path="" if layer is None else layer.path,
        )

    def _map_from_weights(
        self,
        weights: Float[Tensor, "*head query key"],
        kind: Kind,
        layer: AttentionLayer | None = None,
    ) -> AttentionMap:
        """Return weights that a view computed from the attention within the text, as a map."""
        token_names = self.loaded_run.objective.inputs
        tokens = [token_names[int(token_id)] for token_id in self.captured.inputs]
        if weights.ndim == 2:
            weights = rearrange(weights, "q k -> 1 q k")
        source = kind if layer is None else f"{layer.path}.{kind}"
        layer_index = None if layer is None else layer.index
        name = f"{kind} through all attention layers" if layer is None else layer.name
        if kind == "rollout":
            name = f"rollout after {name}"
        return AttentionMap(
            source=source,
            layer=layer_index,
            queries=tokens,
            keys=tokens,
            weights=weights.float().cpu().numpy(),
            kind=kind,
            name=name,
            axes=TEXT,
            row=self.query,
            path="" if layer is None else layer.path,
        )


def _choose_sharpest_layer(
    maps: Sequence[AttentionMap], head: int | str | None, candidate_noun: str
) -> ShownMap:
    """Choose the layer with the head whose row at the query has the least entropy."""
    sharpest_map = min(maps, key=lambda attention_map: attention_map.entropies.min())
    shown_map = _choose_head(sharpest_map, head)
    if sum(len(attention_map.weights) for attention_map in maps) == 1:
        return shown_map
    if head is None:
        return replace(
            shown_map, reason=f"of all {candidate_noun}, the sharpest at query {sharpest_map.query}"
        )
    if len(maps) == 1:
        return shown_map
    reason = f"of all {candidate_noun}, its layer has the sharpest at query {sharpest_map.query}"
    return replace(shown_map, reason=reason)


def _choose_head(attention_map: AttentionMap, head: int | str | None) -> ShownMap:
    """Choose a head of a map: the one that the user named, or the sharpest at the query."""
    num_heads = len(attention_map.weights)
    if head is None:
        sharpest_head = int(attention_map.entropies.argmin())
        reason = (
            f"of its {num_heads} heads, the sharpest at query {attention_map.query}"
            if num_heads > 1
            else ""
        )
        return ShownMap.from_map(attention_map, sharpest_head, reason)
    if head != MEAN and not (isinstance(head, int) and 0 <= head < num_heads):
        raise RequestError(
            f"head {head}: {attention_map.name} has {num_heads} head{'s' * (num_heads > 1)}; give "
            f"a number below {num_heads}, or {MEAN}"
        )
    return ShownMap.from_map(attention_map, head)
