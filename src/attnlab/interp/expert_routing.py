"""Expert routing over many sequences: load, drops, and what the token tells of its experts.

run = attnlab.load("text-moe")
by_layer = routing(run.subject, run.dataset.splits["validation"], num_examples=256)
for layer, layer_routing in by_layer.items():
    print(layer.index, layer_routing.load.tolist(), layer_routing.token.normalised_information)
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
from attnlab.interp.sequences import processed_tokens
from attnlab.interp.subject import Subject
from attnlab.layers import ExpertLayer
from attnlab.model.base import Model
from attnlab.split import Batch, Split
from attnlab.tap import edit

SHUFFLES = 10
"""The number of permutations whose mean is the information by chance."""


@dataclass(frozen=True)
class Information:
    """The mutual information between a token and the experts that it is sent to, in nats."""

    nats: float
    """I(token; expert) of the counts, with each assignment as a sample. It is biased upward."""
    chance: float
    """Its mean over shuffles of the tokens, while every position keeps its experts."""
    bound: float
    """Its upper bound: the smaller of H(token) and H(expert) - H(expert | position).

    The latter is 0 where a position has one expert, and log k where it has k of them.
    """

    @property
    def normalised_information(self) -> float:
        """(nats - chance) / (bound - chance), as Vinh et al. (2010) adjust for chance.

        0 if the router ignores the token, 1 if the token decides; also 0 if chance alone reaches
        the bound, so that nothing can be concluded.
        """
        room = self.bound - self.chance
        return (self.nats - self.chance) / room if room > 1e-9 else 0.0


@dataclass(frozen=True, eq=False)
class Routing:
    """The routing of the tokens of many sequences in one layer, without padding."""

    load: Float[Tensor, " expert"]
    """Share of all assignments that each expert has (f of Fedus et al. 2022, eq. 5)."""
    importance: Float[Tensor, " expert"]
    """Mean router probability of each expert (P of Fedus et al., eq. 6)."""
    drops: float
    """Share of assignments above capacity in a batch; if experts choose, of tokens not chosen."""
    entropy: float
    """Mean entropy of the router's probabilities, in nats; log(experts) if they are uniform."""
    share_by_count: Float[Tensor, " number"]
    """Share of tokens that are processed by 0, 1, 2, ... experts."""
    co_assignment: Float[Tensor, "expert other"]
    """Share of tokens sent to both experts; on the diagonal, share of tokens sent to the expert."""
    assignment_counts: Int[Tensor, "token expert"]
    """How often each token of the vocabulary went to each expert."""
    token: Information
    """Information of the token on its experts (Jiang et al. 2024, sec. 5, look for it by eye)."""
    token_class: Information | None
    """Information of the token's class on its experts; None without classes."""

    @property
    def dead_experts(self) -> list[int]:
        """The experts without any assignment."""
        return (self.load == 0).nonzero()[:, 0].tolist()

    @property
    def normalised_entropy(self) -> float:
        """The router's mean entropy over log(experts), 0 to 1."""
        return self.entropy / math.log(len(self.load)) if len(self.load) > 1 else 0.0

    @property
    def balance(self) -> float:
        """The entropy of the load over log(experts): 1 if the load is uniform."""
        return _entropy(self.load) / math.log(len(self.load)) if len(self.load) > 1 else 1.0

    @property
    def shares(self) -> Float[Tensor, "token expert"]:
        """P(expert | token) over the token's assignments; NaN for a token without assignments."""
        return self.assignment_counts / reduce(self.assignment_counts, "t e -> t 1", "sum")


