"""The faults of `make mutants`: what is changed and what is not, and which of them are caught."""

import ast
from pathlib import Path

import pytest

from bench.mutants.mutation import Mutant, candidates, draw, match, mutants_of
from bench.mutants.reach import instrument

ROOT = Path(__file__).parents[2]
SOURCE = '''\
"""A docstring with 1 < 2."""

from functools import lru_cache

FLAG = 3


def compare(a: int, b: int) -> int:
    """Compare."""
    if a < b:
        return a + b
    return 0


def unchecked(a: int) -> int:
    return a * 2


def count_down(n: int) -> int:
    while n > 0:
        n -= 1
    return n


@lru_cache
def cached() -> int:
    return 7


def speak() -> None:
    print(5)


def unreached() -> int:
    return 1
'''


def changed(source: str) -> set[str]:
    """Give every text that one fault makes of a source."""
    content = source.encode()
    return {mutant.apply(content).decode() for mutant in mutants_of("room/thing.py", content)}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a < b", {"a <= b"}),
        ("a not in b", {"a in b"}),
        ("(a) is  not (b)", {"(a) is (b)"}),
        ("a + b", {"a - b"}),
        ("a // b", {"a * b"}),
        ("a and b", {"a or b"}),
        ("not a", {"a"}),
        ("not (a)", {"(a)"}),
        ("-a", {"a"}),
        ("1_000", {"1001"}),
        ("0.5", {"1.0"}),
        ("True", {"False"}),
        ("a if b else c", {"a if not (b) else c"}),
        ("[a for a in b if c]", {"[a for a in b if not (c)]"}),
        ("f(a)", set()),
        ("'a' + f'{b + 1}'", set()),
        ("a / 'b' / c", set()),
        ("zip(a, b, strict=True)", set()),
    ],
)
def test_an_expression_has_these_faults(before, after):
    assert changed(f"é = {before}\n") == {f"é = {text}\n" for text in after}


@pytest.mark.parametrize(
    "source",
    [
        '"""1 < 2"""\n',
        "a: Literal[1]\n",
        "Alias = Literal[1, 2]\n",
        "__all__ = ['a'] + [1]\n",
        "if TYPE_CHECKING:\n    a = 1\n",
        "@lru_cache(maxsize=1)\ndef f(a: Int[1]) -> Int[1]: ...\n",
        "raise ValueError(f'{a + 1}', 1)\n",
        "assert a, 1\n",
    ],
)
def test_what_no_test_is_asked_to_notice_is_not_changed(source):
    assert changed(source) == set()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("return a", "return None"),
        ("f(\n        a\n    )", "pass"),
        ("while a:\n        break", "while a:\n        continue"),
        ("a += b", "a -= b"),
        ("if a: pass\n    elif b: pass", "if a: pass\n    elif not (b): pass"),
    ],
)
def test_a_statement_has_this_fault(before, after):
    assert f"def f():\n    {after}\n" in changed(f"def f():\n    {before}\n")


def test_a_generator_returns_what_it_did():
    assert changed("def f():\n    yield a\n    return b\n") == set()


def test_every_fault_of_src_is_a_change_of_the_program_and_has_a_name_of_its_own():
    mutants = candidates(ROOT)
    assert len({mutant.identity for mutant in mutants}) == len(mutants)
    drawn = draw(mutants, 100, seed=1)
    for mutant in drawn:
        text = (ROOT / "src/attnlab" / mutant.identity.file).read_bytes()
        assert ast.dump(ast.parse(mutant.apply(text))) != ast.dump(ast.parse(text))


def test_each_room_gets_a_fault_and_a_change_of_one_file_moves_few():
    mutants = candidates(ROOT)
    drawn = draw(mutants, 100, seed=0)
    assert len(set(drawn)) == 100
    assert {m.identity.room for m in drawn} == {m.identity.room for m in mutants}
    fewer = [m for m in mutants if m.identity.file != "split.py"]
    assert len(set(drawn) & set(draw(fewer, 100, seed=0))) > 90


def test_a_fault_is_found_again_when_its_line_moves():
    mutants = mutants_of("room/thing.py", SOURCE.encode())
    moved = SOURCE.replace("    if a < b:", "    if b < a:\n        return 1\n    if a < b:")
    again = mutants_of("room/thing.py", moved.encode())

    def twin(mutant: Mutant) -> Mutant | None:
        return match(mutant.identity, mutant.source, mutant.before, again)

    assert all((t := twin(m)) is not None and t.source == m.source for m in mutants)
    gone = mutants_of("room/thing.py", moved.replace("a * 2", "a").encode())
    (mutant,) = [m for m in mutants if m.before == "*"]
    assert match(mutant.identity, mutant.source, mutant.before, gone) is None


def test_probes_leave_docstrings_and_meaning_alone():
    text = instrument(SOURCE.encode(), mutants_of("room/thing.py", SOURCE.encode())).decode()
    lines = [line for line in text.splitlines() if "mutants_probe" not in line]
    assert lines == SOURCE.splitlines()
    assert ast.get_docstring(ast.parse(text).body[3]) == "Compare."  # type: ignore[arg-type]
