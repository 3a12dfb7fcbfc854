"""Which experts tokens are sent to, over many sequences, and what decides it.

run = attnlab.load("text-moe")
found = routing(run.subject, run.dataset.splits["validation"], num_examples=256)
for layer, seen in found.items():
    print(layer, seen.load.tolist(), seen.token.normalised)
"""

import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnlab.ffn.expert_choice import ExpertChoice
from attnlab.ffn.moe import MoE
from attnlab.interp.sequences import worked_on
from attnlab.interp.subject import Subject
from attnlab.model.base import Model
from attnlab.split import Batch, Split
from attnlab.tap import edit

SHUFFLES = 10
"""Permutations whose mean is what chance tells."""


@dataclass(frozen=True)
class Information:
    """What a token tells of the experts that it is sent to, in nats."""

    nats: float
    """I(token; expert) of the counts, each assignment being one sample. It is biased upward."""
    chance: float
    """Its mean where the tokens are shuffled, while every position keeps its experts."""
    bound: float
    """The most that it could be: the smaller of H(token) and H(expert) - H(expert | position).

    The latter is 0 where a position has one expert, and log k where it has k of them.
    """

    @property
    def normalised(self) -> float:
        """(nats - chance) / (bound - chance), as Vinh et al. (2010) adjust for chance.

        0 where the router does not heed the token, 1 where the token decides; 0 too where chance
        alone reaches the bound, so that nothing can be told.
        """
        room = self.bound - self.chance
        return (self.nats - self.chance) / room if room > 1e-9 else 0.0


@dataclass(frozen=True, eq=False)
class Routing:
    """Where the tokens of many sequences went in one layer, without padding."""

    load: Float[Tensor, " expert"]
    """Share of all assignments that each expert has (f of Fedus et al. 2022, eq. 5)."""
    importance: Float[Tensor, " expert"]
    """Mean probability that the router gives it (P of Fedus et al., eq. 6)."""
    drops: float
    """Share of assignments above capacity in a batch; where experts choose, of tokens untaken."""
    entropy: float
    """Mean entropy of the router's own probability, in nats; log(experts) is indifference."""
    met: Float[Tensor, " number"]
    """Share of tokens that 0, 1, 2, ... experts work on."""
    together: Float[Tensor, "expert other"]
    """Share of tokens sent to both experts; of an expert with itself, that of all it has."""
    table: Int[Tensor, "token expert"]
    """How often each token of the vocabulary went to each expert."""
    token: Information
    """What the token tells of its experts (Jiang et al. 2024, sec. 5, look for it by eye)."""
    kind: Information | None
    """What the class of the token tells of them; None where no classes were given."""

    @property
    def dead(self) -> list[int]:
        """Name the experts that nothing was sent to."""
        return (self.load == 0).nonzero()[:, 0].tolist()

    @property
    def normalised_entropy(self) -> float:
        """The router's mean entropy over log(experts), 0 to 1."""
        return self.entropy / math.log(len(self.load)) if len(self.load) > 1 else 0.0

    @property
    def balance(self) -> float:
        """The entropy of the load over log(experts): 1 where all experts have as much to do."""
        return _entropy(self.load) / math.log(len(self.load)) if len(self.load) > 1 else 1.0

    @property
    def shares(self) -> Float[Tensor, "token expert"]:
        """P(expert | token) over the token's assignments; NaN for a token that has none."""
        return self.table / reduce(self.table, "t e -> t 1", "sum")


def routing(
    subject: Subject,
    batches: Split | Iterable[Batch],
    *,
    batch_size: int = 64,
    num_examples: int | None = None,
    capacity: float | None = None,
    classes: Sequence[int] | None = None,
    shuffles: int = SHUFFLES,
) -> dict[str, Routing]:
    """Follow the tokens of a split, or of batches, through every layer of experts: {path: Routing}.

    `capacity` is the factor above which `drops` counts (Fedus et al. 2022, sec. 2.2; Zoph et al.
    2022); None takes each layer's own, and a layer without one drops nothing. It alone
    hangs on `batch_size`, since a batch shares the room. `classes` gives the class of each token of
    the vocabulary, counted from 0. Assignments are kept until the end, a byte for each position
    and expert. Raises LookupError for a model without experts, ValueError for no batches or for
    classes of another vocabulary.
    """
    model, layers = subject.model, expert_layers(subject.model)
    if not layers:
        raise LookupError(f"this {type(model).__name__} has no layer of experts, so nothing routes")
    vocabulary = len(subject.objective.inputs)
    if classes is not None and len(classes) != vocabulary:
        raise ValueError(
            f"{len(classes)} classes were given for {vocabulary} tokens; give one for each token"
        )
    kinds = None if classes is None else torch.tensor(list(classes))
    tallies = {path: _Tally(layer, capacity) for path, layer in layers.items()}
    heard: dict[str, _Tally] = {}
    with subject.observed():
        for asked in subject.ask(batches, batch_size=batch_size, num_examples=num_examples):

            def hear(path: str, name: str, value: Tensor, asked: Batch = asked) -> None:
                # In the order of a pass, in which an encoder stands before what reads it.
                tally = heard.setdefault(path, tallies[path])
                tally.hear(name, value, *worked_on(model, path, asked))

            with ExitStack() as listening:
                for path, layer in layers.items():
                    for tap in _taps(layer):
                        listening.enter_context(edit(layer, tap, partial(hear, path)))
                model(*asked.given)
    if not heard:
        raise ValueError("no batches were given, so there is no routing to follow")
    return {path: tally.finish(vocabulary, kinds, shuffles) for path, tally in heard.items()}


