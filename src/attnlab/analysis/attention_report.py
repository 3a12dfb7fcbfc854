"""Which tokens of a text attend to which, and the model's answer with an attention edge cut.

import attnlab
from attnlab.analysis.attention_report import attention_report

run = attnlab.load("pronoun-multihead")
report = attention_report(run, "The animal didn't cross the street because it was too tired.")
print(report.shown.title, report.shown.reason)       # the head that is sharpest at "it"
print(report.cuts[0].answer)                      # the answer without that head's largest edge
attention_report(run, "...", query="it", view="rollout").shown.weights  # (query, key)

A map is always shown together with the answer without its largest edges: those of the row that is
drawn, of the head that is shown. They are cut in all layers and heads, as otherwise another head
could read the same token there. Layers are selected by
their number in `model.attention_layers()` or by their path; the layer `answer` is the influence of
each token on the answer at each position, by |gradient x input|. The default head is the one whose
row at the query is sharpest, that is, has the least entropy. The default layer is the one that has
the sharpest of all heads, also where another head is selected; in a model without attention, the
layer with the sharpest mixing matrix; and in a model without linear mixing, the influence on the
answers.

Views (`AttentionReport.view`) show the attention within the text: `weights`, the attention weights;
`norms`, the norms of what a head reads of each token, as shares (Kobayashi et al. 2020); `rollout`,
the share of each input in each position after each layer if attention alone moved information, and
`flow`, the maximum flow through all layers (Abnar & Zuidema 2020), for at most 64 tokens. A rollout
and a flow leave out the layers without attention. Where the shown map is of no head that attends
within the text (a rollout, a flow, a mixing matrix, the influence), the edges that are cut are
those with the most attention, summed over all heads; `Cut.chosen_by` says which rule it was.

For a model with an encoder, the rows are those of the encoder's heads; for a sequence-to-sequence
model, the answer is the first answer token. docs/json.md lists the fields of the report.

A report holds numbers and no model, so it stays as it is where the model is edited afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from attnlab.analysis.attention_maps import TEXT, VIEWS, AttentionMap, ShownMap, TextMaps
from attnlab.analysis.head_choice import Choice, parse_layer_and_head, parse_number_or_name
from attnlab.analysis.report import IN_PYTHON, Report
from attnlab.analysis.token_position import token_position
from attnlab.errors import RequestError
from attnlab.interp.interventions import knock_out_edge
from attnlab.layers import HeadRef
from attnlab.loaded_run import LoadedRun
from attnlab.run_record.pattern_table import Pattern

CUTS = 3
"""The number of edges that are cut."""
ALL_HEADS = "all heads together"
"""What the edges are chosen by where the shown map has no head that attends within the text."""


@dataclass(frozen=True)
class AnswerProbability:
    """An output of the model, and its probability."""

    output: str
    probability: float


@dataclass(frozen=True)
class HeadRow:
    """The row of the query in one head."""

    layer: int | None
    """None in a view through all layers."""
    head: int | None
    """None in a view of the mean of all heads."""
    weights: Sequence[float]
    """The weight of each token."""


@dataclass(frozen=True)
class Cut:
    """The answer where the query does not see a key, in all layers and heads."""

    key: int
    answer: Sequence[AnswerProbability]
    chosen_by: str
    """The head that is shown, whose edge it is, or "all heads together"."""
    weight: float
    """The weight of the edge there; of all heads together, the sum."""


@dataclass(frozen=True, eq=False)
class AttentionReport(Report):
    """Which tokens of a text attend to which."""

    run: str
    step: int
    tokens: Sequence[str]
    query: int
    """The position of the query."""
    answer: Sequence[AnswerProbability]
    """The likeliest outputs."""
    heads: Sequence[HeadRow]
    influence: Sequence[float]
    """The share of each token in the answer."""
    cuts: Sequence[Cut]
    view: str
    shown: ShownMap
    """The map that is shown, and the reason for the choice."""
    maps: Sequence[AttentionMap]
    """The maps of the attention layers, then those of the layers that mix, then the influence."""
    patterns: Sequence[Pattern] = field(metadata=IN_PYTHON, repr=False)
    """The patterns within the text, in the form of the record, and the influence."""
    begins: bool = field(metadata=IN_PYTHON)
    """Whether the answer is the first token of a sequence."""
    of_encoder: bool = field(metadata=IN_PYTHON)
    """Whether the heads are those of an encoder."""

    @property
    def layer_maps(self) -> list[AttentionMap]:
        """The maps of the attention layers by layer number; without any, those that mix."""
        maps_of_layers = [
            attention_map for attention_map in self.maps if attention_map.kind != "answer"
        ]
        maps_of_attention = [
            attention_map for attention_map in maps_of_layers if attention_map.is_attention
        ]
        if not maps_of_attention:
            return maps_of_layers
        return sorted(maps_of_attention, key=lambda attention_map: attention_map.layer or 0)


def attention_report(
    loaded_run: LoadedRun,
    text: str,
    query: Choice = None,
    layer: Choice = None,
    head: Choice | HeadRef = None,
    view: str = "weights",
    *,
    maps: bool = True,
) -> AttentionReport:
    """Return which tokens attend to which, and the answer without the query's largest edges.

    `query` is a token (its last occurrence) or a position; None is the position where the model
    answers. `layer` is a number, a path or "answer", `head` a number, "mean", or a `HeadRef` in
    place of both; None chooses the sharpest. The maps of the influence and of layers without
    attention cost a forward pass for each position of the text: without `maps`, a model that
    attends has only those of its attention. Raises RequestError for a query, layer or head that
    does not exist, and for a text or a model that a view does not fit.
    """
    if view not in VIEWS:
        raise RequestError(f"view {view}: expected one of {', '.join(VIEWS)}")
    layer_choice, head_choice = parse_layer_and_head(layer, head)
    captured, patterns = loaded_run.capture(text)
    tokens = [loaded_run.objective.inputs[int(token_id)] for token_id in captured.inputs]
    position = query_position(query, tokens, captured.answer_position)
    text_maps = TextMaps(loaded_run, text, captured, patterns, position, view)
    attention_maps, shown_map = (
        text_maps.attention_maps,
        text_maps.choose(layer_choice, head_choice),
    )
    return AttentionReport(
        run=loaded_run.record.name,
        step=loaded_run.step,
        tokens=tokens,
        query=position,
        answer=_likeliest_answers(loaded_run, captured.answer),
        heads=[
            HeadRow(
                attention_map.layer,
                head_index if attention_map.has_heads else None,
                head_weights[position].tolist(),
            )
            for attention_map in attention_maps
            if attention_map.axes == TEXT
            for head_index, head_weights in enumerate(attention_map.weights)
        ],
        influence=captured.influence.tolist(),
        cuts=_cut_largest_edges(text_maps, shown_map),
        view=view,
        shown=shown_map,
        maps=text_maps.all_maps if maps or not attention_maps else attention_maps,
        patterns=[p for p in patterns if p.layer is None or p.layer.axes == TEXT],
        begins=loaded_run.dataset.answer_length is not None,
        of_encoder=loaded_run.model.arrangement.encoder,
    )


def query_position(query: Choice, tokens: Sequence[str], answer_position: int) -> int:
    """Return the position of a query. Raises RequestError for a query that is not in the text."""
    if not isinstance(query, str):
        query = parse_number_or_name("query", query)
    position = answer_position if query is None else token_position(query, tokens)
    if position is None:
        raise RequestError(
            f"query {query}: expected one of {' '.join(tokens)}, or a position below {len(tokens)}"
        )
    return position


def _cut_largest_edges(text_maps: TextMaps, shown_map: ShownMap) -> list[Cut]:
    """Return the answers without each of the largest edges of the query in the map that is shown.

    Of a map that has no such edges, those with the most attention over all heads take their place.
    """
    pattern_by_layer, run, query = (
        text_maps.captured.patterns,
        text_maps.loaded_run,
        text_maps.query,
    )
    if not pattern_by_layer:
        return []
    query_rows = [pattern[:, query].sum(dim=0) for pattern in pattern_by_layer.values()]
    weight_by_key, chosen_by = torch.stack(query_rows).sum(dim=0), ALL_HEADS
    # Without its only key, a query would see nothing.
    if int((weight_by_key > 0).sum()) < 2:
        return []
    if shown_map.map.kind in ("attention", "norms") and shown_map.axes == TEXT:
        weight_by_key, chosen_by = torch.from_numpy(shown_map.weights[query]), shown_map.title
    num_cuts = min(CUTS, int((weight_by_key > 0).sum()))
    layer_indices = [layer.index for layer in pattern_by_layer]
    cuts = []
    for key in weight_by_key.topk(num_cuts).indices.tolist():
        with knock_out_edge(run.model, torch.tensor([query]), torch.tensor([key]), layer_indices):
            answer = _likeliest_answers(run, run(text_maps.text))
        cuts.append(Cut(key, answer, chosen_by, float(weight_by_key[key])))
    return cuts


def _likeliest_answers(
    loaded_run: LoadedRun, logits: Float[Tensor, " output"]
) -> list[AnswerProbability]:
    return [AnswerProbability(output, p) for output, p in loaded_run.answers(logits)]
