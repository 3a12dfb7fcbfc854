"""`attnlab ablate --twins`: how far the answer goes when a head looks as it does on the twin."""

from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from attnlab.commands.ablate.base import table
from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.evidence.intervene import Head, attention_layers
from attnlab.evidence.patching import Patched, patch
from attnlab.split import Batch, Split
from attnlab.trained import Trained

ASKED = "asked"
"""The name of the position that the model answers from."""
Place = Callable[[Batch], Int[Tensor, " batch"]]


def find(arguments: Namespace, loaded: Trained, chosen: Sequence[Head]) -> dict[str, Any]:
    """Patch each chosen head by itself, then all of them."""
    twins = _twins(loaded)
    query_at = None if arguments.query is None else _place(arguments.query, loaded, twins)

    def swap(heads: Sequence[Head]) -> Patched:
        asked = loaded.model, loaded.objective, twins, heads
        return patch(*asked, query_at=query_at, precision=loaded.precision)

    names = attention_layers(loaded.model)
    try:
        alone, together = [swap([head]) for head in chosen], swap(chosen)
        told = [_told(found) for found in (*alone, together)]
    except ValueError as error:
        raise RequestError(f"--twins: {error}") from error
    return {
        "pairs": len(twins[0]),
        "query": arguments.query,
        "one": float(together.one.mean()),
        "other": float(together.other.mean()),
        "heads": [
            {"layer": layer, "name": names[layer], "head": head, **effect}
            for (layer, head), effect in zip(chosen, told[:-1], strict=True)
        ],
        "together": told[-1],
    }


def show(console: Console, found: dict[str, Any]) -> None:
    """Print the effect of each head, and of all together."""
    where = {None: "", ASKED: ", at the query that is asked"}.get(
        found["query"], f", at the query {found['query']!r}"
    )
    console.print(f"{found['pairs']} twin pairs; A, with each head's pattern of its twin B{where}")
    shown = table("layer", "head", "difference", "effect")
    shown.add_row("A", "", f"{found['one']:+.3f}", "0.000")
    rows = [(f"{r['layer']} {r['name']}", str(r["head"]), r) for r in found["heads"]]
    for layer, head, row in (*rows, ("all of these", "", found["together"])):
        shown.add_row(layer, head, f"{row['patched']:+.3f}", f"{row['effect']:.3f}")
    shown.add_row("B", "", f"{found['other']:+.3f}", "1.000")
    console.print(shown)
    console.print("difference: the logit of A's answer less that of B's, mean over pairs;")
    console.print("effect: how far it went from that of A (0) to that of B (1)")


def _told(found: Patched) -> dict[str, float]:
    return {"patched": float(found.patched.mean()), "effect": found.effect}


def _twins(loaded: Trained) -> tuple[Split, Split]:
    try:
        twins = loaded.dataset.twins()
    except ValueError as error:
        raise RequestError(f"--twins: {error}") from error
    if not len(twins[0]):
        raise RequestError("--twins: no test sequence has a twin; train with more of them")
    return twins


def _place(query: str, loaded: Trained, twins: tuple[Split, Split]) -> Place:
    """Say where the query of each sequence stands; of a token that is there twice, the last."""
    if query == ASKED:
        return lambda batch: _asked(loaded.objective.ask(batch))
    tokens = list(loaded.objective.inputs)
    if query not in tokens:
        raise RequestError(f"--query {query}: the run has no such token; or give `{ASKED}`")
    number = tokens.index(query)

    def place(batch: Batch) -> Int[Tensor, " batch"]:
        there = batch.inputs == number
        if batch.valid is not None:
            there &= batch.valid
        last = batch.inputs.shape[1] - 1 - there.flip(1).int().argmax(dim=1)
        return torch.where(there.any(dim=1), last, -1)

    places = [place(side[: len(side)]) for side in twins]
    if missing := int((torch.stack(places).amin(dim=0) < 0).sum()):
        raise RequestError(
            f"--query {query}: {missing} of {len(places[0])} twin pairs do not have it in both; "
            "name a token that all have"
        )
    return place


def _asked(asked: Batch) -> Int[Tensor, " batch"]:
    if asked.at is None or asked.at.shape[1] != 1:
        raise ValueError(f"--query {ASKED} needs one question for each sequence; name a token")
    return asked.at[:, 0]
