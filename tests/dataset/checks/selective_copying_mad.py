"""Selective copying whose last token stands right before the arrow."""

from tests.dataset.checks.selective_copying import answers as copied


def answers(words, task):
    assert words[words.index("=>") - 1] != "_"
    return copied(words, task)
