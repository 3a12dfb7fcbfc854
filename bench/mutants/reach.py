"""Which tests reach which mutant, and how long each takes: one run of the suite with probes in src.

A probe is a line before the statement that a mutant changes. Unlike a trace of all lines it costs
nothing, and it is heard from processes that tests start or kill.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.mutants.mutation import LOOSE, SOURCE, Mutant

INPUTS = ("src", "tests", "conf", "experiments", "bench", "pyproject.toml")
"""What decides how a test ends."""


@dataclass(frozen=True)
class Reach:
    """What a run of the suite has shown."""

    seconds: Mapping[str, float]
    """How long each test takes, its fixtures included."""
    tests_by_mutant: dict[str, list[str]]
    """The tests that reach a mutant; the empty name stands for imports and collection."""

    def tests(self, mutant: Mutant) -> list[str]:
        """Return the tests that a mutant is judged by, in their order; none if it is not reached.

        First come those that reach it, the quickest first. What the tests of a file share is
        reached by the first of them alone, so the others of the same files follow, and then those
        that mirror the source file. What is only reached on import or while tests are collected
        has the latter alone.
        """
        reaching = set(self.tests_by_mutant.get(str(mutant.identity), ()))
        if mutant.places and not reaching:
            return []
        files = {test.partition("::")[0] for test in reaching}
        siblings = [test for test in self.seconds if test.partition("::")[0] in files]
        mirrored = [test for test in self.seconds if test.startswith(mirror(mutant))]
        groups = (reaching & self.seconds.keys(), siblings, mirrored)
        ordered = [test for group in groups for test in sorted(group, key=self.seconds.__getitem__)]
        return list(dict.fromkeys(ordered))


def measure(
    tree: Path, mutants: Sequence[Mutant], marks: str, jobs: int, paths: Sequence[str] = ()
) -> Reach:
    """Run the marked tests, or those at the paths, once with a probe at each mutant."""
    with copied(tree) as copy:
        by_file = defaultdict(list)
        for mutant in mutants:
            by_file[copy / SOURCE / mutant.identity.file].append(mutant)
        for path, members in by_file.items():
            path.write_bytes(instrument(path.read_bytes(), members))
        shutil.copy(Path(__file__).with_name("probe.py"), copy / "src" / "mutants_probe.py")
        command = [sys.executable, "-m", "pytest", "-q", "-n", str(jobs), "-m", marks, *paths]
        command += ["-p", "mutants_probe", "-p", "no:cacheprovider"]
        done = subprocess.run(
            command, cwd=copy, env=environment_of(copy), capture_output=True, text=True
        )
        seconds: dict[str, float] = dict(_lines(copy / "src" / "seconds.jsonl"))
        if not seconds:
            raise RuntimeError(f"no test has run:\n{done.stdout}{done.stderr}")
        tests = defaultdict(list)
        for mutant, test in _lines(copy / "src" / "hits.jsonl"):
            tests[mutant].append(test)
    return Reach(seconds, {mutant: sorted(set(tests[mutant])) for mutant in sorted(tests)})


def instrument(text: bytes, mutants: Iterable[Mutant]) -> bytes:
    """Put probes into the text of a source file."""
    names = defaultdict(list)
    for mutant in mutants:
        for place in mutant.places:
            names[place].append(repr(str(mutant.identity)))
    lines = text.split(b"\n")
    for place in sorted(names, reverse=True):
        statement = lines[place - 1]
        indentation = statement[: len(statement) - len(statement.lstrip())]
        probe = f'__import__("mutants_probe").hit({", ".join(names[place])})'
        lines.insert(place - 1, indentation + probe.encode())
    return b"\n".join(lines)


def mirror(mutant: Mutant) -> str:
    """Return how the names of the tests begin that mirror the file of a mutant."""
    room, stem = mutant.identity.room, Path(mutant.identity.file).stem
    return f"tests/test_{stem}.py" if room == LOOSE else f"tests/{room}/"


def digest(tree: Path, *more: str) -> str:
    """Name a state of the files that decide how tests end, and what else is given."""
    sha = hashlib.sha256(json.dumps(more).encode())
    for path in _files(tree):
        if path.parts[0] in INPUTS and path.parts[:2] != ("bench", "mutants"):
            sha.update(str(path).encode() + b"\0" + (tree / path).read_bytes())
    return sha.hexdigest()[:16]


@contextmanager
def copied(tree: Path) -> Iterator[Path]:
    """Copy the files of a checkout that git does not ignore, changed and new ones too."""
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder).resolve() / "tree"
        for path in _files(tree):
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / path, copy / path)
        yield copy


def environment_of(copy: Path) -> dict[str, str]:
    """Return an environment in which the tree's package comes before an installed one."""
    return os.environ | {"PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"}


def _files(tree: Path) -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.check_output(command, cwd=tree, text=True).split("\0")
    return sorted({Path(name) for name in names if name and (tree / name).is_file()})


def _lines(path: Path) -> list[tuple[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
