"""Whether a model recalls by two heads in a row: one gathers what stood before, one finds it.

The induction circuit (Elhage et al. 2021; Olsson et al. 2022 see it in text), by which attention
can recall: a token learns what stands before it, and a later one that asks for that finds it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor

from attnlab.evidence.base import Evidence
from attnlab.interp.attention import every_head, record_patterns
from attnlab.interp.interventions import Means, mean_patterns, prune
from attnlab.interp.pattern_stats import mass, share_at, successors
from attnlab.interp.subject import Subject
from attnlab.layers import AttentionLayer, HeadRef
from attnlab.ranges import Count, ranged
from attnlab.run_record.finding import Finding, Label, NamedHead, Presentation
from attnlab.split import IGNORE, Batch

BATCH = 64
REACH = 3
"""How far behind the earlier occurrence a place is looked for."""
MOST = 0.5
"""More weight than on all other keys together, by which a head gets the name of its role."""


@ranged
class RecallCircuit(Evidence):
    """Finds the two heads on validation; measures them, and what is lost without, where reported.

    An asked query is at a token that stood there before, with the answer behind it: its *pair*. One
    head, `read`, reads a place `read_behind` tokens after the earlier occurrence (1 is the answer
    itself): that head and place in 0..REACH which have most of the asked queries' weight, `read` on
    average. Of the heads in layers below, `gather` has the largest mean weight from that place to
    the pair, its own place apart, and `previous` is what it pays there to the one token before.
    Where a query has several pairs, what it pays to their places is added up, and what these pay is
    averaged. Weights are from 0 to 1.

    Then the accuracy at the asked queries: `whole`, and `without_read` and `without_gather` where
    that head passes nothing on; with `_mean`, where it has its mean pattern on validation, so that
    it still looks where heads look by position alone. `without_others` leaves these two alone.

    A model without attention within one sequence has none of it; one whose lowest layer reads has
    no `gather`. Raises ValueError for data in which no answer can be read.
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

    def __init__(self, subject: Subject, *, num_examples: Count = 512) -> None:
        super().__init__(subject)
        self.num_examples = num_examples

    def measure(self) -> Finding:
        subject, dataset = self.subject, self.subject.dataset
        layers = subject.model.attention_layers()
        if not layers or any(layer.axes.crosses for layer in layers):
            return self.finding({})
        on_validation = self._weights("validation")
        reported = self._weights(dataset.reported)
        heads = every_head(subject.model)
        behind, read = max(
            ((place, head) for place in range(REACH + 1) for head in heads),
            key=lambda pair: on_validation.mean(f"read {pair[0]}", pair[1]),
        )
        circuit = {"read": read}
        below = [head for head in heads if head.layer < read.layer]
        if below:
            circuit["gather"] = max(
                below, key=lambda head: on_validation.mean(f"gather {behind}", head)
            )
        means = mean_patterns(subject, dataset.splits["validation"])
        scalars = {"whole": self._accuracy(()), "read_behind": float(behind)}
        for name, head in circuit.items():
            scalars |= {
                name: reported.mean(f"{name} {behind}", head),
                f"without_{name}": self._accuracy([head]),
                f"without_{name}_mean": self._accuracy([head], means),
            }
        if below:
            scalars["previous"] = reported.mean(f"previous {behind}", circuit["gather"])
        others = [head for head in heads if head not in circuit.values()]
        scalars["without_others"] = self._accuracy(others)
        return self.finding(scalars, _named(circuit, scalars))

    @classmethod
    def from_first_records(cls, scalars: Mapping[str, float]) -> Finding:
        circuit = {
            name: HeadRef(int(scalars[f"{name}_layer"]), int(scalars[f"{name}_head"]))
            for name in ("read", "gather")
            if name in scalars
        }
        numbers = {k: v for k, v in scalars.items() if not k.endswith(("_layer", "_head"))}
        return cls.finding(numbers, _named(circuit, scalars))

    def _weights(self, split: str) -> "Weights":
        """Add up what each head pays to the places where an answer can be read, and from there."""
        subject, dataset = self.subject, self.subject.dataset
        if dataset.classes is not None:
            raise ValueError(f"{type(dataset).__name__} is no recall: its answers are no tokens")
        weights, batches = Weights(), dataset.splits[split]
        with subject.observed():
            for asked in subject.ask(batches, batch_size=BATCH, num_examples=self.num_examples):
                with record_patterns(subject.model) as patterns:
                    subject.model(*asked.given)
                read, counted = places(asked)
                for layer, pattern in patterns.items():
                    _add(weights, layer, pattern.float(), read, counted)
        if not weights.counts["read 1"]:
            raise ValueError(
                f"in these data no answer stands behind an earlier occurrence of what is asked, so "
                f"{type(dataset).__name__} is no recall that evidence=recall could look into"
            )
        return weights

    def _accuracy(self, without: Sequence[HeadRef], means: Means | None = None) -> float:
        """Return the share of queries that can read their answer, and do, without some heads."""
        subject, dataset = self.subject, self.subject.dataset
        right, count = 0, 0
        with subject.observed(), prune(subject.model, without, means):
            for asked in subject.ask(
                dataset.splits[dataset.reported], batch_size=BATCH, num_examples=self.num_examples
            ):
                logits, _ = subject.model(*asked.given)
                _, counted = places(asked)
                if asked.at is not None:
                    counted = counted.gather(1, asked.at)
                hit = logits.argmax(dim=-1) == asked.targets
                right, count = right + int((hit & counted).sum()), count + int(counted.sum())
        return right / count


