"""Hops with the search of Python's strings."""

from itertools import pairwise


def answers(words: list[str], task) -> dict[int, str]:
    hops, text = int(words[0].removeprefix("hop")), "".join(words[1:])
    assert 0 <= hops <= task.max_hops
    assert all(a != b for a, b in pairwise(text))
    right = {}
    for start in range(len(text)):
        at = start
        for _ in range(hops):
            before = text.rfind(text[at], 0, at)
            if before < 0:
                right[1 + start] = "~"
                break
            at = before + 1
        else:
            right[1 + start] = text[at]
    return right
