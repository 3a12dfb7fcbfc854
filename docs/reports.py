"""Write docs/json.md from the reports of `attnlab.analysis`: what each field of their JSON is.

`python docs/reports.py` writes the page; a test holds it against the classes.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/json.md"
INTRODUCTION = """\
# Reports and their JSON

What a command prints with `--format json` is `to_json()` of a report, a frozen dataclass of
`attnlab.analysis`, and nothing else. Fields are those of the class, by name, without those that are
for Python alone. Every report has `schema` beside them, which grows where a field changes its
meaning or goes. Numbers are not rounded. What is not known is null, and so is a number that is
none. Layers and heads are counted from 0, as everywhere: layer 1 is the second *attention* layer,
whatever stands between. This page is written by `make docs` from the classes.
"""


def page() -> str:
    """Return the page."""
    parts = [INTRODUCTION]
    for path in sorted((ROOT / "src/attnlab/analysis").rglob("*.py")):
        classes = list(_dataclasses(ast.parse(path.read_text())))
        if any(_is_report(node) for node in classes):
            ordered = sorted(classes, key=lambda node: not _is_report(node))
            parts += [_section(node) for node in ordered]
    return "\n".join(parts)


def _section(node: ast.ClassDef) -> str:
    level = "##" if _is_report(node) else "###"
    summary = (ast.get_docstring(node) or "").partition("\n")[0]
    lines = [f"{level} {node.name}", "", summary, "", "| field | type | |", "|---|---|---|"]
    for name, kind, text in _fields(node):
        cells = (f"`{name}`", f"`{kind}`", text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    for place, statement in enumerate(node.body):
        if not isinstance(statement, ast.AnnAssign) or "IN_PYTHON" in ast.unparse(statement):
            continue
        after = node.body[place + 1] if place + 1 < len(node.body) else None
        text = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            text = " ".join(str(after.value.value).split())
        yield ast.unparse(statement.target), ast.unparse(statement.annotation), text


def _dataclasses(tree: ast.Module) -> Iterator[ast.ClassDef]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(
            "dataclass" in ast.unparse(decorator) for decorator in node.decorator_list
        ):
            yield node


def _is_report(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base) == "Report" for base in node.bases)


if __name__ == "__main__":
    PAGE.write_text(page())
