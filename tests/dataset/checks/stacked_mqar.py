"""Parts each token at its "=", and answers the keys with a question mark."""


def answers(words, task):
    values = {}
    for word in words:
        if "=" in word:
            key, value = word.split("=")
            assert values.setdefault(key, value) == value
    assert sum("=" in word for word in words) == task.num_passes * len(values)
    return {at: values[w[:-1]] for at, w in enumerate(words) if w.endswith("?")}
