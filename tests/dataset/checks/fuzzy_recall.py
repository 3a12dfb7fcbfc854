"""Parts the words into runs of keys and of values, and remembers which followed which."""

from itertools import groupby


def answers(words, task):
    runs = ["".join(f"{w} " for w in run).split() for _, run in groupby(words, lambda w: w[0])]
    # The sequence may end within the value that the last question asks for.
    keys, given = runs[0::2], [*runs[1::2], *([[]] if len(runs) % 2 else [])]
    values, asked, at = {}, {}, 0
    for number, (key, value) in enumerate(zip(keys, given, strict=True)):
        assert key[0][0] == "k"
        assert max(len(key), len(value)) <= task.motif
        assert len(set(key)) == len(key)
        at += len(key)
        known, last = values.get(tuple(key)), number == len(keys) - 1
        assert known or not last, "the last key has been seen"
        if known:
            assert value == (known[:-1] if last else known)
            asked |= {at - 1 + place: token for place, token in enumerate(known)}
        values[tuple(key)] = known or value
        at += len(value)
    return asked
