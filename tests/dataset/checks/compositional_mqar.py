"""Reads the triples off, and answers every two keys that come again."""


def triples(words, task):
    told = 3 * task.num_pairs
    values = {tuple(words[at : at + 2]): words[at + 2] for at in range(0, told, 3)}
    firsts, seconds = ({pair[place] for pair in values} for place in (0, 1))
    assert values.keys() == {(first, second) for first in firsts for second in seconds}
    assert len(firsts) == len(seconds) == task.num_pairs**0.5
    assert len(set(values.values())) == task.num_pairs
    return told, values


def answers(words, task):
    told, values = triples(words, task)
    pairs = {at + 1: tuple(words[at : at + 2]) for at in range(told, len(words) - 1)}
    return {at: values[pair] for at, pair in pairs.items() if pair in values}
