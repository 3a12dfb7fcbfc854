"""What each task asks, said again in plain Python, one example at a time."""

from collections.abc import Callable

from attnlab.dataset.base import Task
from attnlab.split import IGNORE, ExampleArrays


class Either:
    """Equals the answers that one of several layouts asks for, where words do not tell which."""

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __init__(self, *allowed: dict[int, str] | Callable[[dict[int, str]], bool]) -> None:
        self.allowed = allowed

    def __eq__(self, given: object) -> bool:
        assert isinstance(given, dict)
        return any(one(given) if callable(one) else one == given for one in self.allowed)

    def __repr__(self) -> str:
        return f"one of {self.allowed}"


def check(answers: Callable, task: Task, rows: ExampleArrays) -> None:
    """Hold a checker against each of some examples."""
    inputs, targets, at, valid = rows
    names = task.classes or task.tokens
    for example in range(len(inputs)):
        whole = len(inputs[example]) if valid is None else int(valid[example].sum())
        words = [task.tokens[token] for token in inputs[example, :whole]]
        labels = targets[example].tolist()
        places = range(len(labels)) if at is None else at[example].tolist()
        given = [(p, names[t]) for p, t in zip(places, labels, strict=True) if t != IGNORE]
        assert given, "something is asked"
        expected = [label for _, label in given] if task.answer_length else dict(given)
        assert answers(words, task) == expected, " ".join(words)
