"""Nothing that a command prints is wider than the terminal, or broken inside of a word."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from attnlab.cli import main
from attnlab.printable import break_lines, text_width
from attnlab.run_record.annotations import annotate
from tests.child import TINY
from tests.fabricated import result, write

WIDTHS = (80, 120)
PRINTED = {
    "compare": ["compare"],
    "compare_by": ["compare", "--by", "variant", "optimizer.lr", "num_layers"],
    "runs": ["runs"],
    "show": ["runs", "show", "trained"],
    "diff": [
        "runs",
        "diff",
        "mqar-recall-moe-2x64-lr0.001-s1-0000000003",
        "mqar-lstm-1x64-lr0.01-s0-0000000008",
    ],
    "heads": ["heads", "trained"],
    "experts": ["experts", "trained"],
    "list": ["list"],
    **{f"list_{name}": ["list", name] for name in ("dataset", "model/mixer", "variant")},
    **{f"data_{name}": ["data", "show", name, "dataset.num_train=40"] for name in ("mqar", "dyck")},
}
REFUSED = {
    "no_choice": ["train", "dataset=nope"],
    "no_key": ["compare", "--by", "nope"],
    "no_condition": ["runs", "--where", "nope=3"],
    "no_run": ["runs", "show", "nope"],
    "no_metric": ["compare", "--metric", "validation/nope"],
    "no_group": ["list", "nope"],
    "no_option": ["compare", "--nope", "a" * 30, "b" * 30],
    "no_command": ["nope"],
    "impossible": ["train", "model.mixer.num_heads=5", "model.num_layers=2.5"],
}


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run with experts, and a sweep whose runs have long names, tags and hashes."""
    runs_dir = tmp_path_factory.mktemp("width") / "runs"
    assert main(["train", *TINY, "variant=moe", f"runs_dir={runs_dir}"]) == 0
    (trained,) = runs_dir.iterdir()
    trained.rename(runs_dir / "trained")
    for place in range(24):
        variant, seed = ("moe", "multihead", "lstm")[place % 3], place % 2
        num_layers, rate = 1 + place // 3 % 2, (0.001, 0.01)[place // 6 % 2]
        content = result(
            variant, num_layers, seed, 0.5 + place / 100, knobs={"optimizer.lr": rate},
            data_hash=f"{place % 2}" * 64,
        )  # fmt: skip
        name = f"mqar-{'recall-' * (variant == 'moe')}{variant}-{num_layers}x64-lr{rate:g}-s{seed}"
        annotate(write(runs_dir, f"{name}-{place:010x}", content), "tag", f"tag{place}")
    return runs_dir


def printed_lines(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: Sequence[str],
    width: int,
) -> tuple[int | str | None, str]:
    """Return the exit code of a command, and what it prints in a terminal of that width."""
    monkeypatch.setenv("COLUMNS", str(width))
    capsys.readouterr()
    try:
        code: int | str | None = main(list(words))
    except SystemExit as ended:
        code = ended.code
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def too_wide(text: str, width: int) -> list[str]:
    """Return the lines that are too wide and could be broken: they have more than one word."""
    lines = [line.rstrip() for line in text.splitlines()]
    return [line for line in lines if text_width(line) > width and re.search(r"\S[\s,]+\S", line)]


def words_of(text: str) -> str:
    """Return a text without what the width of a terminal changes."""
    return re.sub(r"\s", "", text)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", [*PRINTED, *REFUSED])
def test_no_line_is_wider_than_the_terminal(runs_dir, capsys, monkeypatch, name, width):
    monkeypatch.setenv("ATTNLAB_RUNS", str(runs_dir))
    words = {**PRINTED, **REFUSED}[name]
    code, text = printed_lines(capsys, monkeypatch, words, width)
    assert code == (0 if name in PRINTED else 2), text
    assert too_wide(text, width) == []


@pytest.mark.parametrize("name", ["show", "list", "list_dataset", "data_mqar", *REFUSED])
def test_a_line_is_broken_between_words_and_loses_none(runs_dir, capsys, monkeypatch, name):
    monkeypatch.setenv("ATTNLAB_RUNS", str(runs_dir))
    words = {**PRINTED, **REFUSED}[name]
    _, whole_text = printed_lines(capsys, monkeypatch, words, 9999)
    _, broken_text = printed_lines(capsys, monkeypatch, words, 80)
    assert words_of(broken_text) == words_of(whole_text)
    whole_words = set(re.split(r"[\s,]+", whole_text))
    assert set(re.split(r"[\s,]+", broken_text)) == whole_words


def test_a_message_in_a_file_stays_on_its_line(runs_dir, capsys, monkeypatch):
    monkeypatch.setenv("ATTNLAB_RUNS", str(runs_dir))
    monkeypatch.delenv("COLUMNS")
    assert main(["compare", "--by", "nope"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("one two three", "one two\nthree"),
        ("  key: one two three", "  key:\n    one\n    two\n    three"),
        ("a=1,b=2,c=3", "a=1,b=2,\nc=3"),
        ("/a/path/that/has/no/end", "/a/path/that/has/no/end"),
        ("in /a/path/that/ends", "in\n/a/path/that/ends"),
        ("\u4e2d\u6587\u4e2d \u6587\u4e2d", "\u4e2d\u6587\u4e2d\n\u6587\u4e2d"),
        ("/a/path/that/ends, one", "/a/path/that/ends,\none"),
        ("one   two\n\nthree", "one   two\n\nthree"),
    ],
)
def test_where_a_line_is_broken(text, broken):
    assert break_lines(text, 9) == broken
