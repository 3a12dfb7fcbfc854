"""The mixture-of-experts feed-forward network."""

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.ffn.base import FFN, Losses
from attnlab.padding import add_padding
from attnlab.ranges import (
    Expansion,
    FewCountOrZero,
    NotNegative,
    Positive,
    ShareBelowOne,
    Width,
    ranged,
)
from attnlab.tap import Gauge, Tap


@ranged
class MoE(FFN):
    """Sends each token to its `top_k` best experts alone (Shazeer et al. 2017; Fedus et al. 2022).

    Tokens are sorted by expert, and each expert multiplies its own run of them, so an unselected
    expert contributes exactly 0 and is not computed. With top_k=1 the output is scaled by the
    router's probability, which is what trains the router (Fedus et al., sec. 2.1); with more, the
    chosen probabilities are divided by their sum (Jiang et al. 2024, sec. 2.1). `capacity` drops
    assignments above that multiple of an equal share in training, never in evaluation; None drops
    nothing.

    Experts have no biases, as in these papers, and bend by GELU, or by SwiGLU where they are
    `gated` (Jiang et al.). So many `shared` ones work on every token at weight 1 (Dai et al. 2024,
    sec. 3.2; they leave the chosen probabilities undivided). d_ffn is the multiple of 8 nearest to
    expansion x d_model, for each expert.

    `balance` weighs the loss of Fedus et al. (eq. 4), whose load is a share of all assignments.
    Mixtral's code adds up the loads of the first choice, the second, and so on, so that its
    coefficient c means balance = c x top_k here.

    The taps `load` (share of assignments per expert, padding apart) and `drops` (share of
    assignments above capacity) say where tokens went; `probability` is the router's own.
    """

    def __init__(
        self,
        d_model: int,
        *,
        num_experts: Width = 8,
        top_k: Width = 2,
        expansion: Expansion = 2.0,
        gated: bool = False,
        shared: FewCountOrZero = 0,
        balance: NotNegative = 0.01,
        capacity: Positive | None = None,
        dropout: ShareBelowOne = 0.0,
    ) -> None:
        super().__init__()
        d_ffn = 8 * round(expansion * d_model / 8)
        if top_k > num_experts:
            raise ValueError(f"top_k={top_k} must lie in 1..num_experts={num_experts}")
        if d_model % 8:
            raise ValueError(
                f"d_model={d_model} must be a multiple of 8: the grouped product needs rows of "
                "whole 16 bytes"
            )
        if d_ffn < 8:
            raise ValueError(
                f"expansion={expansion} of d_model={d_model} leaves an expert no hidden unit"
            )
        self.num_experts, self.top_k = num_experts, top_k
        self.balance, self.capacity = balance, capacity
        self.router = nn.Linear(d_model, num_experts, bias=False)
        self.expand = _expert_weights(num_experts, d_model, d_ffn)
        self.contract = _expert_weights(num_experts, d_ffn, d_model)
        self.gate = _expert_weights(num_experts, d_model, d_ffn) if gated else None
        # Shared experts see every token, so they are computed as one wide expert.
        self.shared = nn.ModuleDict()
        if shared:
            self.shared["expand"] = nn.Linear(d_model, shared * d_ffn, bias=False)
            self.shared["contract"] = nn.Linear(shared * d_ffn, d_model, bias=False)
        if shared and gated:
            self.shared["gate"] = nn.Linear(d_model, shared * d_ffn, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.probability, self.load, self.drops = Tap(), Gauge(), Gauge()

    @property
    def idle_parameters(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return (self.num_experts - self.top_k) * sum(w[0].numel() for w in self._expert_stacks())

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> tuple[Float[Tensor, "batch seq d_model"], Losses]:
        tokens = rearrange(x, "b s d -> (b s) d")
        token_valid = None if valid is None else rearrange(valid, "b s -> (b s)")
        probability = self._route(tokens)
        weight, expert = probability.topk(self.top_k, dim=-1)
        if self.top_k > 1:
            weight = weight / reduce(weight, "t k -> t 1", "sum")

        # Sort assignments by expert; a run has first choices before second, and padding at its end.
        is_padding = 0 if token_valid is None else rearrange(~token_valid, "t -> t 1")
        sorted_keys, order = rearrange(2 * expert + is_padding, "t k -> (k t)").sort(stable=True)
        run_edges = torch.arange(2 * self.num_experts + 1, device=x.device)
        run_edges = torch.searchsorted(sorted_keys, run_edges)
        starts, assignments = run_edges[:-1:2], run_edges[1::2] - run_edges[:-1:2]
        load = assignments / assignments.sum()
        self.load(load, assignments.sum())
        weight = rearrange(weight, "t k -> (k t)").index_select(0, order)
        if self.capacity is None:
            self.drops(torch.zeros_like(load[0]), assignments.sum())
        else:
            capacity = (self.capacity * assignments.sum() / self.num_experts).ceil()
            self.drops(
                (assignments - capacity).clamp(min=0).sum() / assignments.sum(), assignments.sum()
            )
            if self.training:
                rank = torch.arange(len(sorted_keys), device=x.device) - starts[sorted_keys // 2]
                weight = weight * (rank < capacity)

        mixed = self._mix_experts(
            tokens, order % len(tokens), weight, sorted_keys // 2, run_edges[::2]
        )
        if self.shared:
            weights = (
                rearrange(_cast_as_autocast(w), "o i -> i o") for w in self.shared.parameters()
            )
            mixed = mixed + self._apply_expert(_cast_as_autocast(tokens), *weights)
        if token_valid is None:
            mean_probability = probability.mean(dim=0)
        else:
            mean_probability = (probability * token_valid[:, None]).sum(dim=0) / token_valid.sum()
        # Fedus et al., eq. 4; 1 for an even load, before the weight.
        balance = self.balance * self.num_experts * (load * mean_probability).sum()
        return rearrange(mixed, "(b s) d -> b s d", b=len(x)), {"balance": balance}

    def _route(self, tokens: Float[Tensor, "token d_model"]) -> Float[Tensor, "token expert"]:
        # The router works in float32 at least, under any precision (Fedus et al., sec. 2.4).
        with torch.autocast(tokens.device.type, enabled=False):
            exact = torch.promote_types(tokens.dtype, torch.float32)
            scores = self.router.weight.to(exact) @ rearrange(tokens.to(exact), "t d -> d t")
        # Over the first axis: on a CPU, a softmax over a last axis of few experts is slow.
        return self.probability(rearrange(scores.softmax(dim=0), "e t -> t e"))

    def _mix_experts(
        self,
        tokens: Float[Tensor, "token d_model"],
        source: Int[Tensor, " assignment"],
        weight: Float[Tensor, " assignment"],
        expert: Int[Tensor, " assignment"],
        edges: Int[Tensor, " edge"],
    ) -> Float[Tensor, "token d_model"]:
        """Return the weighted sum of the experts' outputs for each token.

        Assignments are sorted by expert; expert i has the run from `edges[i]` to `edges[i + 1]`.
        """
        low_tokens, stacks = (
            _cast_as_autocast(tokens),
            [_cast_as_autocast(weights) for weights in self._expert_stacks()],
        )
        mixed = torch.zeros_like(tokens)
        # On a CPU the library's grouped product is a loop too, and one expert's numbers stay in
        # the cache from one operation to the next. It knows no float64.
        if tokens.device.type != "cpu" and low_tokens.dtype is not torch.float64:
            outputs = self._apply_expert(
                low_tokens.index_select(0, source), *stacks, ends=edges[1:].int()
            )
            return mixed.index_add(0, source, (outputs * rearrange(weight, "a -> a 1")).to(mixed))
        if low_tokens.dtype in (torch.bfloat16, torch.float16):
            num_assignments = len(source)
            source, weight, edges = _pad_runs_to_blocks(source, weight, expert, edges)
            matrices = sum(weights[0].numel() for weights in stacks)
            add_padding(2 * (len(source) - num_assignments) * matrices)
        sizes = edges.diff().tolist()
        runs = zip(
            low_tokens.index_select(0, source).split(sizes),
            source.split(sizes),
            rearrange(weight, "a -> a 1").split(sizes),
            *(weights.unbind() for weights in stacks),
            strict=True,
        )
        for run_tokens, token_indices, run_weight, *weights in runs:
            if len(run_tokens):
                mixed.index_add_(
                    0,
                    token_indices,
                    (self._apply_expert(run_tokens, *weights) * run_weight).to(mixed),
                )
        return mixed

    def _expert_stacks(self) -> list[nn.Parameter]:
        return [self.expand, self.contract] + ([] if self.gate is None else [self.gate])

    def _apply_expert(
        self,
        tokens: Float[Tensor, "token d_model"],
        expand: Tensor,
        contract: Tensor,
        gate: Tensor | None = None,
        *,
        ends: Int[Tensor, " expert"] | None = None,
    ) -> Float[Tensor, "token d_model"]:
        """Apply an expert to a run of tokens; with `ends`, one expert to each run up to an end."""

        def multiply(x: Tensor, weights: Tensor) -> Tensor:
            return x @ weights if ends is None else F.grouped_mm(x, weights, offs=ends)

        hidden = multiply(tokens, expand)
        hidden = F.gelu(hidden) if gate is None else F.silu(multiply(tokens, gate)) * hidden
        return multiply(self.dropout(hidden), contract)


def _pad_runs_to_blocks(
    source: Int[Tensor, " assignment"],
    weight: Float[Tensor, " assignment"],
    expert: Int[Tensor, " assignment"],
    edges: Int[Tensor, " edge"],
) -> tuple[Int[Tensor, " row"], Float[Tensor, " row"], Int[Tensor, " edge"]]:
    """Pad each expert's run to a multiple of a block size, with token 0 at weight 0.

    For a product in low precision, a CPU first compiles a kernel for its exact shape, and without
    padding each step has new shapes. Blocks of a sixteenth of the mean run add 3 % of rows.
    """
    block = max(1, len(source) // (16 * (len(edges) - 1)))
    sizes = -(-edges.diff() // block) * block
    block_edges = F.pad(sizes.cumsum(0), (1, 0))
    destination = torch.arange(len(source), device=source.device) + (block_edges - edges)[expert]
    num_rows = int(block_edges[-1])
    return (
        source.new_zeros(num_rows).scatter(0, destination, source),
        weight.new_zeros(num_rows).scatter(0, destination, weight),
        block_edges,
    )


def _cast_as_autocast(part: Tensor) -> Tensor:
    """Return `part` in the precision of autocast, which does not cast a grouped product itself."""
    if not torch.is_autocast_enabled(part.device.type):
        return part
    return part.to(torch.get_autocast_dtype(part.device.type))


def _expert_weights(*shape: int) -> nn.Parameter:
    """Build the stacked matrices of all experts, each initialised like an nn.Linear."""
    bound = shape[-2] ** -0.5
    return nn.Parameter(nn.init.uniform_(torch.empty(shape), -bound, bound))