@dataclass
class Weights:
    """Sums of what each head pays, layer by layer, and how many places were counted."""

    sums: dict[tuple[str, int], Float[Tensor, " head"]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def mean(self, name: str, head: HeadRef) -> float:
        """Return what a head pays on average, 0 to 1."""
        return float(self.sums[name, head.layer][head.head]) / max(self.counts[name], 1)

    def add(
        self,
        name: str,
        layer: int,
        values: Float[Tensor, "batch head query"],
        counted: Bool[Tensor, "batch query"],
    ) -> None:
        """Count what the heads of a layer pay, at some queries."""
        kept = values.where(rearrange(counted, "b q -> b 1 q"), 0)
        total = reduce(kept.double(), "b h q -> h", "sum").cpu()
        self.sums[name, layer] = self.sums.get((name, layer), 0) + total
        if layer == 0:
            self.counts[name] = self.counts.get(name, 0) + int(counted.sum())


def places(asked: Batch) -> tuple[Bool[Tensor, "batch query key"], Bool[Tensor, "batch query"]]:
    """Say where the answer to each query can be read, and which queries can read theirs.

    That is behind an earlier occurrence of the query's token, where the token is the answer.
    """
    tokens = asked.inputs
    at = torch.arange(tokens.shape[1], device=tokens.device)
    nothing = torch.full_like(tokens, IGNORE)
    answers = asked.targets if asked.at is None else nothing.scatter(1, asked.at, asked.targets)
    told = rearrange(tokens, "b k -> b 1 k") == rearrange(answers, "b q -> b q 1")
    read = successors(tokens, at) & told
    return read, read.any(dim=-1)


def _add(
    weights: Weights,
    layer: AttentionLayer,
    pattern: Float[Tensor, "batch head query key"],
    read: Bool[Tensor, "batch query key"],
    counted: Bool[Tensor, "batch query"],
) -> None:
    """Count what a layer pays to each place behind an earlier occurrence, and from there."""
    length = read.shape[-1]
    at = torch.arange(length, device=read.device)
    before = {step: share_at(pattern, at, -step) for step in range(-1, REACH + 1)}
    for behind in range(REACH + 1):
        place = read.roll(behind - 1, dims=2)
        # What was shifted over the end is no place.
        place[:, :, : max(behind - 1, 0)] = False
        place[:, :, length + min(behind - 1, 0) :] = False
        has_place = counted & place.any(dim=-1)
        weights.add(f"read {behind}", layer.index, mass(pattern, place), has_place)
        share = place / place.sum(dim=-1, keepdim=True).clamp(min=1)
        # Of the pair, the place itself may be one.
        both = [before[step] for step in (behind, behind - 1) if step]
        pair = torch.stack(both).sum(dim=0)
        for name, values in (("gather", pair), ("previous", before[1])):
            paid = einsum(share, values, "b q k, b h k -> b h q")
            weights.add(f"{name} {behind}", layer.index, paid, has_place)


def _named(circuit: Mapping[str, HeadRef], scalars: Mapping[str, float]) -> dict[str, NamedHead]:
    """Name the two heads by their weights at the places that matter.

    Mean scores name neither where most queries ask nothing. `previous token` tells its place what
    stood before by looking there most of all; a head that `gathers` looks at several tokens.
    """
    if not circuit:
        return {}
    roles = {
        "read": "match and read" if scalars["read"] > MOST else "reads",
        "gather": "previous token" if scalars.get("previous", 0) > MOST else "gathers",
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
