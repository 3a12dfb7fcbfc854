"""Reads the pairs off; each key is asked at one of the even places where it comes again."""

from tests.dataset.checks import Either


def answers(words, task):
    told = 2 * task.num_pairs
    values = dict(zip(words[:told:2], words[1:told:2], strict=True))

    def right(given):
        asked = [words[at] for at in given]
        return (
            sorted(asked) == sorted(values)
            and all(at >= told and at % 2 == 0 for at in given)
            and all(values[words[at]] == label for at, label in given.items())
        )

    return Either(right)
