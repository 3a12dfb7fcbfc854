"""Each example of docs/data.md runs as it stands, in a directory of a user's own files."""

import csv
import json
import re
import shlex
from pathlib import Path

import datasets
import pytest

from attnlab.cli import main

PAGE = (Path(__file__).parents[2] / "docs/data.md").read_text()
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]
SHORT = ("debug=tiny", "trainer.max_steps=2", "evidence=none", "trainer.threads=1")
REVIEWS = [
    (f"a {word} plot in scene {n}", "good" if word == "fine" else "bad")
    for n in range(40)
    for word in ("fine", "dull")
]
STORIES = [f"the fox met hen {n} , and hen {n} ran .\nthe end\n" * 9 for n in range(90)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the files of the page's examples."""
    place = tmp_path_factory.mktemp("mine")
    with (place / "reviews.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["review", "stars", "n"], *((*row, 1) for row in REVIEWS)])
    names = {"train": slice(0, 60), "validation": slice(60, 70), "test": slice(70, 80)}
    for directory, splits in (
        ("reviews", names),
        ("reviews_without_validation", ("train", "test")),
    ):
        (place / directory).mkdir()
        for split in splits:
            rows = [{"text": text, "label": label} for text, label in REVIEWS[names[split]]]
            write_lines(place / directory / f"{split}.jsonl", rows)
    for number, (text, label) in enumerate(REVIEWS):
        split, kind = ("test", "validation", "train", "train")[number % 7 % 4], {"good": "ham"}
        path = place / "mails" / split / kind.get(label, "spam") / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    columns = {"text": [text for text, _ in REVIEWS], "label": [label for _, label in REVIEWS]}
    datasets.Dataset.from_dict(columns).save_to_disk(place / "saved_reviews")
    datasets.Dataset.from_dict({"story": STORIES}).save_to_disk(place / "saved_stories")
    write_lines(place / "stories.jsonl", [{"story": story} for story in STORIES])
    (place / "book.txt").write_text("".join(STORIES))
    for directory, texts in (("stories", STORIES), ("book", STORIES[:3])):
        (place / directory).mkdir()
        for number, text in enumerate(texts):
            name = ("train", "valid", "test")[number] if directory == "book" else f"{number:02}"
            (place / directory / f"{name}.txt").write_text(text)
    pairs = [{"translation": {"de": f"hund {n}", "en": f"dog {n}"}} for n in range(60)]
    write_lines(place / "pairs.jsonl", pairs)
    (place / "pairs").mkdir()
    for number, split in enumerate(("train", "validation", "test")):
        write_lines(place / f"pairs/{split}.jsonl", pairs[number * 20 :][:20])
    return place


def write_lines(path: Path, rows: list) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


SHOWN = [line for line in COMMANDS if " data show " in line]


@pytest.mark.parametrize(
    "command",
    [
        # One of each dataset is fast.
        pytest.param(line, marks=[] if line.split()[3] not in earlier.split() else pytest.mark.slow)
        for line, earlier in zip(SHOWN, ["", *SHOWN], strict=False)
    ],
)
def test_a_command_of_the_page_shows_its_data(place, monkeypatch, capsys, command):
    monkeypatch.chdir(place)
    assert main(shlex.split(command)[1:]) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert "\norigin      " in shown
    assert "splits      train " in shown


@pytest.mark.slow
def test_the_page_trains_and_generates(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    others = [shlex.split(line)[1:] for line in COMMANDS if " data show " not in line]
    assert {words[0] for words in others} == {"train", "generate"}
    for words in others:
        code = main([*words, *(SHORT if words[0] == "train" else ())])
        assert code == 0, capsys.readouterr().err
