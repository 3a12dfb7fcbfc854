""" "it" is the only noun of the class that the last adjective is true of."""

from attnlab.dataset.pronoun import ADJECTIVES, NOUNS


def answers(words: list[str], task) -> dict[int, str]:
    (kind,) = (name for name, listed in ADJECTIVES.items() if words[-2] in listed.split())
    (noun,) = (word for word in words if word in NOUNS[kind].split())
    return {words.index("it"): noun}