def information(
    tokens: Int[Tensor, " position"],
    chosen: Bool[Tensor, "position expert"],
    size: int,
    *,
    shuffles: int = SHUFFLES,
) -> Information:
    """Measure what tokens (below `size`) tell of the experts that their positions are sent to.

    Counts make independent things look dependent, the more so the rarer they are (Miller 1955;
    Paninski 2003), and by more than a formula says where a position has several experts. So
    chance is measured: tokens are shuffled over positions, always in the same ways. Positions near
    each other are not independent, which no shuffling of single ones takes into account.
    """
    several = chosen.sum(dim=1)
    load = chosen.sum(dim=0)
    draw = torch.Generator().manual_seed(0)
    shuffled = [
        _mutual(_table(tokens[torch.randperm(len(tokens), generator=draw)], chosen, size))
        for _ in range(shuffles)
    ]
    table = _table(tokens, chosen, size)
    # The position decides the token, so it tells at least as much (Cover & Thomas 2006, sec. 2.8).
    of_position = _entropy(load) - float(torch.xlogy(several, several).double().sum() / load.sum())
    return Information(
        _mutual(table),
        sum(shuffled) / max(1, shuffles),
        max(0.0, min(_entropy(table.sum(dim=1)), of_position)),
    )


class _Tally:
    """Adds up what is heard of one layer."""

    def __init__(self, layer: MoE | ExpertChoice, capacity: float | None) -> None:
        self.layer = layer
        if isinstance(layer, MoE):
            capacity = layer.capacity if capacity is None else capacity
        self.capacity = capacity
        self.entropy = self.importance = self.dropped = torch.zeros((), dtype=torch.float64)
        self.tokens: list[Tensor] = []
        self.chosen: list[Tensor] = []

    def hear(
        self,
        name: str,
        value: Tensor,
        tokens: Int[Tensor, "batch seq"],
        valid: Bool[Tensor, "batch seq"],
    ) -> None:
        """Count what a tap says of a batch: (batch, seq, expert), or with both before one axis."""
        if value.ndim == 2:
            value = rearrange(value, "(b s) e -> b s e", b=len(valid))
        if name == "probability":
            probability = value[valid].double()
            self.entropy = self.entropy + torch.special.entr(probability).sum().cpu()
            self.importance = self.importance + reduce(probability, "t e -> e", "sum").cpu()
        if name != _taps(self.layer)[-1]:
            return
        if isinstance(self.layer, MoE):
            best = value.topk(self.layer.top_k, dim=-1).indices
            value = torch.zeros_like(value, dtype=torch.bool).scatter(-1, best, True)
        chosen = value[valid].cpu()
        if isinstance(self.layer, MoE) and self.capacity is not None:
            asked = chosen.sum(dim=0)
            room = (self.capacity * asked.sum() / len(asked)).ceil()
            self.dropped = self.dropped + (asked - room).clamp(min=0).sum()
        self.chosen.append(chosen)
        self.tokens.append(tokens[valid].cpu())

    def finish(self, size: int, kinds: Int[Tensor, " token"] | None, shuffles: int) -> Routing:
        """Give what was heard, of a vocabulary of such a size."""
        tokens, chosen = torch.cat(self.tokens), torch.cat(self.chosen)
        positions, several = len(tokens), chosen.sum(dim=1)
        met = torch.bincount(several, minlength=chosen.shape[1] + 1).double() / positions
        counts = chosen.double()
        kind = None
        if kinds is not None:
            number = int(kinds.max()) + 1
            kind = information(kinds[tokens], chosen, number, shuffles=shuffles)
        choosing = isinstance(self.layer, ExpertChoice)
        return Routing(
            load=counts.sum(dim=0) / counts.sum(),
            importance=self.importance / positions,
            drops=float(met[0] if choosing else self.dropped / counts.sum()),
            entropy=float(self.entropy / positions),
            met=met,
            together=rearrange(counts, "t e -> e t") @ counts / positions,
            table=_table(tokens, chosen, size),
            token=information(tokens, chosen, size, shuffles=shuffles),
            kind=kind,
        )


def expert_layers(model: Model) -> dict[str, MoE | ExpertChoice]:
    """Return the layers of experts by their paths, in the order of the model's modules."""
    return {p: m for p, m in model.named_modules() if isinstance(m, MoE | ExpertChoice)}


def _taps(layer: MoE | ExpertChoice) -> tuple[str, ...]:
    """Name what is heard of a layer; the last one says where tokens went."""
    return ("probability",) if isinstance(layer, MoE) else ("probability", "chosen")


def _table(
    tokens: Int[Tensor, " position"], chosen: Bool[Tensor, "position expert"], size: int
) -> Int[Tensor, "token expert"]:
    counts = torch.zeros(size, chosen.shape[1], dtype=torch.int64)
    return counts.index_add(0, tokens, chosen.long())


def _mutual(table: Int[Tensor, "token expert"]) -> float:
    rows, columns = reduce(table, "t e -> t", "sum"), reduce(table, "t e -> e", "sum")
    return _entropy(rows) + _entropy(columns) - _entropy(table)


def _entropy(counts: Tensor) -> float:
    """Give the entropy (nats) of counts or shares, whatever their sum."""
    return float(torch.special.entr(counts.double() / counts.sum()).sum())
