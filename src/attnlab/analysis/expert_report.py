"""The experts of a trained mixture-of-experts run: their load, and which tokens they process.

import attnlab
from attnlab.analysis.expert_report import expert_report

report = expert_report(attnlab.load("pronoun-moe"), "test")
for layer in report.layers:
    print(layer.layer, layer.balance, layer.token_information, layer.tokens[0].shares)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, SupportsIndex

from jaxtyping import Float
from torch import Tensor

from attnlab.analysis.head_choice import require_number
from attnlab.analysis.report import Report
from attnlab.errors import RequestError
from attnlab.interp.expert_routing import Routing, compute_routing
from attnlab.layers import ExpertLayer

if TYPE_CHECKING:
    # It imports Lightning, which takes seconds, and --help or a refused request must not wait.
    from attnlab.loaded_run import LoadedRun

EXAMPLES = 512
"""The number of sequences whose routing is recorded."""
TOKENS = 12
"""The number of tokens of a layer that a report holds."""


@dataclass(frozen=True)
class TokenExperts:
    """The experts that process a token."""

    token: str
    count: int
    """The number of its assignments."""
    shares: Sequence[float]
    """The share of its assignments, by expert."""


@dataclass(frozen=True, eq=False)
class LayerExperts:
    """The experts of a layer (`attnlab.interp.expert_routing.Routing`)."""

    layer: int
    """The number of the layer, counted from 0 among those of experts."""
    name: str
    """The path of the module."""
    load: Float[Tensor, " expert"]
    """The share of all assignments, by expert."""
    dead: Sequence[int]
    """The experts without assignments."""
    drops: float
    """The share of assignments above capacity; with expert choice, of tokens not taken."""
    balance: float
    """The entropy of the load over log(experts): 1 for an even load."""
    router_entropy: float
    """The mean entropy of the router's probabilities over log(experts)."""
    token_information: float
    """The information that a token has on its experts: 0 by chance, 1 where it determines them."""
    co_assignment: Float[Tensor, "expert other"]
    """The share of tokens that are routed to both experts."""
    tokens: Sequence[TokenExperts]
    """The most frequent tokens first."""


@dataclass(frozen=True, eq=False)
class ExpertReport(Report):
    """The load and the tokens of the experts of each layer."""

    run: str
    step: int
    split: str
    layers: Sequence[LayerExperts]


def expert_report(
    run: "LoadedRun",
    split: str = "validation",
    layer: SupportsIndex | None = None,
    *,
    num_examples: int = EXAMPLES,
    num_tokens: int = TOKENS,
) -> ExpertReport:
    """Return which tokens a run routes to which experts on the first examples of a split.

    `layer` selects one of the layers of experts, by its number.
    Raises RequestError for a run without experts, and for an unknown split or layer.
    """
    if split not in run.dataset.split_names:
        split_names = ", ".join(run.dataset.split_names)
        raise RequestError(f"the data have no {split} split; there is {split_names}")
    try:
        routing_by_layer = compute_routing(
            run.subject, run.dataset.splits[split], num_examples=num_examples
        )
    except LookupError as error:
        raise RequestError(
            f"{run.record.name} has no experts; train one with variant=moe"
        ) from error
    layer_index = None if layer is None else require_number("layer", layer)
    if layer_index is not None and not 0 <= layer_index < len(routing_by_layer):
        raise RequestError(
            f"layer {layer_index} of experts: the run has {len(routing_by_layer)} of them, "
            "counted from 0"
        )
    token_names = list(run.objective.inputs)
    layers = [
        _report_layer(expert_layer, layer_routing, token_names, num_tokens)
        for expert_layer, layer_routing in routing_by_layer.items()
        if layer_index in (None, expert_layer.index)
    ]
    return ExpertReport(run.record.name, run.step, split, layers)


def _report_layer(
    layer: ExpertLayer, layer_routing: Routing, token_names: Sequence[str], num_tokens: int
) -> LayerExperts:
    """Return the load of a layer's experts, and which experts process its most frequent tokens."""
    counts, shares = layer_routing.assignment_counts.sum(dim=1), layer_routing.shares
    token_ids: list[int] = counts.argsort(descending=True, stable=True)[:num_tokens].tolist()
    return LayerExperts(
        layer=layer.index,
        name=layer.path,
        load=layer_routing.load,
        dead=layer_routing.dead_experts,
        drops=layer_routing.drops,
        balance=layer_routing.balance,
        router_entropy=layer_routing.normalised_entropy,
        token_information=layer_routing.token.normalised_information,
        co_assignment=layer_routing.co_assignment,
        tokens=[
            TokenExperts(token_names[token_id], int(counts[token_id]), shares[token_id].tolist())
            for token_id in token_ids
            if counts[token_id]
        ],
    )
