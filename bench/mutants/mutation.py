"""Faults that can be put into source text, one at a time (DeMillo et al. 1978)."""

import ast
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

SOURCE = Path("src/attnlab")
LOOSE = "attnlab"
"""The room of the modules that stand in no folder."""

COMPARISONS: dict[type[ast.cmpop], tuple[bytes, str]] = {
    ast.Lt: (rb"<", "<="),
    ast.LtE: (rb"<=", "<"),
    ast.Gt: (rb">", ">="),
    ast.GtE: (rb">=", ">"),
    ast.Eq: (rb"==", "!="),
    ast.NotEq: (rb"!=", "=="),
    ast.Is: (rb"\bis\b", "is not"),
    ast.IsNot: (rb"\bis\s+not\b", "is"),
    ast.In: (rb"\bin\b", "not in"),
    ast.NotIn: (rb"\bnot\s+in\b", "in"),
}
ARITHMETIC: dict[type[ast.operator], tuple[bytes, str]] = {
    ast.Add: (rb"\+", "-"),
    ast.Sub: (rb"-", "+"),
    ast.Mult: (rb"\*", "/"),
    ast.Div: (rb"/", "*"),
    ast.FloorDiv: (rb"//", "*"),
    ast.Mod: (rb"%", "//"),
    ast.Pow: (rb"\*\*", "*"),
    ast.LShift: (rb"<<", ">>"),
    ast.RShift: (rb">>", "<<"),
    ast.BitAnd: (rb"&", "|"),
    ast.BitXor: (rb"\^", "&"),
}
TOTAL = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)
"""Comparisons whose swap is their negation."""
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Identity(NamedTuple):
    """What names a mutant, wherever its line moves to."""

    file: str
    """Its path below src/attnlab."""
    function: str
    """The qualified name of the innermost function or class; `<module>` outside of all."""
    kind: str
    ordinal: int
    """How many of the same kind stand before it in the same function."""

    def __str__(self) -> str:
        return f"{self.file}:{self.function}:{self.kind}:{self.ordinal}"

    @property
    def room(self) -> str:
        """The folder of src that it is in."""
        first, slash, _ = self.file.partition("/")
        return first if slash else LOOSE


class Mutant(NamedTuple):
    """One change of one file."""

    identity: Identity
    source: str
    """The line that it begins on, without its indentation."""
    start: int
    """Where the replaced text begins, in bytes."""
    before: str
    after: str
    line: int
    places: tuple[int, ...]
    """The lines of statements: a test that comes to one of them can notice the change."""

    def apply(self, text: bytes) -> bytes:
        """Return the file's text with the change, and not another byte changed."""
        end = self.start + len(self.before.encode())
        if text[self.start : end] != self.before.encode():
            raise ValueError(f"{self.identity} is not at byte {self.start}: the file has changed")
        return text[: self.start] + self.after.encode() + text[end:]


def candidates(tree: Path) -> list[Mutant]:
    """Return all mutants of a tree's sources, in the order of files and lines."""
    paths = sorted((tree / SOURCE).rglob("*.py"))
    return [
        mutant
        for path in paths
        for mutant in mutants_of(path.relative_to(tree / SOURCE).as_posix(), path.read_bytes())
    ]


def mutants_of(file: str, text: bytes) -> list[Mutant]:
    """Return all mutants of one file."""
    finder = _Finder(file, text)
    finder.visit(ast.parse(text))
    return sorted(finder.mutants, key=lambda mutant: (mutant.start, mutant.identity))


def draw(mutants: Iterable[Mutant], count: int, seed: int) -> list[Mutant]:
    """Draw one mutant of each room, and the rest in proportion to the rooms' candidates.

    Each candidate has a rank of its own, so a change of the code moves few of the others.
    """
    rooms: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in mutants:
        rooms[mutant.identity.room].append(mutant)
    total, rest = sum(map(len, rooms.values())), count - len(rooms)
    if rest < 0:
        raise ValueError(f"count={count} is less than one for each of {len(rooms)} rooms")
    shares = {room: rest * len(members) / total for room, members in rooms.items()}
    quotas = {room: 1 + int(share) for room, share in shares.items()}
    by_remainder = sorted(shares, key=lambda room: (int(shares[room]) - shares[room], room))
    for room in by_remainder[: count - sum(quotas.values())]:
        quotas[room] += 1

    def rank(mutant: Mutant) -> float:
        return random.Random(f"{seed} {mutant.identity}").random()

    return [m for room in sorted(rooms) for m in sorted(rooms[room], key=rank)[: quotas[room]]]


