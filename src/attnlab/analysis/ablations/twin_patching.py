"""How far the answer goes when a head looks as it does on the twin of its input."""

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
    """The logit difference of A with patterns of B, and how far it went from A's to B's."""

    patched: float
    effect: float
    """0: as A; 1: as B."""


@dataclass(frozen=True)
class HeadEffect:
    """The effect of one head's pattern."""

    layer: int
    name: str
    head: int
    patched: float
    effect: float


@dataclass(frozen=True)
class TwinReport(Report):
    """What each head's pattern of the twin does to the answer."""

    run: str
    step: int
    pairs: int
    """Of an input A and its twin B: all of the test split."""
    query: str | None
    """The query whose row alone is given: a token, or "asked"; None: all rows."""
    one: float
    """The logit of A's answer less that of B's, mean over pairs, of the inputs A."""
    other: float
    """The same of the inputs B."""
    heads: Sequence[HeadEffect]
    together: Effect
    """Of all of these heads at once."""


def twin_report(
    loaded_run: LoadedRun,
    *,
    query: str | None = None,
    heads: Sequence[HeadRef] | None = None,
) -> TwinReport:
    """Patch each chosen head (None: all) by itself, then all of them, into each input A.

    `query` is a token, of one that is there twice the last, or "asked": the row of this query alone
    is then given. Raises RequestError for data without twins, and for a query that not all have.
    """
    chosen, twins = require_heads(loaded_run, heads), _twins(loaded_run)
    query_at = None if query is None else query_positions(query, loaded_run, twins)
    try:
        patches = [
            patch(loaded_run.subject, twins, some, query_at=query_at)
            for some in (*([head] for head in chosen), chosen)
        ]
        effects = [_effect(each) for each in patches]
    except ValueError as error:
        raise RequestError(f"--twins: {error}") from error
    names = layer_names(loaded_run)
    return TwinReport(
        run=loaded_run.record.name,
        step=loaded_run.step,
        pairs=len(twins[0]),
        query=query,
        one=float(patches[-1].one.mean()),
        other=float(patches[-1].other.mean()),
        heads=[
            HeadEffect(head.layer, names[head.layer], head.head, each.patched, each.effect)
            for head, each in zip(chosen, effects[:-1], strict=True)
        ],
        together=effects[-1],
    )


def query_positions(query: str, loaded_run: LoadedRun, twins: tuple[Split, Split]) -> QueryAt:
    """Return what finds the query of each sequence; of a token that is there twice, the last.

    Raises RequestError for a token that a pair does not have in both of its sequences.
    """
    if query == ASKED:
        return lambda batch: asked_position(loaded_run.objective.ask(batch))
    names = list(loaded_run.objective.inputs)
    if query not in names:
        raise RequestError(f"--query {query}: the run has no such token; or give `{ASKED}`")
    token = names.index(query)

    def last_position(batch: Batch) -> Int[Tensor, " batch"]:
        matches = batch.inputs == token
        if batch.valid is not None:
            matches &= batch.valid
        last = batch.inputs.shape[1] - 1 - matches.flip(1).int().argmax(dim=1)
        return torch.where(matches.any(dim=1), last, -1)

    positions = torch.stack([last_position(side[: len(side)]) for side in twins])
    if missing := int((positions.amin(dim=0) < 0).sum()):
        raise RequestError(
            f"--query {query}: {missing} of {len(twins[0])} twin pairs do not have it in both; "
            "name a token that all have"
        )
    return last_position


def asked_position(asked: Batch) -> Int[Tensor, " batch"]:
    """Return the position that each sequence is asked at.

    Raises ValueError for several questions to one sequence.
    """
    if asked.at is None or asked.at.shape[1] != 1:
        raise ValueError(f"--query {ASKED} needs one question for each sequence; name a token")
    return asked.at[:, 0]


def _effect(patched: Patched) -> Effect:
    return Effect(float(patched.patched.mean()), patched.effect)


def _twins(loaded_run: LoadedRun) -> tuple[Split, Split]:
    try:
        twins = loaded_run.dataset.twins()
    except ValueError as error:
        raise RequestError(f"--twins: {error}") from error
    if not len(twins[0]):
        raise RequestError("--twins: no test sequence has a twin; train with more of them")
    return twins
