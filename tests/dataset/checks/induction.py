"""Looks for the last time that a token came, and says what followed."""


def answers(words: list[str], task) -> dict[int, str]:
    half = len(words) // 2
    assert words[:half] == words[half:]
    right = {}
    for at in range(half, len(words)):
        before = max(i for i in range(at) if words[i] == words[at])
        right[at] = words[before + 1]
    return right
