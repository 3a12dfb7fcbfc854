"""The answer is the question, and the end."""


def answers(words, task):
    assert len(words) == task.max_length
    return [*words, "<end>"]