def compute_routing(
    subject: Subject,
    batches: Split | Iterable[Batch],
    *,
    batch_size: int = 64,
    num_examples: int | None = None,
    capacity: float | None = None,
    classes: Sequence[int] | None = None,
    shuffles: int = SHUFFLES,
) -> dict[ExpertLayer, Routing]:
    """Compute the routing of a split, or of batches, in every layer of experts.

    `capacity` is the factor above which `drops` counts (Fedus et al. 2022, sec. 2.2; Zoph et al.
    2022); None takes each layer's own, and a layer without one drops nothing. Only `drops` depends
    on `batch_size`, since a batch shares the capacity. `classes` has the class of each token of the
    vocabulary, from 0. Assignments are kept until the end, a byte for each position and expert.
    Raises LookupError for a model without experts, ValueError for no batches or for classes of
    another vocabulary.
    """
    model = subject.model
    if not model.expert_layers():
        raise LookupError(f"this {type(model).__name__} has no layer of experts, so nothing routes")
    vocabulary_size = len(subject.objective.inputs)
    if classes is not None and len(classes) != vocabulary_size:
        raise ValueError(
            f"{len(classes)} classes were given for {vocabulary_size} tokens; "
            "give one for each token"
        )
    class_of_token = None if classes is None else torch.tensor(list(classes))
    tallies = {
        layer: _Tally(_mixture_module(model, layer), capacity) for layer in model.expert_layers()
    }
    has_batches = False
    with subject.observed():
        for batch in subject.batches(batches, batch_size=batch_size, num_examples=num_examples):
            has_batches = True

            def add_to_tally(
                layer: ExpertLayer, tap_name: str, tap_values: Tensor, batch: Batch = batch
            ) -> None:
                tokens, valid = processed_tokens(model, layer.path, batch)
                tallies[layer].add(tap_name, tap_values, tokens, valid)

            with ExitStack() as hooks:
                for layer, tally in tallies.items():
                    for tap_name in _tap_names(tally.mixture):
                        receive = partial(add_to_tally, layer)
                        hooks.enter_context(edit(tally.mixture, tap_name, receive))
                model(*batch.model_inputs)
    if not has_batches:
        raise ValueError("no batches were given, so there is no routing to follow")
    return {
        layer: tally.summarise(vocabulary_size, class_of_token, shuffles)
        for layer, tally in tallies.items()
    }


def token_expert_information(
    tokens: Int[Tensor, " position"],
    assignments: Bool[Tensor, "position expert"],
    num_values: int,
    *,
    shuffles: int = SHUFFLES,
) -> Information:
    """Estimate the information of tokens (below `num_values`) on the experts of their positions.

    Finite counts make independent variables look dependent, the more so the rarer the values are
    (Miller 1955; Paninski 2003), and by more than the formula if a position has several experts. So
    the bias is measured: tokens are shuffled over positions, always in the same permutations.
    Positions near each other are not independent, which shuffling single positions ignores.
    """
    experts_per_position = assignments.sum(dim=1)
    expert_counts = assignments.sum(dim=0)
    generator = torch.Generator().manual_seed(0)
    shuffled_nats = [
        _mutual_information(_count_assignments(tokens[order], assignments, num_values))
        for order in (torch.randperm(len(tokens), generator=generator) for _ in range(shuffles))
    ]
    contingency = _count_assignments(tokens, assignments, num_values)
    # The position determines the token, so it has at least its information on the expert (Cover &
    # Thomas 2006, sec. 2.8).
    position_bound = _entropy(expert_counts) - float(
        torch.xlogy(experts_per_position, experts_per_position).double().sum() / expert_counts.sum()
    )
    return Information(
        _mutual_information(contingency),
        sum(shuffled_nats) / max(1, shuffles),
        max(0.0, min(_entropy(contingency.sum(dim=1)), position_bound)),
    )


