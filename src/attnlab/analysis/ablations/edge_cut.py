"""The model's answer to a text where one token does not see another."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attnlab.analysis.ablations.request import require_heads
from attnlab.analysis.report import Report
from attnlab.analysis.token_position import token_position
from attnlab.errors import RequestError
from attnlab.interp.interventions import knock_out_edge
from attnlab.layers import HeadRef
from attnlab.loaded_run import LoadedRun

LIKELIEST = 3
"""The number of likeliest answers that are reported of each case."""
End = int | str
"""An end of an edge: a token (its last occurrence) or a position."""


@dataclass(frozen=True)
class CutHead:
    """A head in which an edge is cut, and the edge's attention weight before the cut."""

    layer: int
    head: int
    weight: float


@dataclass(frozen=True)
class ChangedAnswer:
    """The probability of an output with the edge and without it."""

    output: str
    before: float
    after: float


@dataclass(frozen=True)
class EdgeCutReport(Report):
    """The answers to a text with an edge, and without it."""

    run: str
    step: int
    begins: bool
    """Whether the answer is the first token of a sequence."""
    tokens: Sequence[str]
    query: int
    key: int
    layers: Sequence[int]
    heads: Sequence[CutHead]
    answers: Sequence[ChangedAnswer]


def edge_cut_report(
    loaded_run: LoadedRun,
    text: str,
    edge: str | tuple[End, End],
    *,
    heads: Sequence[HeadRef] | None = None,
) -> EdgeCutReport:
    """Return the answers to a text with an edge, and without it in the chosen heads.

    The edge is "QUERY:KEY" or a pair, with tokens or positions. Without `heads`, it is cut in all
    heads that read the text. Raises RequestError for a token or head that does not exist, and where
    the query would see nothing.
    """
    selected_heads, model = require_heads(loaded_run, heads), loaded_run.model
    captured, _ = loaded_run.capture(text)
    tokens = [loaded_run.objective.inputs[int(token_id)] for token_id in captured.inputs]
    query, key = parse_edge(edge, tokens)
    # In a model with an encoder, only the encoder's layers have the text's tokens as queries.
    pattern_by_layer = {layer.index: pattern for layer, pattern in captured.patterns.items()}
    if not pattern_by_layer:
        raise RequestError(f"edge: no layer of {loaded_run.record.name} has tokens see one another")
    head_layers = {head.layer for head in selected_heads}
    if heads is not None and head_layers - set(pattern_by_layer):
        raise RequestError(
            f"layers {_join_numbers(head_layers)}: tokens of the text see one another in "
            f"layers {_join_numbers(pattern_by_layer)}"
        )
    if query < key and model.causal and not model.arrangement.encoder:
        raise RequestError(
            f"edge {_edge_text(edge)}: a causal model does not see {tokens[key]!r} at {key} from "
            f"{tokens[query]!r} at {query}, which comes before it"
        )
    heads_by_layer: dict[int, list[int]] = {}
    for head in selected_heads:
        if head.layer in pattern_by_layer:
            heads_by_layer.setdefault(head.layer, []).append(head.head)
    try:
        logits_after = _logits_without_edge(loaded_run, text, query, key, heads_by_layer)
    except ValueError as error:
        raise RequestError(f"edge {_edge_text(edge)}: {error}") from error
    return EdgeCutReport(
        run=loaded_run.record.name,
        step=loaded_run.step,
        begins=loaded_run.dataset.answer_length is not None,
        tokens=tokens,
        query=query,
        key=key,
        layers=sorted(heads_by_layer),
        heads=[
            CutHead(layer, head, float(pattern_by_layer[layer][head, query, key]))
            for layer, layer_heads in heads_by_layer.items()
            for head in layer_heads
        ],
        answers=_compare_answers(loaded_run.objective.outputs, captured.answer, logits_after),
    )


def parse_edge(edge: str | tuple[End, End], tokens: Sequence[str]) -> tuple[int, int]:
    """Return the positions of the query and the key; a token of "QUERY:KEY" may contain a colon.

    Raises RequestError for an end that the text does not have.
    """
    if isinstance(edge, str):
        texts = edge.split(":")
        possible_ends: list[tuple[End, End]] = [
            (":".join(texts[:index]), ":".join(texts[index:])) for index in range(1, len(texts))
        ]
    else:
        possible_ends = [edge]
    for query_end, key_end in possible_ends:
        query, key = token_position(query_end, tokens), token_position(key_end, tokens)
        if query is not None and key is not None:
            return query, key
    raise RequestError(
        f"edge {_edge_text(edge)}: expected QUERY:KEY, each of {' '.join(tokens)}, or a position "
        f"below {len(tokens)}"
    )


def _edge_text(edge: str | tuple[End, End]) -> str:
    """Return an edge as messages show it: QUERY:KEY."""
    if isinstance(edge, str):
        return edge
    query_end, key_end = edge
    return f"{query_end}:{key_end}"


def _logits_without_edge(
    loaded_run: LoadedRun,
    text: str,
    query: int,
    key: int,
    heads_by_layer: Mapping[int, Sequence[int]],
) -> Float[Tensor, " output"]:
    """Return the logits of the answer where the query does not see the key in the heads."""
    query_tensor, key_tensor = torch.tensor([query]), torch.tensor([key])
    with ExitStack() as cuts:
        for layer, layer_heads in heads_by_layer.items():
            cut = knock_out_edge(loaded_run.model, query_tensor, key_tensor, [layer], layer_heads)
            cuts.enter_context(cut)
        return loaded_run(text)


def _compare_answers(
    output_names: Sequence[str],
    logits_before: Float[Tensor, " output"],
    logits_after: Float[Tensor, " output"],
) -> list[ChangedAnswer]:
    """Return the likeliest outputs of both answers, the likeliest with the edge first."""
    p_before, p_after = logits_before.float().softmax(dim=0), logits_after.float().softmax(dim=0)
    likeliest_outputs = {
        int(output)
        for p in (p_before, p_after)
        for output in p.topk(min(LIKELIEST, len(p))).indices
    }
    return [
        ChangedAnswer(output_names[output], float(p_before[output]), float(p_after[output]))
        for output in sorted(likeliest_outputs, key=lambda output: -float(p_before[output]))
    ]


def _join_numbers(layers: Sequence[int] | set[int] | dict[int, Tensor]) -> str:
    return ",".join(map(str, sorted(layers)))
