"""Looks up the last letter among the pairs before it."""


def answers(words, task):
    *pairs, asked = words
    numbers = dict(zip(pairs[0::2], pairs[1::2], strict=True))
    assert len(numbers) == len(set(numbers.values())) == task.num_pairs
    assert all(letter.isalpha() and number.isdigit() for letter, number in numbers.items())
    return {len(pairs): numbers[asked]}
