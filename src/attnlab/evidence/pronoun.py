"""Whether "it" looks at the noun that it means, and whether the answer hangs on that look."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from attnlab.dataset.pronoun import Pronoun, noun_places
from attnlab.evidence.base import device_of, moved, undisturbed
from attnlab.evidence.influence import influence
from attnlab.evidence.intervene import attention_layers, cut
from attnlab.evidence.twins import Looks, Places, looks, pointer, twin_flip
from attnlab.model.base import Model
from attnlab.objective.base import Objective
from attnlab.objective.classification import Classification
from attnlab.split import Batch, Split
from attnlab.tap import record

BATCH = 256


def pronoun(model: Model, objective: Classification, dataset: Pronoun) -> dict[str, float]:
    """Measure what makes a picture of "it" evidence, on the sentences that were held out.

    `twins` is the share of twin pairs (one sentence, its adjective swapped for a held-out one that
    means the other noun) answered rightly in both senses. `influence_right` and `influence_wrong`
    are the shares of the two nouns in the answer, by gradient x input. A test split so small that
    no sentence of it has a twin gives neither `twins` nor `flip`.

    A model with attention has more. One head is chosen, the one that points right most often on
    validation (as Clark et al. 2019 choose heads, by their accuracy): `layer` and `head`. On the
    test split, `right` and `wrong` are the attention that it pays from "it" to the two nouns, and
    `pointer` the share of sentences with right > wrong. `flip` is the share of twin pairs in which
    it points right in both. `cut_right` and `cut_wrong` are the accuracies without the edge from
    "it" to the right, or wrong, noun, in all layers and heads. A causal model answers at the last
    token, so it has the same once more for the query there: `end_right`, ...
    """
    validation, test = dataset.splits["validation"], dataset.splits["test"]
    sides = dataset.twins()
    with undisturbed(model):
        found = _influences(model, objective, test)
        if len(sides[0]):
            right = [_answers(model, objective, side) for side in sides]
            found["twins"] = _mean(right[0] & right[1])
        if not attention_layers(model):
            return found
        for prefix, at_end in (("", False), ("end_", True)):
            if at_end and not objective.causal:
                continue
            masses = _masses(model, objective, validation, at_end)
            best = int(pointer(*masses.looks).argmax())
            test_masses = _masses(model, objective, test, at_end)
            layer, head = masses.heads[best]
            measured = {
                "layer": layer,
                "head": head,
                "right": _mean(test_masses.looks.right[:, best]),
                "wrong": _mean(test_masses.looks.wrong[:, best]),
                "pointer": pointer(*test_masses.looks)[best],
                "cut_right": _mean(_answers(model, objective, test, at_end, cut_right=True)),
                "cut_wrong": _mean(_answers(model, objective, test, at_end, cut_right=False)),
            }
            if len(sides[0]):
                pair = [_masses(model, objective, side, at_end).looks for side in sides]
                measured["flip"] = twin_flip(*pair)[best]
            found |= {f"{prefix}{name}": float(value) for name, value in measured.items()}
    return found


class Masses(NamedTuple):
    """The attention that the query pays to the two nouns, by head, layers in a row."""

    looks: Looks
    heads: list[tuple[int, int]]
    """(layer, head) of each column."""


def _batches(model: Model, objective: Objective, split: Split) -> Iterator[tuple[Batch, Batch]]:
    """Give the sentences as the data hold them, and as the model is asked."""
    for start in range(0, len(split), BATCH):
        batch = split.batch(np.arange(start, min(start + BATCH, len(split))))
        batch = moved(batch, device_of(model))
        yield batch, objective.ask(batch)


def _places(batch: Batch, at_end: bool) -> Places:
    assert batch.at is not None
    assert batch.valid is not None
    query = batch.valid.sum(dim=1) - 1 if at_end else batch.at[:, 0]
    return Places(query, *noun_places(batch.inputs, batch.targets[:, 0]))


@torch.no_grad()
def _masses(model: Model, objective: Objective, split: Split, at_end: bool) -> Masses:
    parts, heads = [], []
    for batch, asked in _batches(model, objective, split):
        places = _places(batch, at_end)
        with record(model, "*.pattern") as heard:
            model(*asked.given)
        by_layer = [torch.stack(looks(p, places)) for p in heard.values()]
        parts.append(torch.cat(by_layer, dim=-1).cpu())
        heads = [(i, h) for i, p in enumerate(heard.values()) for h in range(p.shape[1])]
    return Masses(Looks(*torch.cat(parts, dim=1)), heads)


@torch.no_grad()
def _answers(
    model: Model,
    objective: Objective,
    split: Split,
    at_end: bool = False,
    cut_right: bool | None = None,
) -> Bool[Tensor, " sentence"]:
    """Whether each sentence is answered rightly, with an edge cut if that is asked."""
    parts = []
    for batch, asked in _batches(model, objective, split):
        places = _places(batch, at_end)
        key = places.right if cut_right else places.wrong
        with nullcontext() if cut_right is None else cut(model, places.query, key):
            logits, _ = model(*asked.given)
        parts.append((logits.argmax(dim=-1) == asked.targets)[:, 0].cpu())
    return torch.cat(parts)


def _influences(model: Model, objective: Objective, split: Split) -> dict[str, float]:
    parts = []
    for batch, asked in _batches(model, objective, split):
        places, (_, shares) = _places(batch, at_end=False), influence(model, asked)
        row = torch.arange(len(shares), device=shares.device)
        parts.append(torch.stack([shares[row, places.right], shares[row, places.wrong]]).cpu())
    right, wrong = torch.cat(parts, dim=1)
    return {"influence_right": _mean(right), "influence_wrong": _mean(wrong)}


def _mean(values: Tensor) -> float:
    return values.double().mean().item()
