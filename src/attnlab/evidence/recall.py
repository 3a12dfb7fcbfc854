"""The two-head recall circuit of a model: one head gathers the preceding token, one reads it.

This is the induction circuit (Elhage et al. 2021; Olsson et al. 2022 find it in text): a head
copies the preceding token to a position, and a later query that matches the copy reads from there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor

from attnlab.evidence.base import MOST_WEIGHT, Evidence
from attnlab.interp.attention_taps import all_heads, record_patterns
from attnlab.interp.interventions import MeanPatterns, mean_patterns, prune
from attnlab.interp.pattern_stats import successor_keys, weight_at_offset, weight_on_keys
from attnlab.interp.subject import Subject
from attnlab.layers import AttentionLayer, HeadRef
from attnlab.ranges import Count, ranged
from attnlab.run_record.finding import Finding, Label, NamedHead, Presentation
from attnlab.split import IGNORE, Batch

BATCH = 64
REACH = 3
"""The largest offset from the earlier occurrence to the place that is read (tokens)."""


@ranged
class RecallCircuit(Evidence):
    """Finds the two heads on validation; measures them, and what is lost without, where reported.

    A counted query is at a token with an earlier occurrence that the answer follows; these two
    tokens are its *pair*. The head `read` reads a place `read_behind` tokens after the earlier
    occurrence (1 is the answer itself): the head and the place in 0..REACH with the largest mean
    weight of the counted queries, which is `read`. Of the heads in layers below, `gather` has the
    largest mean weight from that place to the pair, without the place itself, and `previous` is its
    weight from there to the token before. If a query has several pairs, its weights on their places
    are summed, and the weights from these places are averaged. Weights are from 0 to 1.

    Then the accuracy at the counted queries: `whole`; `without_read` and `without_gather` with that
    head ablated; with `_mean`, the head has its mean pattern on validation instead, so it still
    attends by position. `without_others` ablates all heads but these two.

    A model without attention within one sequence has no numbers; if the `read` head is in the
    lowest layer, there is no `gather`. Raises ValueError for data in which no answer can be read.
    """

    presentation = Presentation(
        labels=(
            Label("read", "weight asked → place that is read"),
            Label("without_read", "… without that head"),
            Label("without_read_mean", "… with its mean pattern"),
            Label("gather", "weight from there → key, answer"),
            Label("without_gather", "… without that head"),
            Label("without_gather_mean", "… with its mean pattern"),
        ),
        opens_at=("read",),
        taken_away="a head is taken out",
    )
    bounds = dict.fromkeys(("read", "gather", "previous", "whole", "without_*"), (0, 1))

    def __init__(self, subject: Subject, *, num_examples: Count = 512) -> None:
        super().__init__(subject)
        self.num_examples = num_examples

    def measure(self) -> Finding:
        subject, dataset = self.subject, self.subject.dataset
        layers = subject.model.attention_layers()
        if not layers or any(layer.axes.crosses for layer in layers):
            return self.finding({})
        validation_weights = self._sum_weights("validation")
        report_weights = self._sum_weights(dataset.report_split)
        heads = all_heads(subject.model)
        # Counted from the earlier occurrence of the asked token: 1 is the answer itself.
        read_offset, reading_head = max(
            ((offset, head) for offset in range(REACH + 1) for head in heads),
            key=lambda candidate: validation_weights.mean(f"read {candidate[0]}", candidate[1]),
        )
        circuit = {"read": reading_head}
        heads_below = [head for head in heads if head.layer < reading_head.layer]
        if heads_below:
            circuit["gather"] = max(
                heads_below, key=lambda head: validation_weights.mean(f"gather {read_offset}", head)
            )
        means = mean_patterns(subject, dataset.splits["validation"])
        scalars = {"whole": self._accuracy_without(()), "read_behind": float(read_offset)}
        for name, head in circuit.items():
            scalars |= {
                name: report_weights.mean(f"{name} {read_offset}", head),
                f"without_{name}": self._accuracy_without([head]),
                f"without_{name}_mean": self._accuracy_without([head], means),
            }
        if heads_below:
            scalars["previous"] = report_weights.mean(f"previous {read_offset}", circuit["gather"])
        other_heads = [head for head in heads if head not in circuit.values()]
        scalars["without_others"] = self._accuracy_without(other_heads)
        return self.finding(scalars, _describe_circuit(circuit, scalars))

    @classmethod
    def finding_from_old_record(cls, scalars: Mapping[str, float]) -> Finding:
        circuit = {
            name: HeadRef(int(scalars[f"{name}_layer"]), int(scalars[f"{name}_head"]))
            for name in ("read", "gather")
            if name in scalars
        }
        remaining_scalars = {
            key: value for key, value in scalars.items() if not key.endswith(("_layer", "_head"))
        }
        return cls.finding(remaining_scalars, _describe_circuit(circuit, scalars))

    def _sum_weights(self, split: str) -> "EdgeWeights":
        """Return the sums of each head's weights on the places of an answer, and from them."""
        subject, dataset = self.subject, self.subject.dataset
        if dataset.classes is not None:
            raise ValueError(f"{type(dataset).__name__} is no recall: its answers are no tokens")
        weights, batches = EdgeWeights(), dataset.splits[split]
        with subject.observed():
            for batch in subject.batches(batches, batch_size=BATCH, num_examples=self.num_examples):
                with record_patterns(subject.model) as patterns:
                    subject.model(*batch.model_inputs)
                is_readable, counted = readable_keys(batch)
                for layer, pattern in patterns.items():
                    _add_layer_weights(weights, layer, pattern.float(), is_readable, counted)
        if not weights.counts["read 1"]:
            raise ValueError(
                f"in these data no answer stands behind an earlier occurrence of what is asked, so "
                f"{type(dataset).__name__} is no recall that evidence=recall could look into"
            )
        return weights

    def _accuracy_without(
        self, removed_heads: Sequence[HeadRef], means: MeanPatterns | None = None
    ) -> float:
        """Return the accuracy at the queries that can read their answer, with heads ablated."""
        subject, dataset = self.subject, self.subject.dataset
        num_right, num_counted = 0, 0
        with subject.observed(), prune(subject.model, removed_heads, means):
            for batch in subject.batches(
                dataset.splits[dataset.report_split],
                batch_size=BATCH,
                num_examples=self.num_examples,
            ):
                logits, _ = subject.model(*batch.model_inputs)
                _, counted = readable_keys(batch)
                if batch.at is not None:
                    counted = counted.gather(1, batch.at)
                is_right = logits.argmax(dim=-1) == batch.targets
                num_right += int((is_right & counted).sum())
                num_counted += int(counted.sum())
        return num_right / num_counted


