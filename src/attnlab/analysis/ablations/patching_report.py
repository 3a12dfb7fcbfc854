"""The change of the answer when a head has its pattern on the twin of the input."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from attnlab.analysis.ablations.request import layer_names, require_heads
from attnlab.analysis.report import Report
from attnlab.errors import RequestError
from attnlab.interp.patching import Patched, patch
from attnlab.layers import HeadRef
from attnlab.loaded_run import LoadedRun
from attnlab.split import Batch, Split

ASKED = "asked"
"""The name of the position that the model answers from."""
QueryAt = Callable[[Batch], Int[Tensor, " batch"]]


@dataclass(frozen=True)
class Effect:
    """The logit difference on A with patterns of B, and its position between those of A and B."""

    patched: float
    effect: float
    """0 where it equals A's, 1 where it equals B's."""


@dataclass(frozen=True)
class HeadEffect:
    """The effect of one head's pattern."""

    layer: int
    name: str
    head: int
    patched: float
    effect: float


@dataclass(frozen=True)
class PatchingReport(Report):
    """The effect on the answer of giving each head its pattern on the twin."""

    run: str
    step: int
    pairs: int
    """The number of pairs of an input A and its twin B: all of the test split."""
    query: str | None
    """The only query whose row is patched: a token, or "asked"; None: all rows."""
    original: float
    """The logit of A's answer minus that of B's on the inputs A, mean over pairs."""
    counterpart: float
    """The same on the inputs B."""
    heads: Sequence[HeadEffect]
    all_heads: Effect
    """The effect of patching all of these heads at once."""


def patching_report(
    loaded_run: LoadedRun,
    *,
    query: str | None = None,
    heads: Sequence[HeadRef] | None = None,
) -> PatchingReport:
    """Patch the twin's pattern into each selected head (None: all) alone, then into all of them.

    With `query`, a token (its last occurrence) or "asked", only the row of this query is patched.
    Raises RequestError for data without contrast pairs, and for a query that some sequence
    does not have.
    """
    selected_heads, pairs = require_heads(loaded_run, heads), _require_contrast_pairs(loaded_run)
    query_at = None if query is None else query_position_finder(query, loaded_run, pairs)
    try:
        patches = [
            patch(loaded_run.subject, pairs, patched_heads, query_at=query_at)
            for patched_heads in (*([head] for head in selected_heads), selected_heads)
        ]
        *head_effects, all_heads_effect = [_patch_effect(patched) for patched in patches]
    except ValueError as error:
        raise RequestError(f"twins: {error}") from error
    names = layer_names(loaded_run)
    return PatchingReport(
        run=loaded_run.record.name,
        step=loaded_run.step,
        pairs=len(pairs[0]),
        query=query,
        original=float(patches[-1].original.mean()),
        counterpart=float(patches[-1].counterpart.mean()),
        heads=[
            HeadEffect(head.layer, names[head.layer], head.head, effect.patched, effect.effect)
            for head, effect in zip(selected_heads, head_effects, strict=True)
        ],
        all_heads=all_heads_effect,
    )


def query_position_finder(query: str, loaded_run: LoadedRun, pairs: tuple[Split, Split]) -> QueryAt:
    """Return a function that finds the query's position (its last) in each sequence of a batch.

    Raises RequestError for a token that a pair does not have in both of its sequences.
    """
    if query == ASKED:
        return lambda batch: answer_positions(loaded_run.objective.training_batch(batch))
    token_names = list(loaded_run.objective.inputs)
    if query not in token_names:
        raise RequestError(f"query {query}: the run has no such token; or give `{ASKED}`")
    token_id = token_names.index(query)

    def last_positions(batch: Batch) -> Int[Tensor, " batch"]:
        is_query = batch.inputs == token_id
        if batch.valid is not None:
            is_query &= batch.valid
        positions = batch.inputs.shape[1] - 1 - is_query.flip(1).int().argmax(dim=1)
        return torch.where(is_query.any(dim=1), positions, -1)

    num_pairs = len(pairs[0])
    pair_positions = torch.stack([last_positions(split[: len(split)]) for split in pairs])
    num_missing = int((pair_positions.amin(dim=0) < 0).sum())
    if num_missing:
        raise RequestError(
            f"query {query}: {num_missing} of {num_pairs} twin pairs do not have it in both; "
            "name a token that all have"
        )
    return last_positions


def answer_positions(questions: Batch) -> Int[Tensor, " batch"]:
    """Return the position of each sequence at which the model answers.

    Raises ValueError where a sequence has several questions.
    """
    if questions.at is None or questions.at.shape[1] != 1:
        raise ValueError(f"query {ASKED} needs one question for each sequence; name a token")
    return questions.at[:, 0]


def _patch_effect(patched: Patched) -> Effect:
    return Effect(float(patched.patched.mean()), patched.normalised_effect)


def _require_contrast_pairs(loaded_run: LoadedRun) -> tuple[Split, Split]:
    """Return the inputs A and their twins B. Raises RequestError for data without twins."""
    try:
        pairs = loaded_run.dataset.contrast_pairs()
    except ValueError as error:
        raise RequestError(f"twins: {error}") from error
    if not len(pairs[0]):
        raise RequestError("twins: no test sequence has a twin; train with more of them")
    return pairs
