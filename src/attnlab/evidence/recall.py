"""Whether a model recalls by two heads in a row: one gathers what stood before, one finds it.

The induction circuit (Elhage et al. 2021; Olsson et al. 2022 see it in text), by which attention
can recall: a token learns what stands before it, and a later one that asks for that finds it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor

from attnlab.dataset.base import Dataset
from attnlab.evidence.axes import axes
from attnlab.evidence.base import device_of, moved, numbered, undisturbed
from attnlab.evidence.intervene import (
    Head,
    Means,
    attention_layers,
    mean_patterns,
    prune,
    questions,
)
from attnlab.evidence.rows import mass, share_at, successors
from attnlab.model.base import Model
from attnlab.objective.base import Objective
from attnlab.ranges import Count, ranged
from attnlab.split import IGNORE, Batch
from attnlab.tap import record

BATCH = 64
REACH = 3
"""How far behind the earlier occurrence a place is looked for."""


@ranged
def recall(
    model: Model, objective: Objective, dataset: Dataset, *, num_examples: Count = 512
) -> dict[str, float]:
    """Find the two heads on validation; measure them, and what is lost without, where reported.

    An asked query is at a token that stood there before, with the answer behind it: its *pair*. One
    head reads a place `read_behind` tokens after the earlier occurrence (1 is the answer itself):
    that head and place in 0..REACH which have most of the asked queries' weight, `read` on average.
    Of the heads in layers below, `gather` is the largest mean weight from that place to the pair,
    its own place apart, and `previous` what that head pays there to the one token before. Where a
    query has several pairs, what it pays to their places is added up, and what these pay is
    averaged. Weights are from 0 to 1; `read_layer`, `read_head` and so on as `ablate` counts them.

    Then the accuracy at the asked queries: `whole`, and `without_read` and `without_gather` where
    that head passes nothing on; with `_mean`, where it has its mean pattern on validation, so that
    it still looks where heads look by position alone. `without_others` leaves these two alone.

    A model without attention within one sequence has none of it; one whose lowest layer reads has
    no `gather`. Raises ValueError for data in which no answer can be read.
    """
    layers = attention_layers(model)
    if not layers or any(axes(model, layer).across for layer in layers):
        return {}
    chosen = _looks(model, objective, dataset, "validation", num_examples)
    shown = _looks(model, objective, dataset, dataset.reported, num_examples)
    behind, read = max(
        ((place, head) for place in range(REACH + 1) for head in chosen.heads(len(layers))),
        key=lambda pair: chosen.mean(f"read {pair[0]}", pair[1]),
    )
    two = {"read": read}
    below = chosen.heads(read[0])
    if below:
        two["gather"] = max(below, key=lambda head: chosen.mean(f"gather {behind}", head))

    def accuracy(gone: Sequence[Head], means: Means | None = None) -> float:
        with prune(model, gone, means):
            return _accuracy(model, objective, dataset, num_examples)

    means = mean_patterns(model, questions(model, objective, dataset.splits["validation"]))
    found = {"whole": accuracy(()), "read_behind": float(behind)}
    for name, head in two.items():
        found |= {
            name: shown.mean(f"{name} {behind}", head),
            f"{name}_layer": float(head[0]),
            f"{name}_head": float(head[1]),
            f"without_{name}": accuracy([head]),
            f"without_{name}_mean": accuracy([head], means),
        }
    if below:
        found["previous"] = shown.mean(f"previous {behind}", two["gather"])
    others = [head for head in chosen.heads(len(layers)) if head not in two.values()]
    return found | {"without_others": accuracy(others)}


@dataclass
class Looks:
    """Sums of what each head pays, layer by layer, and how many places were counted."""

    sums: dict[tuple[str, int], Float[Tensor, " head"]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def mean(self, name: str, head: Head) -> float:
        """Give what a head pays on average, 0 to 1."""
        return float(self.sums[name, head[0]][head[1]]) / max(self.counts[name], 1)

    def heads(self, below: int) -> list[Head]:
        """List the heads of the layers below one."""
        sizes = [len(self.sums["read 1", layer]) for layer in range(below)]
        return [(layer, head) for layer, size in enumerate(sizes) for head in range(size)]

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


def _looks(
    model: Model, objective: Objective, dataset: Dataset, split: str, num_examples: int
) -> Looks:
    if dataset.classes is not None:
        raise ValueError(f"{type(dataset).__name__} is no recall: its answers are no tokens")
    looks, layers = Looks(), attention_layers(model)
    with undisturbed(model), torch.no_grad():
        for batch in numbered(dataset.splits[split], BATCH, num_examples):
            asked = moved(objective.ask(batch), device_of(model))
            with record(model, "*.pattern") as patterns:
                model(*asked.given)
            read, counted = places(asked)
            at = torch.arange(asked.inputs.shape[1], device=read.device)
            for layer, path in enumerate(layers):
                pattern = patterns[f"{path}.pattern"].float()
                before = {step: share_at(pattern, at, -step) for step in range(-1, REACH + 1)}
                for behind in range(REACH + 1):
                    place = read.roll(behind - 1, dims=2)
                    # What was shifted over the end is no place.
                    place[:, :, : max(behind - 1, 0)] = False
                    place[:, :, len(at) + min(behind - 1, 0) :] = False
                    there = counted & place.any(dim=-1)
                    looks.add(f"read {behind}", layer, mass(pattern, place), there)
                    share = place / place.sum(dim=-1, keepdim=True).clamp(min=1)
                    # Of the pair, the place itself may be one.
                    both = [before[step] for step in (behind, behind - 1) if step]
                    pair = torch.stack(both).sum(dim=0)
                    for name, values in (("gather", pair), ("previous", before[1])):
                        each = einsum(share, values, "b q k, b h k -> b h q")
                        looks.add(f"{name} {behind}", layer, each, there)
    if not looks.counts["read 1"]:
        raise ValueError(
            f"in these data no answer stands behind an earlier occurrence of what is asked, so "
            f"{type(dataset).__name__} is no recall that evidence=recall could look into"
        )
    return looks


def _accuracy(model: Model, objective: Objective, dataset: Dataset, num_examples: int) -> float:
    """Give the share of queries that can read their answer, and do."""
    right, count = 0, 0
    with undisturbed(model), torch.no_grad():
        for batch in numbered(dataset.splits[dataset.reported], BATCH, num_examples):
            asked = moved(objective.ask(batch), device_of(model))
            logits, _ = model(*asked.given)
            _, counted = places(asked)
            if asked.at is not None:
                counted = counted.gather(1, asked.at)
            hit = logits.argmax(dim=-1) == asked.targets
            right, count = right + int((hit & counted).sum()), count + int(counted.sum())
    return right / count
