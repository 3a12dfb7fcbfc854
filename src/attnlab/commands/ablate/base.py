"""What the modes of `attnlab ablate` do in one way."""

from argparse import Namespace

from rich.table import Table

from attnlab.evidence.intervene import Means, mean_patterns, questions
from attnlab.trained import Trained


def means(arguments: Namespace, loaded: Trained, split: str) -> Means | None:
    """Give the mean patterns over a split, where `--method mean` asks for them."""
    if arguments.method != "mean":
        return None
    asked = questions(loaded.model, loaded.objective, loaded.dataset.splits[split])
    return mean_patterns(loaded.model, asked, loaded.precision)


def table(first: str, *numbers: str) -> Table:
    """Make a table of names, with numbers to their right."""
    made = Table(box=None, pad_edge=False)
    made.add_column(first)
    for name in numbers:
        made.add_column(name, justify="right")
    return made
