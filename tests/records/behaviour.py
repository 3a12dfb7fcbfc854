"""What every command answers on the records of 0.1: asked, written down, and held against that.

``make golden`` writes the answers anew where they change on purpose.
"""

import contextlib
import io
import json
import math
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import yaml

from attnlab.cli import main

HERE = Path(__file__).parent
RUNS = HERE / "runs"
ANSWERS = HERE / "behaviour"
TEXTS = {
    "SENTENCE": "The animal didn't cross the street because it was too tired.",
    "LETTERS": "d a c b",
    "NUMBERS": "k3 v20 k5 v17 k3",
}
WITHOUT_RUNS = ("data", "list", "reproduce")
CLOSE, LEAST = 2e-3, 2e-5
"""Relative and absolute difference of two processors' numbers that is none."""


def cases() -> dict[str, Any]:
    """Return the command of each case, as behaviour.yaml states it."""
    return yaml.safe_load((HERE / "behaviour.yaml").read_text())


def answer(case: Any) -> Any:
    """Run a case's command in this process, and return what it prints as JSON, or draws."""
    words: str = case["words"] if isinstance(case, dict) else case
    only = case["only"] if isinstance(case, dict) else None
    command, *rest = [TEXTS.get(word, word) for word in words.split()]
    where = [] if command in WITHOUT_RUNS else ["--runs-dir", str(RUNS)]
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch, "page.html")
        rest = [str(page) if word == "PAGE" else word for word in rest]
        form = [] if page.name in " ".join(rest) or "--format" in rest else ["--format", "json"]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            code = main([command, *rest, *where, *form])
        assert code == 0, f"{words} ended with {code}"
        content = _tables(page) if page.exists() else json.loads(printed.getvalue())
    if only is None:
        return content
    (objects,) = (
        [content]
        if isinstance(content, list)
        else [value for value in content.values() if isinstance(value, list)]
    )
    return [{key: entry[key] for key in only if key in entry} for entry in objects]


def differences(then: Any, now: Any, path: str = "answer") -> Iterator[str]:
    """Name each place where an answer is another; numbers may differ as processors do."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in [*then, *(key for key in now if key not in then)]:
            if key not in now or key not in then:
                yield f"{path}.{key} is {'new' if key in now else 'missing'}"
            else:
                yield from differences(then[key], now[key], f"{path}.{key}")
    elif isinstance(then, list) and isinstance(now, list):
        if len(then) != len(now):
            yield f"{path} has {len(now)} entries, not {len(then)}"
        for place, (before, after) in enumerate(zip(then, now, strict=False)):
            yield from differences(before, after, f"{path}[{place}]")
    elif isinstance(then, float) and type(now) in (int, float):
        if not math.isclose(then, now, rel_tol=CLOSE, abs_tol=LEAST):
            yield f"{path} is {now}, not {then}"
    elif type(then) is not type(now) or then != now:
        yield f"{path} is {now!r}, not {then!r}"


def lacking(then: list[Any], now: list[Any]) -> Iterator[str]:
    """Name each object of a list that is in the list no more."""
    for entry in then:
        if all(any(differences(entry, candidate)) for candidate in now):
            yield f"no longer there: {entry}"


def write() -> None:
    """Write every answer of the code on the path that is not what it was, for this processor."""
    ANSWERS.mkdir(exist_ok=True)
    for name, case in cases().items():
        path, now = ANSWERS / f"{name}.json", answer(case)
        then = json.loads(path.read_text()) if path.exists() else None
        if list(differences(then, now)):
            path.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n")


def _tables(page: Path) -> list[list[str]]:
    """Return the cells of each row of a page's tables."""
    reader = _Rows()
    reader.feed(page.read_text())
    return reader.rows


class _Rows(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
            self.open = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.open = False

    def handle_data(self, data: str) -> None:
        if self.open:
            self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]} {data}".split())


if __name__ == "__main__":
    write()
