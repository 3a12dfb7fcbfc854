"""Who looks at whom in a text, and what the model answers when it may not.

import attnlab
from attnlab.analysis.attention_report import attention_report

run = attnlab.load("pronoun-multihead")
report = attention_report(run, "The animal didn't cross the street because it was too tired.")
print(report.shown.title, report.shown.why)       # the head that is sharpest at "it"
print(report.cuts[0].answer)                      # the answer without its largest edge
attention_report(run, "...", query="it", view="rollout").shown.weights  # (query, key)

A map is never shown alone: beside it stands the answer without the edge. Layers have the numbers of
`model.attention_layers()`, or are named by their path, and the layer `answer` is the influence of
each token on the answer at each position, by |gradient x input|. Without a head, that is shown
whose row at the query is sharpest, of least entropy. Without a layer, it is the layer that has the
sharpest of all heads, also where another head is named; where nothing attends, that with the
sharpest mixing matrix, and where nothing mixes linearly, the influence on the answers is shown.

Views (`AttentionReport.view`) are of the attention within the text: `weights` as they are; `norms`,
the lengths of what a head reads of each token, as shares (Kobayashi et al. 2020); `rollout`, what
is in each position after each layer if attention were all that moves it, and `flow`, how much could
get there through all layers (Abnar & Zuidema 2020), of at most 64 tokens. Layers without attention
are left out of a rollout and of a flow. The edges that are cut are those with the most attention,
in every view.

JSON has schema, run, step, tokens, query (a position), answer [{"output", "p"}], heads [{"layer",
"head", "weights"}] (the rows of the query; of a rollout and a flow the head is null, of a flow the
layer too), influence (a share for each token), cuts [{"key", "answer"}], view, shown {"source",
"layer", "head" (a number, or "mean"), "row", "title", "measure", "why", "axes" {"queries",
"keys"}}, and maps [{"source", "layer" (null where nothing attends, and of a flow), "queries",
"keys", "weights" (head x query x key)}], all of what attends or mixes. Of a model with an encoder,
the heads are the encoder's; of an answer that is a sequence, the first token is told.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnlab.analysis.attention_maps import TEXT, VIEWS, AttentionMap, ShownMap, TextMaps
from attnlab.analysis.report import IN_PYTHON, Report, plain
from attnlab.analysis.token_position import token_position
from attnlab.errors import RequestError
from attnlab.interp.interventions import cut
from attnlab.loaded_run import LoadedRun
from attnlab.run_record.patterns import Pattern

CUTS = 3
"""Edges that are cut: those to the tokens that the query attends to most, over all heads."""


@dataclass(frozen=True)
class Answer:
    """An output of the model, and its probability."""

    output: str
    p: float


@dataclass(frozen=True)
class HeadRow:
    """What the query reads in one head."""

    layer: int | None
    """None of a view through all layers."""
    head: int | None
    """None of a view of the mean of all heads."""
    weights: Sequence[float]
    """Of each token."""


@dataclass(frozen=True)
class Cut:
    """What is answered where the query does not see a key, in all heads."""

    key: int
    answer: Sequence[Answer]


@dataclass(frozen=True, eq=False)
class AttentionReport(Report):
    """Who looks at whom in a text; `shown` and `maps` are computed when they are first read."""

    run: str
    step: int
    tokens: Sequence[str]
    query: int
    """A position."""
    answer: Sequence[Answer]
    """The likeliest outputs."""
    heads: Sequence[HeadRow]
    influence: Sequence[float]
    """The share of each token in the answer."""
    cuts: Sequence[Cut]
    view: str
    begins: bool = field(metadata=IN_PYTHON)
    """Whether the answer is the first token of a sequence."""
    of_encoder: bool = field(metadata=IN_PYTHON)
    """Whether the heads are those of an encoder."""
    text_maps: TextMaps = field(metadata=IN_PYTHON, repr=False)
    layer: int | str | None = field(metadata=IN_PYTHON, default=None)
    head: int | str | None = field(metadata=IN_PYTHON, default=None)

    @cached_property
    def shown(self) -> ShownMap:
        """The map that is shown, and why."""
        return self.text_maps.choose(self.layer, self.head)

    @cached_property
    def maps(self) -> list[AttentionMap]:
        """All of what attends or mixes, which costs a pass for each position of the text."""
        return self.text_maps.all

    @property
    def patterns(self) -> Sequence[Pattern]:
        """What tokens of the text see of one another, in the form of the record, and influence."""
        patterns = self.text_maps.patterns
        return [p for p in patterns if p.layer is None or p.layer.axes == TEXT]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON has it, with all maps."""
        return {**super().to_json(), "shown": plain(self.shown), "maps": plain(self.maps)}


def attention_report(
    loaded_run: LoadedRun,
    text: str,
    query: int | str | None = None,
    layer: int | str | None = None,
    head: int | str | None = None,
    view: str = "weights",
) -> AttentionReport:
    """Return who looks at whom in a text, and the answer without the query's largest edges.

    `query` is a token (the last, if it stands there twice) or its position; None is where the model
    answers. `layer` is a number, a path or "answer", `head` a number or "mean"; None chooses the
    sharpest. Raises RequestError for what is not there, and for a text or a model that a view does
    not fit.
    """
    if view not in VIEWS:
        raise RequestError(f"view {view}: expected one of {', '.join(VIEWS)}")
    captured, patterns = loaded_run.capture(text)
    tokens = [loaded_run.objective.inputs[int(token)] for token in captured.inputs]
    position = query_position(query, tokens, captured.asked_at)
    maps = TextMaps(loaded_run, text, captured, patterns, position, view)
    if (layer, head) != (None, None):
        # What is not there is refused here, and not where the map is first read.
        maps.choose(layer, head)
    return AttentionReport(
        run=loaded_run.record.name,
        step=loaded_run.step,
        tokens=tokens,
        query=position,
        answer=_answer(loaded_run, captured.answer),
        heads=[
            HeadRow(each.layer, head if each.by_head else None, rows[position].tolist())
            for each in maps.attending
            if each.axes == TEXT
            for head, rows in enumerate(each.weights)
        ],
        influence=captured.influence.tolist(),
        cuts=_cuts(maps),
        view=view,
        begins=loaded_run.dataset.answer_length is not None,
        of_encoder=loaded_run.model.arrangement.encoder,
        text_maps=maps,
        layer=layer,
        head=head,
    )


def query_position(query: int | str | None, tokens: Sequence[str], asked_at: int) -> int:
    """Return the position of a query. Raises RequestError for one that the text does not have."""
    position = asked_at if query is None else token_position(query, tokens)
    if position is None:
        raise RequestError(
            f"--query {query}: expected one of {' '.join(tokens)}, or a position below "
            f"{len(tokens)}"
        )
    return position


def _cuts(maps: TextMaps) -> list[Cut]:
    """Answer without each of the edges to which the query attends most in the text."""
    patterns, run, query = maps.captured.patterns, maps.loaded_run, maps.query
    if not patterns:
        return []
    total = torch.stack([p[:, query].sum(dim=0) for p in patterns.values()]).sum(dim=0)
    num_visible = int((total > 0).sum())
    layers, cuts = [layer.index for layer in patterns], []
    for key in total.topk(min(CUTS, num_visible if num_visible > 1 else 0)).indices.tolist():
        with cut(run.model, torch.tensor([query]), torch.tensor([key]), layers):
            cuts.append(Cut(key, _answer(run, run(maps.text))))
    return cuts


def _answer(loaded_run: LoadedRun, logits: Float[Tensor, " output"]) -> list[Answer]:
    return [Answer(name, p) for name, p in loaded_run.answers(logits)]
