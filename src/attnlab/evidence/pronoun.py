"""Whether "it" attends to the noun that it means, and whether the answer depends on that edge."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext

import torch
from jaxtyping import Bool
from torch import Tensor

from attnlab.dataset.pronoun import Pronoun, noun_places
from attnlab.evidence.base import Evidence
from attnlab.interp.attention_taps import all_heads, record_patterns
from attnlab.interp.attribution import logits_and_influence
from attnlab.interp.contrast import (
    ContrastPlaces,
    HeadAttention,
    attention_on_places,
    pointing_share,
    twin_flip_share,
)
from attnlab.interp.interventions import knock_out_edge
from attnlab.interp.observe import isolated_evaluation
from attnlab.layers import HeadRef
from attnlab.objective.classification import Classification
from attnlab.run_record.finding import Finding, Label, NamedHead, Presentation
from attnlab.split import Batch, Split

QUERIES = {"": "it", "end_": "“.”"}
"""The query of a number, by the prefix of its key: the pronoun, and the last token."""


class PronounResolution(Evidence):
    """Measures what makes a picture of "it" evidence, on the sentences that were held out.

    `twins` is the share of twin pairs (one sentence, its adjective swapped for a held-out one that
    means the other noun) answered rightly in both senses. `influence_right` and `influence_wrong`
    are the shares of the two nouns in the answer, by gradient x input. A small test split, in which
    no sentence has a twin, has neither `twins` nor `flip`.

    A model with attention has more numbers. The head `it` is the one that points right most often
    on validation (as Clark et al. 2019 select heads, by their accuracy). On the test split, `right`
    and `wrong` are its attention weights from "it" to the two nouns, and `pointer` is the share of
    sentences with right > wrong. `flip` is the share of twin pairs in which it points right in
    both. `cut_right` and `cut_wrong` are the accuracies without the edge from "it" to the right, or
    wrong, noun, in all layers and heads. A causal model answers at the last token, so it has the
    same numbers for that query: the head `end`, and `end_right`, ...
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
    bounds = dict.fromkeys(("*right", "*wrong", "*pointer", "*flip", "twins"), (0, 1))

    def measure(self) -> Finding:
        dataset = self.subject.dataset
        assert isinstance(dataset, Pronoun)
        validation, test = dataset.splits["validation"], dataset.splits["test"]
        pairs = dataset.contrast_pairs()
        scalars, heads = self._noun_influences(test), {}
        if len(pairs[0]):
            is_right, twin_is_right = (self._is_answered_rightly(split) for split in pairs)
            scalars["twins"] = _mean(is_right & twin_is_right)
        if not self.subject.model.attention_layers():
            return self.finding(scalars)
        for prefix in QUERIES:
            at_end = prefix == "end_"
            if at_end and not self.subject.objective.causal:
                continue
            best_head = int(pointing_share(*self._noun_attention(validation, at_end)).argmax())
            attention = self._noun_attention(test, at_end)
            measurements = {
                "right": _mean(attention.right[:, best_head]),
                "wrong": _mean(attention.wrong[:, best_head]),
                "pointer": float(pointing_share(*attention)[best_head]),
                "cut_right": _mean(self._is_answered_rightly(test, at_end, cut_right=True)),
                "cut_wrong": _mean(self._is_answered_rightly(test, at_end, cut_right=False)),
            }
            if len(pairs[0]):
                sides = [self._noun_attention(split, at_end) for split in pairs]
                measurements["flip"] = float(twin_flip_share(*sides)[best_head])
            scalars |= {f"{prefix}{name}": value for name, value in measurements.items()}
            heads[_head_name(prefix)] = _describe_head(
                all_heads(self.subject.model)[best_head], prefix, scalars
            )
        return self.finding(scalars, heads)

    @classmethod
    def finding_from_old_record(cls, scalars: Mapping[str, float]) -> Finding:
        heads = {}
        for prefix in QUERIES:
            if f"{prefix}layer" in scalars:
                head = HeadRef(int(scalars[f"{prefix}layer"]), int(scalars[f"{prefix}head"]))
                heads[_head_name(prefix)] = _describe_head(head, prefix, scalars)
        remaining_scalars = {
            key: value for key, value in scalars.items() if not key.endswith(INDICES)
        }
        return cls.finding(remaining_scalars, heads)

    def _batches_with_places(
        self, split: Split, at_end: bool
    ) -> Iterator[tuple[Batch, ContrastPlaces]]:
        """Yield each batch of the model, with the positions of its query and its two nouns."""
        for examples, batch in self.subject.paired_batches(split):
            assert examples.at is not None
            assert examples.valid is not None
            query = examples.valid.sum(dim=1) - 1 if at_end else examples.at[:, 0]
            yield (
                batch,
                ContrastPlaces(query, *noun_places(examples.inputs, examples.targets[:, 0])),
            )

    def _noun_attention(self, split: Split, at_end: bool) -> HeadAttention:
        """Return the query's weights on the two nouns, by head, in the order of `all_heads`."""
        model, attention_by_batch = self.subject.model, []
        with self.subject.observed():
            for batch, places in self._batches_with_places(split, at_end):
                with record_patterns(model) as patterns:
                    model(*batch.model_inputs)
                attention_by_layer = [
                    torch.stack(attention_on_places(patterns[layer], places))
                    for layer in model.attention_layers()
                ]
                attention_by_batch.append(torch.cat(attention_by_layer, dim=-1).cpu())
        return HeadAttention(*torch.cat(attention_by_batch, dim=1))

    def _is_answered_rightly(
        self, split: Split, at_end: bool = False, cut_right: bool | None = None
    ) -> Bool[Tensor, " sentence"]:
        """Return whether each sentence is answered rightly, without the edge of `cut_right`."""
        model, is_right_by_batch = self.subject.model, []
        with self.subject.observed():
            for batch, places in self._batches_with_places(split, at_end):
                cut_key = places.right if cut_right else places.wrong
                with (
                    nullcontext()
                    if cut_right is None
                    else knock_out_edge(model, places.query, cut_key)
                ):
                    logits, _ = model(*batch.model_inputs)
                is_right_by_batch.append((logits.argmax(dim=-1) == batch.targets)[:, 0].cpu())
        return torch.cat(is_right_by_batch)

    def _noun_influences(self, split: Split) -> dict[str, float]:
        """Return the mean shares of the two nouns in the answers, by gradient x input."""
        influences_by_batch = []
        with isolated_evaluation(self.subject.model), self.subject.precision():
            for batch, places in self._batches_with_places(split, at_end=False):
                _, shares = logits_and_influence(self.subject.model, batch)
                sequence_index = torch.arange(len(shares), device=shares.device)
                influences_by_batch.append(
                    torch.stack(
                        [shares[sequence_index, places.right], shares[sequence_index, places.wrong]]
                    )
                )
        right, wrong = torch.cat(influences_by_batch, dim=1).cpu()
        return {"influence_right": _mean(right), "influence_wrong": _mean(wrong)}


INDICES = ("layer", "head")
"""The endings of keys under which records of 0.1 have the indices of layers and heads."""


def _head_name(prefix: str) -> str:
    return prefix.removesuffix("_") or "it"


def _describe_head(head: HeadRef, prefix: str, scalars: Mapping[str, float]) -> NamedHead:
    role = f"points from {QUERIES[prefix]} to the noun that is meant"
    return NamedHead(
        head, role, scalars[f"{prefix}right"], {"edge cut": scalars[f"{prefix}cut_right"]}
    )


def _mean(values: Tensor) -> float:
    return values.double().mean().item()
