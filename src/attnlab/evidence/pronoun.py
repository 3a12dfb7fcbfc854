"""Whether "it" looks at the noun that it means, and whether the answer hangs on that look."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext

import torch
from jaxtyping import Bool
from torch import Tensor

from attnlab.dataset.pronoun import Pronoun, noun_places
from attnlab.evidence.base import Evidence
from attnlab.interp.attention import every_head, record_patterns
from attnlab.interp.attribution import influence
from attnlab.interp.contrast import HeadAttention, Places, pointer, to_places, twin_flip
from attnlab.interp.interventions import cut
from attnlab.interp.observe import undisturbed
from attnlab.layers import HeadRef
from attnlab.objective.classification import Classification
from attnlab.run_record.finding import Finding, Label, NamedHead, Presentation
from attnlab.split import Batch, Split

QUERIES = {"": "it", "end_": "“.”"}
"""Where a number is read, by the prefix of its key: at the pronoun, and at the last token."""


class PronounResolution(Evidence):
    """Measures what makes a picture of "it" evidence, on the sentences that were held out.

    `twins` is the share of twin pairs (one sentence, its adjective swapped for a held-out one that
    means the other noun) answered rightly in both senses. `influence_right` and `influence_wrong`
    are the shares of the two nouns in the answer, by gradient x input. A test split so small that
    no sentence of it has a twin gives neither `twins` nor `flip`.

    A model with attention has more. One head is chosen, the one that points right most often on
    validation (as Clark et al. 2019 choose heads, by their accuracy): `it`. On the test split,
    `right` and `wrong` are the attention that it pays from "it" to the two nouns, and `pointer` the
    share of sentences with right > wrong. `flip` is the share of twin pairs in which it points
    right in both. `cut_right` and `cut_wrong` are the accuracies without the edge from "it" to the
    right, or wrong, noun, in all layers and heads. A causal model answers at the last token, so it
    has the same once more for the query there: the head `end`, and `end_right`, ...
    """

    objective_type, dataset_type = Classification, Pronoun
    presentation = Presentation(
        labels=(
            *(
                Label(f"{prefix}{key}", text.format(token), needs_attention=not prefix)
                for prefix, token in QUERIES.items()
                for key, text in (
                    ("cut_right", "… with {0} → meant cut"),
                    ("cut_wrong", "… with {0} → other cut"),
                    ("flip", "flip rate, from {0}"),
                    ("right", "weight {0} → meant"),
                    ("wrong", "weight {0} → other"),
                )
            ),
            Label("twins", "both twins right"),
            Label("influence_right", "influence of meant"),
            Label("influence_wrong", "influence of other"),
        ),
        opens_at=("end", "it"),
        taken_away="the edge is cut",
    )

    def measure(self) -> Finding:
        dataset = self.subject.dataset
        assert isinstance(dataset, Pronoun)
        validation, test = dataset.splits["validation"], dataset.splits["test"]
        pairs = dataset.twins()
        scalars, heads = self._influences(test), {}
        if len(pairs[0]):
            one, other = (self._answers(side) for side in pairs)
            scalars["twins"] = _mean(one & other)
        if not self.subject.model.attention_layers():
            return self.finding(scalars)
        for prefix in QUERIES:
            at_end = prefix == "end_"
            if at_end and not self.subject.objective.causal:
                continue
            best = int(pointer(*self._attention(validation, at_end)).argmax())
            attention = self._attention(test, at_end)
            measured = {
                "right": _mean(attention.right[:, best]),
                "wrong": _mean(attention.wrong[:, best]),
                "pointer": float(pointer(*attention)[best]),
                "cut_right": _mean(self._answers(test, at_end, cut_right=True)),
                "cut_wrong": _mean(self._answers(test, at_end, cut_right=False)),
            }
            if len(pairs[0]):
                sides = [self._attention(side, at_end) for side in pairs]
                measured["flip"] = float(twin_flip(*sides)[best])
            scalars |= {f"{prefix}{name}": value for name, value in measured.items()}
            heads[_name(prefix)] = _named(every_head(self.subject.model)[best], prefix, scalars)
        return self.finding(scalars, heads)

    @classmethod
    def from_first_records(cls, scalars: Mapping[str, float]) -> Finding:
        heads = {}
        for prefix in QUERIES:
            if f"{prefix}layer" in scalars:
                head = HeadRef(int(scalars[f"{prefix}layer"]), int(scalars[f"{prefix}head"]))
                heads[_name(prefix)] = _named(head, prefix, scalars)
        numbers = {key: value for key, value in scalars.items() if not key.endswith(INDICES)}
        return cls.finding(numbers, heads)

    def _questions(self, split: Split, at_end: bool) -> Iterator[tuple[Batch, Places]]:
        """Yield what the model is asked, and where the words that matter stand."""
        for examples, asked in self.subject.questions(split):
            assert examples.at is not None
            assert examples.valid is not None
            query = examples.valid.sum(dim=1) - 1 if at_end else examples.at[:, 0]
            yield asked, Places(query, *noun_places(examples.inputs, examples.targets[:, 0]))

    def _attention(self, split: Split, at_end: bool) -> HeadAttention:
        """Return what the query pays to the two nouns, by head, in the order of `every_head`."""
        model, parts = self.subject.model, []
        with self.subject.observed():
            for asked, places in self._questions(split, at_end):
                with record_patterns(model) as patterns:
                    model(*asked.given)
                by_layer = [
                    torch.stack(to_places(patterns[layer], places))
                    for layer in model.attention_layers()
                ]
                parts.append(torch.cat(by_layer, dim=-1).cpu())
        return HeadAttention(*torch.cat(parts, dim=1))

    def _answers(
        self, split: Split, at_end: bool = False, cut_right: bool | None = None
    ) -> Bool[Tensor, " sentence"]:
        """Return whether each sentence is answered rightly, with an edge cut if that is asked."""
        model, parts = self.subject.model, []
        with self.subject.observed():
            for asked, places in self._questions(split, at_end):
                key = places.right if cut_right else places.wrong
                with nullcontext() if cut_right is None else cut(model, places.query, key):
                    logits, _ = model(*asked.given)
                parts.append((logits.argmax(dim=-1) == asked.targets)[:, 0].cpu())
        return torch.cat(parts)

    def _influences(self, split: Split) -> dict[str, float]:
        parts = []
        with undisturbed(self.subject.model), self.subject.precision():
            for asked, places in self._questions(split, at_end=False):
                _, shares = influence(self.subject.model, asked)
                row = torch.arange(len(shares), device=shares.device)
                parts.append(torch.stack([shares[row, places.right], shares[row, places.wrong]]))
        right, wrong = torch.cat(parts, dim=1).cpu()
        return {"influence_right": _mean(right), "influence_wrong": _mean(wrong)}


INDICES = ("layer", "head")
"""How keys end under which records of 0.1 have the numbers of layers and heads."""


def _name(prefix: str) -> str:
    return prefix.removesuffix("_") or "it"


def _named(head: HeadRef, prefix: str, scalars: Mapping[str, float]) -> NamedHead:
    role = f"points from {QUERIES[prefix]} to the noun that is meant"
    return NamedHead(
        head, role, scalars[f"{prefix}right"], {"edge cut": scalars[f"{prefix}cut_right"]}
    )


def _mean(values: Tensor) -> float:
    return values.double().mean().item()
