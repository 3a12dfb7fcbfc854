"""A stack of the brackets that are open."""


def answers(words: list[str], task) -> dict[int, str]:
    closing = dict(zip(task.tokens[::2], task.tokens[1::2], strict=True))
    right, stack = {}, []
    for at, word in enumerate(words):
        if word in closing:
            stack.append(closing[word])
            assert len(stack) <= task.max_depth
        else:
            right[at - 1] = stack.pop()
            assert right[at - 1] == word
    assert not stack
    return right
