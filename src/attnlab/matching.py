"""Equal budgets: the widths at which one model costs what another one does."""

import copy
import itertools
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from attnlab.errors import ConfigError
from attnlab.model.base import Model, parameters
from attnlab.model.cost import flops
from attnlab.objective.base import Objective
from attnlab.ranges import Positive, ranged

SMALL = 1_000_000
"""Parameters below which one more unit of width is a large step."""
ROUNDS = 2
"""How many widths on either side of the budget may be tried."""
FARTHEST = 10_000
"""How many times the cost at the start the budget may be, or the reverse."""
WIDEST_STEP = 64
"""Units between admissible widths."""

Node = dict[str, Any]
"""The config of a model."""


class Widths(NamedTuple):
    """What is solved for: a model's width, and its feed-forward network's over it, if it has one.

    That network has about expansion * d_model hidden units, as its class rounds them.
    """

    d_model: int
    expansion: float | None = None


@ranged
class Match(ABC):
    """Finds the widths at which a model costs as much as a budget, or as a reference variant.

    What is off by more than 1 % is refused; by more than 3 % where the reference, or without one
    the model itself, has less than a million parameters.
    """

    unit: ClassVar[str]
    device: ClassVar[str]
    """Where a model is built to be counted."""

    def __init__(self, *, budget: Positive | None = None, variant: str = "multihead") -> None:
        self.budget, self.variant = budget, variant

    @abstractmethod
    def count(self, model: Model, objective: Objective) -> float:
        """Count what a model costs."""


class Parameters(Match):
    """Counts all parameters, those of unused experts too."""

    unit, device = "parameters", "meta"

    def count(self, model: Model, objective: Objective) -> int:
        return parameters(model)


class FLOPs(Match):
    """Counts the forward FLOPs per token at the training length, of the experts that it uses."""

    # The grouped product of a mixture of experts is not there on the meta device in float32.
    unit, device = "FLOPs per token", "cpu"

    def count(self, model: Model, objective: Objective) -> float:
        asked = objective.ask(objective.dataset.splits["train"].batch(np.arange(1)))
        return flops(model, *asked.given) / asked.num_tokens


def matched(
    match: Match,
    values: Mapping[str, Any],
    overrides: Sequence[str],
    objective: Objective,
    compose: Callable[[Sequence[str]], Node],
    build: Callable[[Node], Model],
) -> tuple[Node, str]:
    """Give the model of a config the widths that match, and say what it costs, the first time.

    `compose` makes the config of a model from overrides. Raises ConfigError where nothing is near.
    """
    own, common = _parted(overrides)
    reference = None if match.budget else compose([*common, f"variant={match.variant}"])
    parts = [values[key] for key in ("match", "model", "objective", "dataset")]
    known = json.dumps([*parts, reference], sort_keys=True)
    if known in _KNOWN:
        return copy.deepcopy(_KNOWN[known]), ""
    arm = Arm(match, values["model"], reference, objective, build)
    name = " ".join([*own, f"num_layers={arm.node['num_layers']}"])
    try:
        _KNOWN[known], said = arm.solved()
    except ValueError as error:
        raise ConfigError([f"match: {name}: {_told(error)}"]) from error
    return copy.deepcopy(_KNOWN[known]), f"match: {name}: {said}"


_KNOWN: dict[str, Node] = {}
"""What was matched before: a sweep composes each of its runs more than once."""


@dataclass
class Arm:
    """A model whose widths are sought, and how it is built."""

    match: Match
    node: Node
    reference: Node | None
    objective: Objective
    build: Callable[[Node], Model]

    def solved(self) -> tuple[Node, str]:
        """Give the config of the model with its new widths, and say what it costs.

        Raises ValueError where nothing is near enough.
        """
        budget, whose = self.budget()
        start = Widths(self.node["d_model"], (self.node.get("ffn") or {}).get("expansion"))
        found = solve(self.count, self.require, self.limit, start, budget)
        amount, most = self.count(found), self.limit(found)
        off = amount / budget - 1
        ffn = "" if found.expansion is None else f", ffn.expansion={found.expansion:g}"
        cost = f"{amount:,.0f} {self.match.unit}, {100 * off:+.2f} % of {budget:,.0f} ({whose})"
        said = f"d_model={found.d_model}{ffn}, {cost}"
        if abs(off) > most:
            raise ValueError(
                f"the nearest is {said}, and {100 * most:.0f} % are allowed; use another "
                "match.budget, size or depth"
            )
        return self.at(found), said

    def budget(self) -> tuple[float, str]:
        """Say what the model should cost, and who says so."""
        if self.match.budget is not None:
            return self.match.budget, "match.budget"
        assert self.reference is not None
        whose = f"variant={self.match.variant}"
        try:
            return self.cost(self.reference), whose
        except ValueError as error:
            raise ValueError(f"the reference ({whose}) cannot be: {_told(error)}") from error

    def at(self, widths: Widths) -> Node:
        """Give the model's config other widths."""
        if widths.expansion is None:
            return {**self.node, "d_model": widths.d_model}
        ffn = {**self.node["ffn"], "expansion": widths.expansion}
        return {**self.node, "d_model": widths.d_model, "ffn": ffn}

    def count(self, widths: Widths) -> float:
        """Count what the model costs at some widths."""
        return self.cost(self.at(widths))

    def cost(self, node: Node) -> float:
        """Count what a model costs."""
        return float(self.match.count(self.made(node, self.match.device), self.objective))

    def require(self, widths: Widths) -> None:
        """Raise ValueError unless a model of these widths can be built and read a token."""
        # Most of what cannot be is refused here, where building costs nothing.
        self.made(self.at(widths), "meta")
        model = self.made(self.at(widths), "cpu").eval()
        token = torch.zeros(1, 1, dtype=torch.long)
        with torch.no_grad():
            model(token, prefix=token if model.arrangement.encoder else None)

    def limit(self, widths: Widths) -> float:
        """Say how far from the budget is near enough, as a share of it."""
        decides = self.made(self.reference or self.at(widths), "meta")
        return 0.03 if parameters(decides) < SMALL else 0.01

    def made(self, node: Node, device: str) -> Model:
        """Build a model, and leave the random state as it was."""
        with torch.random.fork_rng(devices=[]), torch.device(device):
            return self.build(node)


