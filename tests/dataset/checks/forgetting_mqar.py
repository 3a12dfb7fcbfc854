"""Writes down what each key is given, in order, and answers with what stands there last."""


def answers(words, task):
    values, told = {}, 2 * (task.num_pairs + task.num_updates)
    for at in range(0, told, 2):
        assert (words[at] in values) == (at >= 2 * task.num_pairs)
        assert words[at + 1] not in values.values()
        values[words[at]] = words[at + 1]
    return {at: values[w] for at, w in enumerate(words) if at >= told and w != "_"}
