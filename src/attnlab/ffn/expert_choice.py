"""The mixture of experts in which each expert takes its tokens."""

import math

import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.ffn.base import FFN, Losses
from attnlab.ranges import Expansion, Positive, ShareBelowOne, Width, ranged
from attnlab.tap import Gauge, Tap


@ranged
class ExpertChoice(FFN):
    """Lets each expert take the tokens that want it most (Zhou et al. 2022, sec. 3.2).

    An expert takes capacity / num_experts of the tokens, rounded up, so `capacity` is how many
    experts a token meets on average; one that no expert takes gets nothing. The load is even by
    construction, and there is no loss for it. Experts choose within each sequence, by its length
    without padding, where the paper lets them choose from the whole batch: what a sequence gets
    then hangs neither on its neighbours nor on its padding. Within it tokens compete, later ones
    with earlier ones, so a causal model cannot have it (sec. 6). d_ffn is the multiple of 8 nearest
    to expansion x d_model, for each expert; there are no biases.

    The taps `load` (share of choices per expert) and `drops` (share of tokens that no expert took)
    leave padding apart; `probability` is the router's own, and `chosen` says which experts took a
    token.
    """

    routes_across_tokens = True

    def __init__(
        self,
        d_model: int,
        *,
        num_experts: Width = 8,
        capacity: Positive = 2.0,
        expansion: Expansion = 2.0,
        dropout: ShareBelowOne = 0.0,
    ) -> None:
        super().__init__()
        d_ffn = 8 * round(expansion * d_model / 8)
        if capacity > num_experts:
            raise ValueError(
                f"capacity={capacity} experts a token must be positive, and at most "
                f"num_experts={num_experts}"
            )
        if d_ffn < 8:
            raise ValueError(
                f"expansion={expansion} of d_model={d_model} leaves no hidden unit: it is rounded "
                "to a multiple of 8"
            )
        self.num_experts, self.capacity = num_experts, capacity
        self.router = nn.Linear(d_model, num_experts, bias=False)
        self.expand = _expert_weights(num_experts, d_model, d_ffn)
        self.contract = _expert_weights(num_experts, d_ffn, d_model)
        self.dropout = nn.Dropout(dropout)
        self.probability, self.chosen = Tap(), Tap()
        self.load, self.drops = Gauge(), Gauge()

    @property
    def idle_parameters(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        per_expert = self.expand[0].numel() + self.contract[0].numel()
        return int((self.num_experts - self.capacity) * per_expert)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> tuple[Float[Tensor, "batch seq d_model"], Losses]:
        batch, seq, _ = x.shape
        share = self.capacity / self.num_experts
        probability = self._route(x)
        if valid is None:
            valid = torch.ones(batch, seq, dtype=torch.bool, device=x.device)
        priority = probability.masked_fill(~rearrange(valid, "b s -> b s 1"), -1.0)
        weight, positions = priority.topk(math.ceil(share * seq), dim=1)
        # In float64, as in Python: rounding must not change how many tokens an expert takes.
        capacity = (reduce(valid, "b s -> b 1", "sum").double() * share).ceil()
        within_capacity = torch.arange(weight.shape[1], device=x.device) < capacity
        weight = weight * rearrange(within_capacity, "b c -> b c 1")
        if self.chosen.has_listeners:
            is_taken = rearrange(within_capacity, "b c -> b c 1").expand_as(positions)
            self.chosen(
                torch.zeros_like(priority, dtype=torch.bool).scatter(1, positions, is_taken)
            )

        sequence_start = rearrange(seq * torch.arange(batch, device=x.device), "b -> b 1 1")
        positions = rearrange(positions + sequence_start, "b c e -> (e b c)")
        tokens = rearrange(x, "b s d -> (b s) d")
        expert_inputs = rearrange(
            tokens.index_select(0, positions), "(e n) d -> e n d", e=self.num_experts
        )
        outputs = self.dropout(F.gelu(expert_inputs @ self.expand)) @ self.contract
        outputs = rearrange(outputs, "e n d -> (e n) d") * rearrange(weight, "b c e -> (e b c) 1")
        mixed = torch.zeros_like(tokens).index_add(0, positions, outputs.to(tokens))

        num_valid = valid.sum()
        self.load(torch.full_like(self.router.weight[:, 0], 1 / self.num_experts), num_valid)
        if self.drops.has_listeners:
            choices = repeat(within_capacity.long(), "b c -> (e b c)", e=self.num_experts)
            times_taken = positions.new_zeros(batch * seq).index_add(0, positions, choices)
            untaken = valid & rearrange(times_taken == 0, "(b s) -> b s", b=batch)
            self.drops(untaken.sum() / num_valid, num_valid)
        return rearrange(mixed, "(b s) d -> b s d", b=batch), {}

    def _route(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq expert"]:
        # In float32 under any precision, as in the other mixtures of experts.
        with torch.autocast(x.device.type, enabled=False):
            exact = torch.promote_types(x.dtype, torch.float32)
            scores = F.linear(x.to(exact), self.router.weight.to(exact))
        return self.probability(scores.softmax(dim=-1))


def _expert_weights(*shape: int) -> nn.Parameter:
    """Build the stacked matrices of all experts, each initialised like an nn.Linear."""
    bound = shape[-2] ** -0.5
    return nn.Parameter(nn.init.uniform_(torch.empty(shape), -bound, bound))
