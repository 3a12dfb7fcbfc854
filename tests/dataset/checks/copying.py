"""The answer is the row."""


def answers(words: list[str], task) -> list[str]:
    return [*words, task.end]
