"""Which experts of a trained run work on what.

import attnlab
from attnlab.analysis.expert_report import expert_report

report = expert_report(attnlab.load("pronoun-moe"), "test")
for layer in report.layers:
    print(layer.name, layer.balance, layer.token_information, layer.tokens[0].shares)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from attnlab.analysis.report import Report
from attnlab.errors import RequestError
from attnlab.interp.routing import Routing, routing

if TYPE_CHECKING:
    # It imports Lightning, for which no help or refusal of a command should wait.
    from attnlab.loaded_run import LoadedRun

EXAMPLES = 512
"""Sequences that are followed."""
TOKENS = 12
"""Tokens of a layer that a report holds."""


@dataclass(frozen=True)
class TokenExperts:
    """Which experts work on a token."""

    token: str
    count: int
    """Its assignments."""
    shares: Sequence[float]
    """Of its assignments, by expert."""


@dataclass(frozen=True, eq=False)
class LayerExperts:
    """The experts of a layer (`attnlab.interp.routing.Routing`)."""

    name: str
    """The path of the module."""
    load: Float[Tensor, " expert"]
    """Share of all assignments."""
    dead: Sequence[int]
    """Experts without any."""
    drops: float
    """Share of assignments above capacity; where experts choose, of tokens that none took."""
    balance: float
    """The entropy of the load over log(experts): 1 where all have as much to do."""
    router_entropy: float
    """The mean entropy of the router's own probability over log(experts)."""
    token_information: float
    """What a token tells of its experts: 0 by chance, 1 where it decides."""
    together: Float[Tensor, "expert other"]
    """Share of tokens that are sent to both."""
    tokens: Sequence[TokenExperts]
    """The most frequent ones first."""


@dataclass(frozen=True, eq=False)
class ExpertReport(Report):
    """What the experts of each layer have to do."""

    run: str
    step: int
    split: str
    layers: Sequence[LayerExperts]


def expert_report(
    run: "LoadedRun",
    split: str = "validation",
    layer: int | None = None,
    *,
    num_examples: int = EXAMPLES,
    num_tokens: int = TOKENS,
) -> ExpertReport:
    """Return what the experts of a run do on the first examples of a split; of one layer, if named.

    Layers of experts are counted from 0, apart from others. Raises RequestError for a run without
    experts, and for a split or layer that is not there.
    """
    if split not in run.dataset.split_names:
        there = ", ".join(run.dataset.split_names)
        raise RequestError(f"the data have no {split} split; there is {there}")
    try:
        routed = routing(run.subject, run.dataset.splits[split], num_examples=num_examples)
    except LookupError as error:
        raise RequestError(
            f"{run.record.name} has no experts; train one with variant=moe"
        ) from error
    if layer is not None and not 0 <= layer < len(routed):
        raise RequestError(
            f"layer {layer} of experts: the run has {len(routed)} of them, counted from 0"
        )
    chosen = list(routed.items()) if layer is None else [list(routed.items())[layer]]
    names = list(run.objective.inputs)
    layers = [_layer(path, found, names, num_tokens) for path, found in chosen]
    return ExpertReport(run.record.name, run.step, split, layers)


def _layer(path: str, found: Routing, names: Sequence[str], num_tokens: int) -> LayerExperts:
    counts, shares = found.table.sum(dim=1), found.shares
    order: list[int] = counts.argsort(descending=True, stable=True)[:num_tokens].tolist()
    return LayerExperts(
        name=path,
        load=found.load,
        dead=found.dead,
        drops=found.drops,
        balance=found.balance,
        router_entropy=found.normalised_entropy,
        token_information=found.token.normalised,
        together=found.together,
        tokens=[
            TokenExperts(names[token], int(counts[token]), shares[token].tolist())
            for token in order
            if counts[token]
        ],
    )
