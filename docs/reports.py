"""Write docs/json.md from the reports of `attnlab.analysis`: what each field of their JSON is.

`python docs/reports.py` writes the page; a test holds it against the classes.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeGuard

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
    modules = {
        ".".join(path.relative_to(ROOT / "src").with_suffix("").parts): ast.parse(path.read_text())
        for path in sorted((ROOT / "src/attnlab").rglob("*.py"))
    }
    described: dict[tuple[str, str], ast.ClassDef] = {}
    for module, tree in modules.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and _is_report(node):
                _describe(module, node, modules, described)
    return "\n".join([INTRODUCTION, *(_section(node) for node in described.values())])


def _describe(
    module: str,
    node: ast.ClassDef,
    modules: Mapping[str, ast.Module],
    described: dict[tuple[str, str], ast.ClassDef],
) -> None:
    """Add a class, and those that its fields and properties hold, once each."""
    if (module, node.name) in described:
        return
    described[module, node.name] = node
    held = [kind for _, kind, _ in _fields(node)]
    held += [ast.unparse(of.returns) for of in node.body if _is_property(of) and of.returns]
    for name in re.findall(r"\w+", " ".join(held)):
        home = _home(module, name, modules)
        for other in modules[home].body if home in modules else []:
            if isinstance(other, ast.ClassDef) and other.name == name and _has_fields(other):
                _describe(home, other, modules, described)


def _home(module: str, name: str, modules: Mapping[str, ast.Module]) -> str:
    """Return the module that defines a name which is used in another."""
    for node in ast.walk(modules[module]):
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            return node.module or ""
    return module


def _section(node: ast.ClassDef) -> str:
    level = "##" if _is_report(node) else "###"
    says = ast.get_docstring(node) or ""
    lines = [f"{level} {node.name}", "", says, "", "| field | type | |", "|---|---|---|"]
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


def _has_fields(node: ast.ClassDef) -> bool:
    """Whether it is a dataclass or a named tuple."""
    marks = [ast.unparse(mark) for mark in [*node.decorator_list, *node.bases]]
    return any(mark.startswith("dataclass") or mark == "NamedTuple" for mark in marks)


def _is_property(node: ast.stmt) -> TypeGuard[ast.FunctionDef]:
    return isinstance(node, ast.FunctionDef) and any(
        ast.unparse(mark) == "property" for mark in node.decorator_list
    )


def _is_report(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base) == "Report" for base in node.bases)


if __name__ == "__main__":
    PAGE.write_text(page())
