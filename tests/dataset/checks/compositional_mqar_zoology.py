"""Reads the triples off; each is asked at one of the places where its two keys come again."""

from tests.dataset.checks import Either
from tests.dataset.checks.compositional_mqar import triples


def answers(words, task):
    told, values = triples(words, task)

    def right(given):
        asked = [tuple(words[at - 1 : at + 1]) for at in given]
        return (
            sorted(asked) == sorted(values)
            and all(at > told and (at - told) % 3 == 1 for at in given)
            and all(values[pair] == given[at] for at, pair in zip(given, asked, strict=True))
        )

    return Either(right)
