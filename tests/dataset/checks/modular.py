"""Tries every answer until the sum is right."""


def answers(words: list[str], task) -> dict[int, str]:
    a, sign, b, end = words
    assert end == "="
    x, y, p = int(a), int(b), task.prime
    is_right = {
        "+": lambda c: (c - x - y) % p == 0,
        "-": lambda c: (c + y - x) % p == 0,
        "*": lambda c: (c - x * y) % p == 0,
        "/": lambda c: (c * y - x) % p == 0,
    }[sign]
    (right,) = (c for c in range(p) if is_right(c))
    return {3: str(right)}
