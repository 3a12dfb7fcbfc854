"""The model's answer to a text where one token does not see another."""

from collections.abc import Sequence
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
    tokens = [loaded_run.objective.inputs[int(token)] for token in captured.inputs]
    edge_text = edge if isinstance(edge, str) else f"{edge[0]}:{edge[1]}"
    query, key = parse_edge(edge, tokens)
    # In a model with an encoder, only the encoder's layers have the text's tokens as queries.
    patterns = {layer.index: pattern for layer, pattern in captured.patterns.items()}
    if not patterns:
        raise RequestError(f"edge: no layer of {loaded_run.record.name} has tokens see one another")
    head_layers = {head.layer for head in selected_heads}
    if heads is not None and head_layers - set(patterns):
        raise RequestError(
            f"layers {_join_numbers(head_layers)}: tokens of the text see one another in "
            f"layers {_join_numbers(patterns)}"
        )
    if query < key and model.causal and not model.arrangement.encoder:
        raise RequestError(
            f"edge {edge_text}: a causal model does not see {tokens[key]!r} at {key} from "
            f"{tokens[query]!r} at {query}, which comes before it"
        )
    heads_by_layer: dict[int, list[int]] = {}
    for head in selected_heads:
        if head.layer in patterns:
            heads_by_layer.setdefault(head.layer, []).append(head.head)
    try:
        with ExitStack() as cuts:
            for layer, layer_heads in heads_by_layer.items():
                ends = (torch.tensor([query]), torch.tensor([key]))
                cuts.enter_context(knock_out_edge(model, *ends, [layer], layer_heads))
            logits_after = loaded_run(text)
    except ValueError as error:
        raise RequestError(f"edge {edge_text}: {error}") from error
    return EdgeCutReport(
        run=loaded_run.record.name,
        step=loaded_run.step,
        begins=loaded_run.dataset.answer_length is not None,
        tokens=tokens,
        query=query,
        key=key,
        layers=sorted(heads_by_layer),
        heads=[
            CutHead(layer, head, float(patterns[layer][head, query, key]))
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
        parts = edge.split(":")
        pairs: list[tuple[End, End]] = [
            (":".join(parts[:end]), ":".join(parts[end:])) for end in range(1, len(parts))
        ]
    else:
        pairs, edge = [edge], f"{edge[0]}:{edge[1]}"
    for pair in pairs:
        query, key = (token_position(end, tokens) for end in pair)
        if query is not None and key is not None:
            return query, key
    raise RequestError(
        f"edge {edge}: expected QUERY:KEY, each of {' '.join(tokens)}, or a position below "
        f"{len(tokens)}"
    )


def _compare_answers(
    outputs: Sequence[str], before: Float[Tensor, " output"], after: Float[Tensor, " output"]
) -> list[ChangedAnswer]:
    """Return the likeliest outputs of both answers, the likeliest with the edge first."""
    p_before, p_after = (logits.float().softmax(dim=0) for logits in (before, after))
    likeliest = {
        int(output)
        for p in (p_before, p_after)
        for output in p.topk(min(LIKELIEST, len(p))).indices
    }
    ordered = sorted(likeliest, key=lambda output: -float(p_before[output]))
    return [
        ChangedAnswer(outputs[output], float(p_before[output]), float(p_after[output]))
        for output in ordered
    ]


def _join_numbers(layers: Sequence[int] | set[int] | dict[int, Tensor]) -> str:
    return ",".join(map(str, sorted(layers)))
