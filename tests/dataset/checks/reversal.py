"""The answer is the row from its end."""


def answers(words: list[str], task) -> list[str]:
    return [*words[::-1], task.end]
