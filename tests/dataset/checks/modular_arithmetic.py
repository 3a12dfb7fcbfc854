"""Python's own arithmetic, whose integers do not overflow."""

import re


def answers(words: list[str], task) -> dict[int, str]:
    text = "".join(words)
    assert re.fullmatch(r"\d+([-+*]\d+)*=", text)
    return {len(words) - 1: str(eval(text[:-1]) % task.modulus)}
