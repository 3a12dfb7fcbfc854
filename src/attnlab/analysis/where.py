"""Conditions on runs, as a person writes them: `variant=moe num_layers>=2 optimizer.lr<1e-2`."""

import operator
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from attnlab.analysis.arms import shown
from attnlab.errors import RequestError

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True)
class Condition:
    """One condition: a key of a run's config or result, an operator, and a value as it is written.

    Numbers are compared as numbers. A part of a config is its class, by its name alone: it is
    `model.mixer=MultiHead`. `-` and `null` are nothing.
    """

    key: str
    operator: str
    value: str

    def holds(self, facts: Mapping[str, Any]) -> bool:
        """Return whether it holds of a run; without the key, `!=` alone does."""
        if self.key not in facts:
            return self.operator == "!="
        fact, compare = facts[self.key], OPERATORS[self.operator]
        ours, theirs = _number(fact), _number(self.value)
        if ours is not None and theirs is not None:
            return compare(ours, theirs)
        if self.operator in ("=", "!="):
            written = {shown(fact), str(fact), *(["null"] if fact is None else [])}
            return (self.value in written) == (self.operator == "=")
        return False


def conditions(where: str) -> list[Condition]:
    """Parse conditions with spaces between, all of which are to hold.

    Raises RequestError for what is none.
    """
    try:
        words = shlex.split(where)
    except ValueError as error:
        raise RequestError(f"where {where!r}: {error}") from error
    parsed = []
    for word in words:
        match = re.fullmatch(r"([\w./@-]+?)\s*(<=|>=|!=|=|<|>)\s*(.*)", word)
        if match is None:
            raise RequestError(
                f"where {word!r}: expected KEY=VALUE, or !=, <, <=, > or >= between them; several "
                "have spaces between"
            )
        parsed.append(Condition(*match.groups()))
    return parsed


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
