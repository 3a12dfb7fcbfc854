"""Equal budgets: the widths at which a model costs as much as a reference or a budget."""

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
"""Number of parameters below which one more unit of width is a large step."""
ROUNDS = 2
"""Number of widths that are tried on either side of the budget."""
FARTHEST = 10_000
"""Largest ratio of the budget to the cost at the start, or of that cost to the budget."""
WIDEST_STEP = 64
"""Largest unit of which admissible widths may be multiples."""

Node = dict[str, Any]
"""The config of a model."""


class Widths(NamedTuple):
    """The widths to solve for: d_model, and the expansion of the feed-forward network, if any.

    The network has about expansion * d_model hidden units, as its class rounds them.
    """

    d_model: int
    expansion: float | None = None


@ranged
class Match(ABC):
    """Finds the widths at which a model costs as much as a budget, or as a reference variant.

    A deviation of more than 1 % is an error; of more than 3 % if the reference (without one, the
    model itself) has less than a million parameters.
    """

    unit: ClassVar[str]
    device: ClassVar[str]
    """The device on which a model is built to be counted."""

    def __init__(self, *, budget: Positive | None = None, variant: str = "multihead") -> None:
        self.budget, self.variant = budget, variant

    @abstractmethod
    def count(self, model: Model, objective: Objective) -> float:
        """Return what a model costs, in `unit`."""


class Parameters(Match):
    """Counts all parameters, those of unused experts too."""

    unit, device = "parameters", "meta"

    def count(self, model: Model, objective: Objective) -> int:
        return parameters(model)


class FLOPs(Match):
    """Counts the forward FLOPs per token at the training length, of the experts that it uses."""

    # The meta device has no grouped product in float32, which a mixture of experts needs.
    unit, device = "FLOPs per token", "cpu"

    def count(self, model: Model, objective: Objective) -> float:
        inputs = objective.training_batch(objective.dataset.splits["train"].batch(np.arange(1)))
        return flops(model, *inputs.model_inputs) / inputs.num_tokens


def match_widths(
    match: Match,
    values: Mapping[str, Any],
    overrides: Sequence[str],
    objective: Objective,
    compose: Callable[[Sequence[str]], Node],
    build: Callable[[Node], Model],
) -> tuple[Node, str]:
    """Return the config of a model with matched widths, and a sentence on its cost.

    The sentence is empty if the same match was solved before. `compose` builds a model's config
    from overrides. Raises ConfigError if no widths are near enough.
    """
    own_overrides, common_overrides = _split_overrides(overrides)
    reference = None if match.budget else compose([*common_overrides, f"variant={match.variant}"])
    config_parts = [values[key] for key in ("match", "model", "objective", "dataset")]
    cache_key = json.dumps([*config_parts, reference], sort_keys=True)
    if cache_key in _MATCHED:
        return copy.deepcopy(_MATCHED[cache_key]), ""
    arm = MatchedArm(match, values["model"], reference, objective, build)
    arm_name = " ".join([*own_overrides, f"num_layers={arm.node['num_layers']}"])
    try:
        _MATCHED[cache_key], description = arm.solve_widths()
    except ValueError as error:
        fault = f"match: {arm_name}: {_fault_text(error)}"
        raise ConfigError([fault], is_impossible=True) from error
    return copy.deepcopy(_MATCHED[cache_key]), f"match: {arm_name}: {description}"


_MATCHED: dict[str, Node] = {}
"""Configs that were matched before, by `matched`: a sweep composes each run more than once."""


