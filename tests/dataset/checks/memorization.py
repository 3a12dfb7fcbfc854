"""Asked at each question mark; what a key was once answered with is its answer for good."""

from weakref import WeakKeyDictionary

from tests.dataset.checks import Either

LEARNT: WeakKeyDictionary = WeakKeyDictionary()


def answers(words, task):
    facts = LEARNT.setdefault(task, {})
    assert all((word == "?") == (at % 2 == 1) for at, word in enumerate(words))

    def right(given):
        for at, value in given.items():
            facts.setdefault(words[at - 1], value)
        return (
            set(given) == {at for at, word in enumerate(words) if word == "?"}
            and all(facts[words[at - 1]] == value for at, value in given.items())
            and len(set(facts.values())) == len(facts)
            and all(value.startswith("v") for value in facts.values())
        )

    return Either(right)