class _Tally:
    """Sums the tap values of one layer of experts."""

    def __init__(self, mixture: MoE | ExpertChoice, capacity: float | None) -> None:
        self.mixture = mixture
        if isinstance(mixture, MoE):
            capacity = mixture.capacity if capacity is None else capacity
        self.capacity = capacity
        self.entropy = self.importance = self.num_dropped = torch.zeros((), dtype=torch.float64)
        self.tokens: list[Tensor] = []
        self.assignments: list[Tensor] = []

    def add(
        self,
        tap_name: str,
        tap_values: Tensor,
        tokens: Int[Tensor, "batch seq"],
        valid: Bool[Tensor, "batch seq"],
    ) -> None:
        """Add the values of a tap on a batch: (batch, seq, expert) or (batch * seq, expert)."""
        if tap_values.ndim == 2:
            tap_values = rearrange(tap_values, "(b s) e -> b s e", b=len(valid))
        if tap_name == "probability":
            self._add_probabilities(tap_values[valid].double())
        if isinstance(self.mixture, MoE):
            top_experts = tap_values.topk(self.mixture.top_k, dim=-1).indices
            no_assignments = torch.zeros_like(tap_values, dtype=torch.bool)
            is_assigned = no_assignments.scatter(-1, top_experts, True)
            self._add_assignments(is_assigned[valid].cpu(), tokens[valid].cpu())
        elif tap_name == "chosen":
            self._add_assignments(tap_values[valid].cpu(), tokens[valid].cpu())

    def _add_probabilities(self, probabilities: Float[Tensor, "position expert"]) -> None:
        self.entropy = self.entropy + torch.special.entr(probabilities).sum().cpu()
        self.importance = self.importance + reduce(probabilities, "t e -> e", "sum").cpu()

    def _add_assignments(
        self, assignments: Bool[Tensor, "position expert"], tokens: Int[Tensor, " position"]
    ) -> None:
        """Add which experts each position is sent to, and count those above the capacity."""
        if isinstance(self.mixture, MoE) and self.capacity is not None:
            expert_counts = assignments.sum(dim=0)
            expert_capacity = (self.capacity * expert_counts.sum() / len(expert_counts)).ceil()
            self.num_dropped = (
                self.num_dropped + (expert_counts - expert_capacity).clamp(min=0).sum()
            )
        self.assignments.append(assignments)
        self.tokens.append(tokens)

    def summarise(
        self, vocabulary_size: int, class_of_token: Int[Tensor, " token"] | None, shuffles: int
    ) -> Routing:
        """Return the routing of all batches."""
        tokens, assignments = torch.cat(self.tokens), torch.cat(self.assignments)
        num_positions, experts_per_position = len(tokens), assignments.sum(dim=1)
        positions_by_count = torch.bincount(
            experts_per_position, minlength=assignments.shape[1] + 1
        )
        share_by_count = positions_by_count.double() / num_positions
        assignment_weights = assignments.double()
        class_information = None
        if class_of_token is not None:
            num_classes = int(class_of_token.max()) + 1
            class_information = token_expert_information(
                class_of_token[tokens], assignments, num_classes, shuffles=shuffles
            )
        experts_choose = isinstance(self.mixture, ExpertChoice)
        both_counts = rearrange(assignment_weights, "t e -> e t") @ assignment_weights
        return Routing(
            load=assignment_weights.sum(dim=0) / assignment_weights.sum(),
            importance=self.importance / num_positions,
            drops=float(
                share_by_count[0] if experts_choose else self.num_dropped / assignment_weights.sum()
            ),
            entropy=float(self.entropy / num_positions),
            share_by_count=share_by_count,
            co_assignment=both_counts / num_positions,
            assignment_counts=_count_assignments(tokens, assignments, vocabulary_size),
            token=token_expert_information(tokens, assignments, vocabulary_size, shuffles=shuffles),
            token_class=class_information,
        )


def _mixture_module(model: Model, layer: ExpertLayer) -> MoE | ExpertChoice:
    mixture = model.get_submodule(layer.path)
    assert isinstance(mixture, MoE | ExpertChoice)
    return mixture


def _tap_names(mixture: MoE | ExpertChoice) -> tuple[str, ...]:
    """Return the taps of a mixture from which its routing is read."""
    return ("probability",) if isinstance(mixture, MoE) else ("probability", "chosen")


def _count_assignments(
    tokens: Int[Tensor, " position"], assignments: Bool[Tensor, "position expert"], num_values: int
) -> Int[Tensor, "token expert"]:
    counts = torch.zeros(num_values, assignments.shape[1], dtype=torch.int64)
    return counts.index_add(0, tokens, assignments.long())


def _mutual_information(contingency: Int[Tensor, "token expert"]) -> float:
    token_counts = reduce(contingency, "t e -> t", "sum")
    expert_counts = reduce(contingency, "t e -> e", "sum")
    return _entropy(token_counts) + _entropy(expert_counts) - _entropy(contingency)


def _entropy(counts: Tensor) -> float:
    """Return the entropy (nats) of counts or shares of any sum."""
    return float(torch.special.entr(counts.double() / counts.sum()).sum())
