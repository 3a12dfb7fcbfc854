"""Remembers what came after each key, and answers where one is seen again."""


def answers(words, task):
    values, asked = {}, {}
    for at in range(0, len(words), 2):
        key = words[at]
        if key.startswith("n"):
            assert words[at + 1].startswith("n")
            continue
        if key in values:
            asked[at] = values[key]
        if at + 1 < len(words):
            assert values.setdefault(key, words[at + 1]) == words[at + 1]
    assert len(words) - 1 in asked, "the last key has been seen"
    return asked