@dataclass
class MatchedArm:
    """A model whose widths are to be solved for, and how it is built."""

    match: Match
    node: Node
    reference: Node | None
    objective: Objective
    build: Callable[[Node], Model]

    def solve_widths(self) -> tuple[Node, str]:
        """Return the config of the model with its new widths, and a sentence on its cost.

        Raises ValueError if no widths are near enough.
        """
        budget, budget_source = self.budget_and_source()
        start = Widths(self.node["d_model"], (self.node.get("ffn") or {}).get("expansion"))
        widths = solve(self.count, self.require_buildable, self.largest_deviation, start, budget)
        count, allowed_deviation = self.count(widths), self.largest_deviation(widths)
        deviation = count / budget - 1
        ffn = "" if widths.expansion is None else f", ffn.expansion={widths.expansion:g}"
        cost = f"{count:,.0f} {self.match.unit}, {100 * deviation:+.2f} % of {budget:,.0f}"
        description = f"d_model={widths.d_model}{ffn}, {cost} ({budget_source})"
        if abs(deviation) > allowed_deviation:
            raise ValueError(
                f"the nearest is {description}, and {100 * allowed_deviation:.0f} % are allowed; "
                "use another match.budget, size or depth"
            )
        return self.node_with_widths(widths), description

    def budget_and_source(self) -> tuple[float, str]:
        """Return what the model should cost, and the config key that sets it."""
        if self.match.budget is not None:
            return self.match.budget, "match.budget"
        assert self.reference is not None
        budget_source = f"variant={self.match.variant}"
        try:
            return self.cost(self.reference), budget_source
        except ValueError as error:
            raise ValueError(
                f"the reference ({budget_source}) cannot be: {_fault_text(error)}"
            ) from error

    def node_with_widths(self, widths: Widths) -> Node:
        """Return the model's config with other widths."""
        if widths.expansion is None:
            return {**self.node, "d_model": widths.d_model}
        ffn = {**self.node["ffn"], "expansion": widths.expansion}
        return {**self.node, "d_model": widths.d_model, "ffn": ffn}

    def count(self, widths: Widths) -> float:
        """Return what the model costs at some widths."""
        return self.cost(self.node_with_widths(widths))

    def cost(self, node: Node) -> float:
        """Return what the model of a config costs."""
        return float(self.match.count(self.build_model(node, self.match.device), self.objective))

    def require_buildable(self, widths: Widths) -> None:
        """Raise ValueError unless a model of these widths can be built and read a token."""
        # Most errors are raised here already, where building costs nothing.
        self.build_model(self.node_with_widths(widths), "meta")
        model = self.build_model(self.node_with_widths(widths), "cpu").eval()
        token = torch.zeros(1, 1, dtype=torch.long)
        with torch.no_grad():
            model(token, prefix=token if model.arrangement.encoder else None)

    def largest_deviation(self, widths: Widths) -> float:
        """Return the largest deviation from the budget, as a share of it."""
        deciding_model = self.build_model(self.reference or self.node_with_widths(widths), "meta")
        return 0.03 if parameters(deciding_model) < SMALL else 0.01

    def build_model(self, node: Node, device: str) -> Model:
        """Return a model built on a device, without a change of the random state."""
        with torch.random.fork_rng(devices=[]), torch.device(device):
            return self.build(node)