def match(identity: Identity, source: str, before: str, mutants: Sequence[Mutant]) -> Mutant | None:
    """Find a mutant again after edits: by its line's text, then by the nearest ordinal."""
    # A file that is no longer there may have another name.
    near = [m for m in mutants if m.identity.file == identity.file] or mutants
    wanted = (*identity[1:3], source, before)
    same = [m for m in near if (*m.identity[1:3], m.source, m.before) == wanted]
    return min(same, key=lambda m: abs(m.identity.ordinal - identity.ordinal), default=None)


class _Finder(ast.NodeVisitor):
    """Collects the mutants of a file; what tests cannot be asked to notice is not visited."""

    def __init__(self, file: str, text: bytes) -> None:
        self.file, self.text, self.source_lines = file, text, text.split(b"\n")
        self.starts = [0]
        for line in self.source_lines:
            self.starts.append(self.starts[-1] + len(line) + 1)
        self.mutants: list[Mutant] = []
        self.ordinals: Counter[tuple[str, str]] = Counter()
        self.scopes: list[str] = []
        self.places: tuple[int, ...] = ()
        self.in_function = self.in_generator = False

    def visit(self, node: ast.AST) -> None:
        outside = self.places
        if self.in_function and isinstance(node, ast.stmt):
            start = self._offset(node.lineno, node.col_offset)
            # Nothing can stand before an `elif`; who comes to it has come to its `if`.
            if not self.text.startswith(b"elif", start):
                self.places = (_first_line(node),)
        super().visit(node)
        self.places = outside

    def visit_Module(self, node: ast.Module) -> None:
        self.places = tuple(_entries(node))
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.places = tuple(_entries(node)) or self.places
        self._within(node.name, node.body)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        outside = self.in_function, self.in_generator
        self.places = tuple(_entries(node))
        self.scopes.append(node.name)
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if isinstance(default, ast.Constant):
                self._constant(default, "default")
        self.scopes.pop()
        self.in_function, self.in_generator = True, any(_yields(node))
        self._within(node.name, node.body)
        self.in_function, self.in_generator = outside

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        alias = isinstance(node.value, ast.Subscript | ast.BinOp) and any(
            re.fullmatch(r"_?[A-Z]+[a-z]\w*", name) for name in names
        )
        if not alias and "__all__" not in names:
            self.visit(node.value)

    def visit_Assert(self, node: ast.Assert) -> None:
        self.visit(node.test)

    def visit_Raise(self, node: ast.Raise) -> None:
        """Leave messages alone."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Leave texts alone; before Python 3.12 the places within them are not known either."""

    def visit_If(self, node: ast.If) -> None:
        test = ast.unparse(node.test)
        if "TYPE_CHECKING" in test or "__name__" in test:
            return
        self._negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._negate(test)
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call | ast.Await):
            self._replace(node, "call", "pass")
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None:
            none = isinstance(node.value, ast.Constant) and node.value.value is None
            if not none and not self.in_generator:
                self._replace(node.value, "return", "None")
            self.visit(node.value)

    def visit_Break(self, node: ast.Break) -> None:
        self._replace(node, "loop", "continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        self._replace(node, "loop", "break")

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, right, operator in zip(operands, operands[1:], node.ops, strict=False):
            self._swap(left, right, "comparison", *COMPARISONS[type(operator)])
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self._arithmetic(node.left, node.right, node.op, "")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._arithmetic(node.target, node.value, node.op, "=")
        self.visit(node.value)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        is_and = isinstance(node.op, ast.And)
        pattern, after = (rb"\band\b", "or") if is_and else (rb"\bor\b", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._swap(left, right, "boolean", pattern, after)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        kind = {ast.Not: "not", ast.USub: "arithmetic"}.get(type(node.op))
        if kind is not None and not isinstance(node.operand, ast.Constant):
            start = self._offset(node.lineno, node.col_offset)
            end = self._offset(node.operand.lineno, node.operand.col_offset)
            operator = self.text[start:end].decode()
            # The operand's parenthesis stays, for it closes behind the operand.
            self._add(start, operator, operator.lstrip("not- \n"), kind, node.lineno)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.visit(node.func)
        for argument in node.args:
            self.visit(argument)
        for keyword in node.keywords:
            # Lengths that zip checks differ only through a bug of our own.
            if keyword.arg != "strict" or not (
                isinstance(node.func, ast.Name) and node.func.id == "zip"
            ):
                self.visit(keyword.value)

    def visit_Constant(self, node: ast.Constant) -> None:
        self._constant(node, "constant")

    def _within(self, name: str, body: list[ast.stmt]) -> None:
        self.scopes.append(name)
        for statement in body:
            self.visit(statement)
        self.scopes.pop()

    def _constant(self, node: ast.Constant, kind: str) -> None:
        value = node.value
        if isinstance(value, bool):
            self._replace(node, kind, str(not value))
        elif isinstance(value, int):
            self._replace(node, kind, str(value + 1))
        elif isinstance(value, float):
            self._replace(node, kind, str(2 * value or 1.0))

    def _negate(self, test: ast.expr) -> None:
        swapped = isinstance(test, ast.Compare) and len(test.ops) == 1
        if swapped and isinstance(test.ops[0], TOTAL):  # type: ignore[attr-defined]
            return
        if not isinstance(test, ast.UnaryOp):
            self._replace(test, "condition", f"not ({self._text(test)})")

    def _arithmetic(
        self, left: ast.expr, right: ast.expr, operator: ast.operator, suffix: str
    ) -> None:
        if type(operator) in ARITHMETIC and not (_literal(left) or _literal(right)):
            pattern, after = ARITHMETIC[type(operator)]
            self._swap(left, right, "arithmetic", pattern + suffix.encode(), after + suffix)

    def _swap(self, left: ast.expr, right: ast.expr, kind: str, pattern: bytes, after: str) -> None:
        """Replace the operator that stands between two operands."""
        start = self._offset(left.end_lineno or 0, left.end_col_offset or 0)
        between = self.text[start : self._offset(right.lineno, right.col_offset)]
        place = re.search(pattern, between)
        if place is not None and b"#" not in between:
            begin = start + place.start()
            line = self.text.count(b"\n", 0, begin) + 1
            self._add(begin, place.group().decode(), after, kind, line)

    def _replace(self, node: ast.expr | ast.stmt, kind: str, after: str) -> None:
        start = self._offset(node.lineno, node.col_offset)
        self._add(start, self._text(node), after, kind, node.lineno)

    def _add(self, start: int, before: str, after: str, kind: str, line: int) -> None:
        function = ".".join(self.scopes) or "<module>"
        identity = Identity(self.file, function, kind, self.ordinals[function, kind])
        self.ordinals[function, kind] += 1
        source = self.source_lines[line - 1].decode().strip()
        self.mutants.append(Mutant(identity, source, start, before, after, line, self.places))

    def _text(self, node: ast.expr | ast.stmt) -> str:
        start = self._offset(node.lineno, node.col_offset)
        end = self._offset(node.end_lineno or 0, node.end_col_offset or 0)
        return self.text[start:end].decode()

    def _offset(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column


def _entries(node: ast.AST) -> Iterator[int]:
    """Return where the bodies of functions begin: a function's own, or those in a module."""
    for child in [node] if isinstance(node, FUNCTIONS) else ast.walk(node):
        if isinstance(child, FUNCTIONS):
            body = child.body[ast.get_docstring(child, clean=False) is not None :]
            yield from map(_first_line, body[:1])


def _first_line(statement: ast.stmt) -> int:
    decorators = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(decorator.lineno for decorator in decorators)])


def _yields(function: ast.AST) -> Iterator[bool]:
    """Go through a function without those inside of it; true for each yield."""
    for child in ast.iter_child_nodes(function):
        if isinstance(child, ast.Yield | ast.YieldFrom):
            yield True
        elif not isinstance(child, (*FUNCTIONS, ast.Lambda)):
            yield from _yields(child)


def _literal(node: ast.expr) -> bool:
    """Say whether another operator fails at once on an operand, as on texts, paths and lists."""
    if isinstance(node, ast.BinOp):
        return _literal(node.left) or _literal(node.right)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str | bytes)
    return isinstance(
        node, ast.JoinedStr | ast.List | ast.Tuple | ast.Dict | ast.Set | ast.ListComp
    )
