"""Looks for the first arrow; the last one is answered with what follows it."""


def answers(words, task):
    assert words.count("=>") == 2
    assert words[-1] == "=>"
    return {len(words) - 1: words[words.index("=>") + 1]}