def solve(
    count: Callable[[Widths], float],
    require_buildable: Callable[[Widths], Any],
    largest_deviation: Callable[[Widths], float],
    start: Widths,
    budget: float,
) -> Widths:
    """Return widths whose `count` is near enough to a budget, else the nearest that were tried.

    d_model is a multiple of the smallest unit that `require_buildable` accepts. Of the two
    multiples around the budget, each also with the feed-forward network widened or narrowed towards
    the budget, the nearest is taken. If it deviates by more than `largest_deviation` (a share of
    the budget), the next multiples outwards are tried.

    Raises ValueError if there is no such unit, or the budget is far from the count at the start.
    """
    count = cache(count)
    unit = _find_unit(start.d_model, lambda width: require_buildable(start._replace(d_model=width)))

    def widths_at(multiple: int) -> Widths:
        return start._replace(d_model=multiple * unit)

    start_widths = widths_at(max(1, start.d_model // unit))
    budget_ratio = budget / count(start_widths)
    if not 1 / FARTHEST < budget_ratio < FARTHEST:
        raise ValueError(
            f"the budget of {budget:,.0f} is far from the {count(start_widths):,.0f} at "
            f"d_model={start_widths.d_model}; give a model.d_model that is nearer"
        )

    @cache
    def ffn_unit() -> int:
        return _find_unit(
            _d_ffn(start_widths), lambda d_ffn: require_buildable(_with_ffn(start_widths, d_ffn))
        )

    def nearest_to_budget(candidates: Iterable[Widths]) -> Widths:
        return min(candidates, key=lambda widths: abs(count(widths) - budget))

    # Most of a model's cost grows with the square of its width.
    estimated_units = round(start_widths.d_model / unit * budget_ratio**0.5)
    num_units = _last_number_within(
        budget, lambda multiple: count(widths_at(multiple)), estimated_units
    )
    # One unit of d_model is a large step in cost, so the network's width closes the gap at each of
    # them. Without that, the nearest multiple can be farther from the budget than the limit.
    best_widths = start_widths
    for distance in range(ROUNDS):
        multiples = (num_units - distance, num_units + 1 + distance)
        neighbouring_widths = [widths_at(multiple) for multiple in multiples if multiple > 0]
        best_widths = nearest_to_budget([best_widths, *neighbouring_widths])
        if count(best_widths) != budget and start.expansion is not None:
            widths_with_tuned_ffn = (
                _widths_with_tuned_ffn(count, widths, ffn_unit(), budget)
                for widths in neighbouring_widths
            )
            best_widths = nearest_to_budget([best_widths, *itertools.chain(*widths_with_tuned_ffn)])
        if abs(count(best_widths) - budget) <= largest_deviation(best_widths) * budget:
            break
    if best_widths.expansion == start.expansion:
        return best_widths
    return _round_expansion(count, best_widths)


def _widths_with_tuned_ffn(
    count: Callable[[Widths], float], widths: Widths, unit: int, budget: float
) -> list[Widths]:
    """Return the two FFN widths around a budget; none if the count does not depend on them."""

    def widths_at(multiple: int) -> Widths:
        return _with_ffn(widths, multiple * unit)

    def cost(multiple: int) -> float:
        return _cost_or_zero(count, widths_at(multiple))

    start_units = max(1, _d_ffn(widths) // unit)
    # The cost of the network is linear in its width, up to a rounding in its class.
    cost_per_unit = (cost(2 * start_units) - cost(start_units)) / start_units
    if not cost_per_unit:
        return []
    estimated_units = max(0, start_units + round((budget - cost(start_units)) / cost_per_unit))
    num_units = _last_number_within(budget, cost, estimated_units)
    return [widths_at(multiple) for multiple in (num_units, num_units + 1) if cost(multiple)]


def _round_expansion(count: Callable[[Widths], float], widths: Widths) -> Widths:
    """Return the widths with the expansion of fewest digits that has the same count."""
    assert widths.expansion is not None
    for digits in itertools.count():
        rounded = widths._replace(expansion=round(widths.expansion, digits))
        if _cost_or_zero(count, rounded) == count(widths):
            return rounded
    raise AssertionError


def _cost_or_zero(count: Callable[[Widths], float], widths: Widths) -> float:
    try:
        return count(widths)
    except ValueError:
        # The feed-forward network is too narrow to be built.
        return 0.0


def _find_unit(width: int, require_buildable: Callable[[int], Any]) -> int:
    """Return the smallest unit of which two adjacent multiples near a width can be built."""
    # Two neighbours must pass: with 8 heads, 96 fits a unit of 1 by chance, and 97 does not. The
    # search would then try widths at which no model can be built.
    require_buildable = cache(require_buildable)
    first_error = None
    for unit in range(1, WIDEST_STEP + 1):
        multiple = max(1, width // unit)
        try:
            require_buildable(multiple * unit)
            require_buildable((multiple + 1) * unit)
            return unit
        except ValueError as error:
            first_error = first_error or error
    assert first_error is not None
    raise ValueError(
        f"no multiples of up to {WIDEST_STEP} near {width} work: {_fault_text(first_error)}"
    )


def _last_number_within(budget: float, count: Callable[[int], float], start: int) -> int:
    """Return the last whole number from 0 on whose count, which grows, is within a budget."""
    # Strides double around the start, then the gap is halved, since each count builds a model. A
    # count that does not grow would double them for ever; a stride above the budget ends that.
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
    """Return the widths with the middle expansion of those that give `d_ffn` hidden units."""
    return widths._replace(expansion=(d_ffn + 0.5) / widths.d_model)


def _split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split overrides into those of an arm alone, and those that its reference gets too.

    Depth and size are common; all other overrides of the model are the arm's own.
    """
    own_overrides, common_overrides = [], []
    for override in overrides:
        key = re.split("[=@]", override.lstrip("+~"))[0]
        section = re.split("[./]", key)[0]
        if section in ("variant", "model") and key not in ("model.num_layers", "model.d_model"):
            own_overrides.append(override)
        elif section != "match":
            common_overrides.append(override)
    return own_overrides, common_overrides


def _fault_text(error: ValueError) -> str:
    return "; ".join(getattr(error, "faults", [str(error)]))
