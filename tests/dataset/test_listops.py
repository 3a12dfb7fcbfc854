"""ListOps: its strings are drawn as their authors draw them."""

import random
from collections import Counter
from statistics import median

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from attnlab.dataset.base import random_stream
from attnlab.dataset.listops import ListOps
from tests.dataset.checks import listops
from tests.dataset.drawing import FEW, SEEDS
from tests.prose import refuses
from tests.refused_calls import refused_calls


def strings(task: ListOps, blocks: int, seed: int = 5) -> list[list[str]]:
    read = []
    for block in range(blocks):
        inputs, _, _, valid = task.draw_examples(random_stream(seed, "train", block), 1024, "train")
        assert valid is not None
        read += [
            [task.tokens[t] for t in row[is_there]]
            for row, is_there in zip(inputs, valid, strict=True)
        ]
    return read


def tree(draw: random.Random, depth: int, task: ListOps) -> list[str]:
    """Draw one string as the paper says: first the arguments, one after another, from the top."""
    if depth > 0 and (depth == task.max_depth or draw.random() >= task.nested):
        return [str(draw.randrange(10))]
    count = draw.randint(2, task.max_args)
    inner = [word for _ in range(count) for word in tree(draw, depth + 1, task)]
    return [draw.choice(["[MIN", "[MAX", "[MED", "[SM"]), *inner, "]"]


@FEW
@given(
    max_depth=st.integers(1, 6),
    max_args=st.integers(2, 7),
    nested=st.floats(0, 0.5),
    more=st.integers(0, 30),
    seed=SEEDS,
)
def test_any_string_is_worked_out(max_depth, max_args, nested, more, seed):
    length = max_args + 2 + more
    task = ListOps(max_depth=max_depth, max_args=max_args, nested=nested, length=length)
    inputs, targets, at, valid = task.draw_examples(random_stream(seed, "train", 0), 20, "train")
    assert inputs.shape == (20, length)
    assert at is not None
    assert valid is not None
    for row in range(20):
        words = [task.tokens[token] for token in inputs[row, valid[row]]]
        right = listops.answers(words, task)
        assert {int(at[row, 0]): task.tokens[targets[row, 0]]} == right


def test_lengths_are_those_of_trees_that_are_drawn_one_by_one():
    task, draw = ListOps(length=40), random.Random(0)
    ours = Counter(len(words) for words in strings(task, 4))
    theirs: Counter[int] = Counter()
    while theirs.total() < 4096:
        words = tree(draw, 0, task)
        theirs[len(words)] += len(words) <= 40
    bins = [range(4, 5), range(5, 6), range(6, 7), range(7, 8), range(8, 12)]
    bins += [range(12, 18), range(18, 26), range(26, 41)]
    table = [[sum(of[length] for length in lengths) for lengths in bins] for of in (ours, theirs)]
    assert float(np.asarray(chi2_contingency(table)[1])) > 1e-3


def test_operations_digits_and_numbers_of_arguments_are_uniform():
    # Flat: no string is too long, so nothing bends what is drawn.
    task = ListOps(max_depth=1, max_args=4)
    read = strings(task, 4)
    for counts in (
        Counter(words[0] for words in read),
        Counter(word for words in read for word in words[1:-1]),
        Counter(len(words) for words in read),
    ):
        assert chisquare(list(counts.values())).pvalue > 1e-3
    assert {len(words) for words in read} == {4, 5, 6}


def test_the_median_of_an_even_number_loses_its_fraction():
    task = ListOps(max_depth=1, max_args=2)
    inputs, targets, _, _ = task.draw_examples(random_stream(0, "train", 0), 1024, "train")
    is_median = inputs[:, 0] == task.tokens.index("[MED")
    for row, target in zip(inputs[is_median], targets[is_median], strict=True):
        assert target == int(median(row[1:3].tolist()))
    assert (np.diff(inputs[is_median][:, 1:3].astype(int)) % 2 == 1).any()


def test_slices_tell_the_depth():
    task = ListOps(num_train=50, num_validation=4, num_test=4)
    batch = task.splits["train"][:50]
    slices = task.slices(batch)
    for row in range(50):
        words = task.decode(batch.inputs[row].tolist()).split(" <pad>")[0].split()
        depth = deepest = 0
        for word in words:
            depth += word.startswith("[")
            depth -= word == "]"
            deepest = max(deepest, depth)
        assert (int(slices["length"][row]), int(slices["depth"][row])) == (len(words), deepest)


def test_a_text_is_asked_at_its_last_bracket():
    task = ListOps(num_train=5)
    assert task.batch_of_text("[MAX 2 [MIN 4 9 ] 1 ]").at == 7
    with refuses(ValueError, "dataset.listops.no_end"):
        task.batch_of_text("[MAX 2 3")
    read, answer_line = task.show().splitlines()
    last = len(read.split()) - 1
    assert answer_line == f"at {last} (']'): {listops.answers(read.split(), task)[last]}"


def test_an_impossible_task_is_refused():
    refused_calls(
        "dataset.listops.{}",
        {
            "flat": lambda: ListOps(max_depth=0),
            "one_argument": lambda: ListOps(max_args=1),
            "nested_often": lambda: ListOps(nested=0.6),
            "short": lambda: ListOps(length=6),
        },
    )
