"""The mixture-of-experts feed-forward network."""

import math

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.ffn.base import FFN, Losses
from attnlab.tap import Gauge, Tap


class MoE(FFN):
    """Sends each token to its `top_k` best experts alone (Shazeer et al. 2017; Fedus et al. 2022).

    Tokens are sorted by expert, and each expert multiplies its own run of them (a grouped product),
    so an unselected expert contributes exactly 0 and is not computed. With top_k=1 the output is
    scaled by the router's probability, which is what trains the router (Fedus et al., sec. 2.1);
    with more, the chosen probabilities are divided by their sum (Jiang et al. 2024, eq. 2).
    `capacity` drops assignments above that multiple of an equal share in training, never in
    evaluation; None drops nothing.

    The taps `load` (share of assignments per expert, padding apart) and `drops` (share of
    assignments above capacity) say where tokens went; `probability` is the router's own. Experts
    have no biases, as in both papers.
    """

    def __init__(
        self,
        d_model: int,
        *,
        num_experts: int = 8,
        top_k: int = 2,
        expansion: float = 2.0,
        balance: float = 0.01,
        capacity: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        d_ffn = int(expansion * d_model)
        if not 1 <= top_k <= num_experts:
            raise ValueError(f"top_k={top_k} must lie in 1..num_experts={num_experts}")
        if capacity is not None and capacity <= 0:
            raise ValueError(f"capacity={capacity} must be a positive share, or null for no limit")
        if d_model % 8 or d_ffn % 8 or not d_ffn:
            raise ValueError(
                f"d_model={d_model} and d_ffn={d_ffn} must be multiples of 8: the grouped product "
                "needs rows of whole 16 bytes"
            )
        self.num_experts, self.top_k = num_experts, top_k
        self.balance, self.capacity = balance, capacity
        self.router = nn.Linear(d_model, num_experts, bias=False)
        self.expand = nn.Parameter(_expert_weights(num_experts, d_model, d_ffn))
        self.contract = nn.Parameter(_expert_weights(num_experts, d_ffn, d_model))
        self.dropout = nn.Dropout(dropout)
        self.probability, self.load, self.drops = Tap(), Gauge(), Gauge()

    @property
    def idle_parameters(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        per_expert = self.expand[0].numel() + self.contract[0].numel()
        return (self.num_experts - self.top_k) * per_expert

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> tuple[Float[Tensor, "batch seq d_model"], Losses]:
        tokens = rearrange(x, "b s d -> (b s) d")
        counted = (
            tokens.new_ones(len(tokens)) if valid is None else rearrange(valid, "b s -> (b s)")
        )
        # The router works in float32 under any precision (Fedus et al., sec. 2.4).
        with torch.autocast(x.device.type, enabled=False):
            scores = F.linear(tokens.float(), self.router.weight.float())
        probability = self.probability(scores.softmax(dim=-1))
        weight, expert = probability.topk(self.top_k, dim=-1)
        if self.top_k > 1:
            weight = weight / reduce(weight, "t k -> t 1", "sum")
        chosen = F.one_hot(expert, self.num_experts) * rearrange(counted.to(expert), "t -> t 1 1")
        load = reduce(chosen, "t k e -> e", "sum") / (counted.sum() * self.top_k)
        self.load(load)
        kept = self._within_capacity(chosen)
        self.drops(1 - (kept * counted[:, None]).sum() / (counted.sum() * self.top_k))
        if self.training and self.capacity is not None:
            weight = weight * kept
        mixed = self._experts(tokens, weight.to(tokens), expert)
        mean = (probability * counted[:, None]).sum(dim=0) / counted.sum()
        # Fedus et al., eq. 4; 1 for an even load, before the weight.
        balance = self.balance * self.num_experts * (load.detach() * mean).sum()
        return rearrange(mixed, "(b s) d -> b s d", b=len(x)), {"balance": balance}

    def _experts(
        self,
        tokens: Float[Tensor, "token d_model"],
        weight: Float[Tensor, "token top_k"],
        expert: Int[Tensor, "token top_k"],
    ) -> Float[Tensor, "token d_model"]:
        assigned = rearrange(expert, "t k -> (t k)")
        order = assigned.argsort(stable=True)
        source = order // self.top_k
        ends = torch.bincount(assigned, minlength=self.num_experts).cumsum(0).int()
        hidden = F.gelu(_grouped(tokens.index_select(0, source), self.expand, ends))
        out = _grouped(self.dropout(hidden), self.contract, ends).to(tokens)
        share = rearrange(weight, "t k -> (t k) 1").index_select(0, order)
        return torch.zeros_like(tokens).index_add(0, source, out * share)

    def _within_capacity(
        self, chosen: Int[Tensor, "token top_k expert"]
    ) -> Bool[Tensor, "token top_k"]:
        """Keep the assignments that come first: every first choice before any second one."""
        num_tokens = len(chosen)
        if self.capacity is None:
            return chosen.new_ones(num_tokens, self.top_k, dtype=torch.bool)
        room = math.ceil(self.capacity * num_tokens * self.top_k / self.num_experts)
        queue = rearrange(chosen, "t k e -> (k t) e")
        rank = (queue.cumsum(dim=0) * queue).sum(dim=-1)
        return rearrange(rank <= room, "(k t) -> t k", t=num_tokens)


def _grouped(
    x: Float[Tensor, "token d_in"],
    weights: Float[Tensor, "expert d_in d_out"],
    ends: Int[Tensor, " expert"],
) -> Float[Tensor, "token d_out"]:
    if torch.is_autocast_enabled(x.device.type):
        low = torch.get_autocast_dtype(x.device.type)
        x, weights = x.to(low), weights.to(low)
    if x.dtype is torch.float64:
        # The library's grouped product knows no float64.
        parts = x.tensor_split(ends[:-1].tolist())
        return torch.cat([part @ w for part, w in zip(parts, weights, strict=True)])
    return F.grouped_mm(x, weights, offs=ends)


def _expert_weights(num_experts: int, d_in: int, d_out: int) -> Float[Tensor, "expert d_in d_out"]:
    """Start each expert as nn.Linear starts."""
    return nn.init.uniform_(torch.empty(num_experts, d_in, d_out), -(d_in**-0.5), d_in**-0.5)
