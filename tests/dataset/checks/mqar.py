"""Reads the pairs off, and answers every key that comes again."""


def answers(words, task):
    assert not task.random_filler, "with random filler, who is asked cannot be read off"
    told = 2 * task.num_pairs
    values = dict(zip(words[:told:2], words[1:told:2], strict=True))
    assert len(values) == task.num_pairs
    assert all(w == "_" or w in values for w in words[told:])
    return {at: values[w] for at, w in enumerate(words) if at >= told and w in values}
