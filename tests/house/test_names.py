"""Locals and parameters say what they hold, and not when or how it came."""

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src/attnlab"
EMPTY_NAMES = frozenset(
    {
        *("found", "made", "said", "there", "given", "shown", "known", "told", "seen", "kept"),
        *("one", "other", "whole", "asked", "named", "some", "each", "apart", "wanted", "chosen"),
        *("measured", "left", "heard", "lacking"),
    }
)
"""Words that say of a value that it came, was met or is one of several, and not what it is."""
MOST_PER_THOUSAND_LINES = 2


def bindings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of everything that a module binds to a local, a parameter or a loop."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.lineno, node.name


def test_names_that_say_nothing_are_rare():
    places, num_lines = [], 0
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text()
        num_lines += text.count("\n")
        places += [
            f"{path.relative_to(SOURCE)}:{line}: {name}"
            for line, name in bindings(ast.parse(text))
            if name in EMPTY_NAMES
        ]
    assert 1000 * len(places) <= MOST_PER_THOUSAND_LINES * num_lines, "\n".join(places)


def test_every_kind_of_binding_is_seen():
    source = "def f(a, *, b):\n    c = 1\n    for d in (e := []): pass\n    [g for g in d]\n"
    assert {name for _, name in bindings(ast.parse(source))} == {*"abcdeg"}
