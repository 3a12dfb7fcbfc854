"""Conditions on runs, as a person writes them: `variant=moe,lstm num_layers>=2 seed!=0`."""

import operator
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from attnlab.analysis.arms import format_value, is_written_as, suggest_key
from attnlab.errors import RequestError

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}


ORDERS = ("<=", ">=", "<", ">")
MOST_VALUES = 8
"""The number of values that a message names."""


@dataclass(frozen=True)
class Condition:
    """A condition: a key of a run's config or result, an operator, and a value as text.

    Numbers are compared as numbers. The value of a config component is its choice, as in
    `model.mixer=multihead`, or the name of its class, as in `model.mixer=MultiHead`. `-` and `null`
    stand for None. For `=` and `!=`, commas separate alternatives: `variant=moe,vanilla`.
    """

    key: str
    operator: str
    value: str

    @property
    def alternatives(self) -> list[str]:
        """The values of which one is enough; only `=` and `!=` have several."""
        return [self.value] if self.operator in ORDERS else self.value.split(",")

    def holds(self, facts: Mapping[str, Any]) -> bool:
        """Return whether it holds for a run; where the run lacks the key, only `!=` holds."""
        if self.key not in facts:
            return self.operator == "!="
        fact = facts[self.key]
        if isinstance(fact, tuple):
            # Of several values, such as tags, one is enough; `!=` holds where none is equal.
            is_any_equal = any(
                matches_text(value, text) for value in fact for text in self.alternatives
            )
            return self.operator not in ORDERS and is_any_equal == (self.operator == "=")
        if self.operator in ORDERS:
            fact_number = _number_or_none(fact)
            return fact_number is not None and OPERATORS[self.operator](
                fact_number, float(self.value)
            )
        is_equal = any(matches_text(fact, text) for text in [self.value, *self.alternatives])
        return is_equal == (self.operator == "=")

    def require_possible(self, facts: Sequence[Any]) -> None:
        """Check it against what the runs have at its key.

        Raises RequestError for an order of what is no number, and for `=` with a value that no run
        has.
        """
        if self.operator in ORDERS:
            facts_with_value = [fact for fact in facts if fact is not None]
            if _number_or_none(self.value) is None:
                raise RequestError(f"where {self}: expected a number after {self.operator}")
            if facts_with_value and all(_number_or_none(fact) is None for fact in facts_with_value):
                raise RequestError(
                    f"where {self}: {self.operator} compares numbers, and a run has "
                    f"{self.key}={format_value(facts_with_value[0])}; compare texts with = or !="
                )
        elif self.operator == "=" and not any(matches_text(fact, self.value) for fact in facts):
            for text in self.alternatives:
                if not any(matches_text(fact, text) for fact in facts):
                    hint = _suggest_value(text, dict.fromkeys(map(format_value, facts)))
                    raise RequestError(f"where {self}: no run has {text!r}; {hint}")

    def __str__(self) -> str:
        return f"{self.key}{self.operator}{self.value}"


def matches_text(fact: Any, text: str) -> bool:
    """Return whether a value is the one that a person wrote as a text."""
    fact_number, text_number = _number_or_none(fact), _number_or_none(text)
    if fact_number is not None and text_number is not None:
        return fact_number == text_number
    return is_written_as(fact, text) or (fact is None and text == "null")


def parse_conditions(where: str) -> list[Condition]:
    """Parse conditions separated by spaces, all of which must hold.

    Raises RequestError for a text that is no condition.
    """
    try:
        condition_texts = shlex.split(where)
    except ValueError as error:
        raise RequestError(f"where {where!r}: {error}") from error
    conditions = []
    for text in condition_texts:
        match = re.fullmatch(r"([\w./@-]+?)\s*(<=|>=|!=|=|<|>)\s*(.*)", text)
        if match is None:
            raise RequestError(
                f"where {text!r}: expected KEY=VALUE, or !=, <, <=, > or >= between them; several "
                "have spaces between"
            )
        conditions.append(Condition(*match.groups()))
    return conditions


def _number_or_none(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _suggest_value(text: str, values: Iterable[str]) -> str:
    """Return a hint with the nearest values, or the first of all."""
    value_list = list(values)
    if not value_list:
        return "none has any"
    if len(value_list) > MOST_VALUES and not get_close_matches(text, value_list, n=1):
        return f"there are {', '.join(value_list[:MOST_VALUES])}, ..."
    return suggest_key(text, value_list)
