"""Reads the string as a nested list, and works it out from the inside."""

from statistics import median


def answers(words: list[str], task) -> dict[int, str]:
    value, rest, depth = _value(words)
    assert not rest
    assert depth <= task.max_depth
    return {len(words) - 1: str(value)}


def _value(words: list[str]) -> tuple[int, list[str], int]:
    head, *rest = words
    if head.isdigit():
        return int(head), rest, 0
    values, deepest = [], 0
    while rest[0] != "]":
        value, rest, depth = _value(rest)
        values.append(value)
        deepest = max(deepest, depth)
    assert len(values) >= 2
    work = {
        "[MIN": min,
        "[MAX": max,
        "[MED": lambda numbers: int(median(numbers)),
        "[SM": lambda numbers: sum(numbers) % 10,
    }[head]
    return work(values), rest[1:], 1 + deepest