@dataclass
class EdgeWeights:
    """Sums of the weights of each head, by name and layer, and the number of counted queries."""

    sums: dict[tuple[str, int], Float[Tensor, " head"]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def mean(self, name: str, head: HeadRef) -> float:
        """Return the mean weight of a head, 0 to 1."""
        return float(self.sums[name, head.layer][head.head]) / max(self.counts[name], 1)

    def add(
        self,
        name: str,
        layer: int,
        values: Float[Tensor, "batch head query"],
        counted: Bool[Tensor, "batch query"],
    ) -> None:
        """Add the weights of a layer's heads at the counted queries."""
        counted_values = values.where(rearrange(counted, "b q -> b 1 q"), 0)
        total = reduce(counted_values.double(), "b h q -> h", "sum").cpu()
        self.sums[name, layer] = self.sums.get((name, layer), 0) + total
        if layer == 0:
            self.counts[name] = self.counts.get(name, 0) + int(counted.sum())


def readable_keys(
    batch: Batch,
) -> tuple[Bool[Tensor, "batch query key"], Bool[Tensor, "batch query"]]:
    """Return the keys from which each query can read its answer, and the queries that have one.

    Such a key directly follows an earlier occurrence of the query's token, and holds the answer.
    """
    tokens = batch.inputs
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    no_answers = torch.full_like(tokens, IGNORE)
    answers = batch.targets if batch.at is None else no_answers.scatter(1, batch.at, batch.targets)
    is_answer = rearrange(tokens, "b k -> b 1 k") == rearrange(answers, "b q -> b q 1")
    is_readable = successor_keys(tokens, positions) & is_answer
    return is_readable, is_readable.any(dim=-1)


def _add_layer_weights(
    weights: EdgeWeights,
    layer: AttentionLayer,
    pattern: Float[Tensor, "batch head query key"],
    is_readable: Bool[Tensor, "batch query key"],
    counted: Bool[Tensor, "batch query"],
) -> None:
    """Add a layer's weights on each place behind an earlier occurrence, and from that place."""
    length = is_readable.shape[-1]
    positions = torch.arange(length, device=is_readable.device)
    weight_behind_by_step = {
        step: weight_at_offset(pattern, positions, -step) for step in range(-1, REACH + 1)
    }
    for offset in range(REACH + 1):
        is_place = is_readable.roll(offset - 1, dims=2)
        # `roll` wraps around; a position that was shifted over the end is no place.
        is_place[:, :, : max(offset - 1, 0)] = False
        is_place[:, :, length + min(offset - 1, 0) :] = False
        has_place = counted & is_place.any(dim=-1)
        weights.add(f"read {offset}", layer.index, weight_on_keys(pattern, is_place), has_place)
        place_shares = is_place / is_place.sum(dim=-1, keepdim=True).clamp(min=1)
        # The place itself (step 0) may be one token of the pair; it is left out.
        pair_weights = [weight_behind_by_step[step] for step in (offset, offset - 1) if step]
        on_pair = torch.stack(pair_weights).sum(dim=0)
        for name, values in (("gather", on_pair), ("previous", weight_behind_by_step[1])):
            from_place = einsum(place_shares, values, "b q k, b h k -> b h q")
            weights.add(f"{name} {offset}", layer.index, from_place, has_place)


def _describe_circuit(
    circuit: Mapping[str, HeadRef], scalars: Mapping[str, float]
) -> dict[str, NamedHead]:
    """Return the two heads with roles by their weights at the places of the circuit.

    Mean scores over all queries would name neither, where few queries are counted. `previous token`
    has most of its weight on the token before; a head that `gathers` attends to several tokens.
    """
    if not circuit:
        return {}
    roles = {
        "read": "match and read" if scalars["read"] > MOST_WEIGHT else "reads",
        "gather": "previous token" if scalars.get("previous", 0) > MOST_WEIGHT else "gathers",
    }
    return {
        name: NamedHead(
            head,
            roles[name],
            scalars[name],
            {
                "head out": scalars[f"without_{name}"],
                "mean pattern": scalars[f"without_{name}_mean"],
            },
        )
        for name, head in circuit.items()
    }