def solve(
    count: Callable[[Widths], float],
    require: Callable[[Widths], Any],
    limit: Callable[[Widths], float],
    start: Widths,
    budget: float,
) -> Widths:
    """Find widths whose `count` is within `limit` of a budget, else the nearest that it tries.

    First d_model, on the grid of what `require` lets pass: of the two widths around the budget,
    each with its feed-forward network widened or narrowed towards it, the nearer one. Where that
    is not within the limit, the next widths outwards are tried.

    Raises ValueError where there is no grid, or the budget is far from the count at the start.
    """
    count = cache(count)
    step = _step(start.d_model, lambda width: require(start._replace(d_model=width)))

    def wide(times: int) -> Widths:
        return start._replace(d_model=times * step)

    first = wide(max(1, start.d_model // step))
    ratio = budget / count(first)
    if not 1 / FARTHEST < ratio < FARTHEST:
        raise ValueError(
            f"the budget of {budget:,.0f} is far from the {count(first):,.0f} at "
            f"d_model={first.d_model}; give a model.d_model that is nearer"
        )

    @cache
    def ffn_step() -> int:
        return _step(_d_ffn(first), lambda d_ffn: require(_with_ffn(first, d_ffn)))

    def nearest(tried: Iterable[Widths]) -> Widths:
        return min(tried, key=lambda widths: abs(count(widths) - budget))

    # Most of a model grows with the square of its width.
    guess = round(first.d_model / step * ratio**0.5)
    within, best = _last_within(budget, lambda times: count(wide(times)), guess), first
    for beyond in range(ROUNDS):
        pair = (within - beyond, within + 1 + beyond)
        around = [wide(times) for times in pair if times > 0]
        best = nearest([best, *around])
        if count(best) != budget and start.expansion is not None:
            tuned = (_tuned(count, widths, ffn_step(), budget) for widths in around)
            best = nearest([best, *itertools.chain(*tuned)])
        if abs(count(best) - budget) <= limit(best) * budget:
            break
    return best if best.expansion == start.expansion else _rounded(count, best)


def _tuned(
    count: Callable[[Widths], float], widths: Widths, step: int, budget: float
) -> list[Widths]:
    """Give the widths of the feed-forward network around a budget, where the count heeds them."""

    def tune(times: int) -> Widths:
        return _with_ffn(widths, times * step)

    def cost(times: int) -> float:
        return _cost(count, tune(times))

    at = max(1, _d_ffn(widths) // step)
    # What the network costs grows evenly with its width, give or take a rounding of its own.
    each = (cost(2 * at) - cost(at)) / at
    if not each:
        return []
    guess = max(0, at + round((budget - cost(at)) / each))
    within = _last_within(budget, cost, guess)
    return [tune(times) for times in (within, within + 1) if cost(times)]


def _rounded(count: Callable[[Widths], float], widths: Widths) -> Widths:
    """Give the shortest expansion that comes to the same, for a person to write."""
    assert widths.expansion is not None
    for digits in itertools.count():
        shorter = widths._replace(expansion=round(widths.expansion, digits))
        if _cost(count, shorter) == count(widths):
            return shorter
    raise AssertionError


def _cost(count: Callable[[Widths], float], widths: Widths) -> float:
    try:
        return count(widths)
    except ValueError:
        # Its feed-forward network is too narrow to be built.
        return 0.0


def _step(near: int, require: Callable[[int], Any]) -> int:
    """Find the unit of which every multiple passes, by two neighbours near a width."""
    first, require = None, cache(require)
    for step in range(1, WIDEST_STEP + 1):
        times = max(1, near // step)
        try:
            require(times * step)
            require((times + 1) * step)
            return step
        except ValueError as error:
            first = first or error
    assert first is not None
    raise ValueError(f"no multiples of up to {WIDEST_STEP} near {near} work: {_told(first)}")


def _last_within(budget: float, count: Callable[[int], float], start: int) -> int:
    """Find the last whole number from 0 on whose count, which grows, is within a budget."""
    low, high, stride = start, start + 1, 1
    while low and count(low) > budget:
        low, high, stride = max(low - stride, 0), low, 2 * stride
    while count(high) <= budget:
        if stride > budget:
            raise ValueError("the count does not grow with the width")
        low, high, stride = high, high + stride, 2 * stride
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= budget else (low, middle)
    return low


def _d_ffn(widths: Widths) -> int:
    return int((widths.expansion or 0) * widths.d_model)


def _with_ffn(widths: Widths, d_ffn: int) -> Widths:
    """Set the expansion in the middle of those that make so many hidden units."""
    return widths._replace(expansion=(d_ffn + 0.5) / widths.d_model)


def _parted(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part overrides into what makes an arm that arm, and what it has in common with a reference.

    Depth and size are common; whatever else is said of the model is its own.
    """
    own, common = [], []
    for text in overrides:
        key = re.split("[=@]", text.lstrip("+~"))[0]
        room = re.split("[./]", key)[0]
        if room in ("variant", "model") and key not in ("model.num_layers", "model.d_model"):
            own.append(text)
        elif room != "match":
            common.append(text)
    return own, common


def _told(error: ValueError) -> str:
    return "; ".join(getattr(error, "faults", [str(error)]))
