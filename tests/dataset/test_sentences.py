"""A sentence is of the class that its file says, and stands in one split alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest

from attnlab.corpus.rows import split_by_hash
from attnlab.dataset.sentences import Sentences
from attnlab.experiment import Experiment
from tests.corpus.real import real
from tests.prose import refuses
from tests.refused_calls import refused_calls

TSV = {
    "train": "good film\t1\nbad film\t0\n bad  film \t0\nodd plot\t1\n\t1\n",
    "validation": "odd plot\t1\nbad plot\t0\n",
    "test": "bad plot\t0\nGood plot\t1\n",
}


@pytest.fixture
def directory(tmp_path):
    for name, text in TSV.items():
        (tmp_path / f"{name}.tsv").write_text(f"sentence\tlabel\n{text}")
    return tmp_path


def sentences(dataset: Sentences, split: str) -> list[str]:
    return [" ".join(words) for words, _ in dataset.rows[split]]


def test_a_sentence_is_in_the_first_split_that_has_it(directory):
    dataset = Sentences(path=str(directory))
    assert sentences(dataset, "test") == ["bad plot", "good plot"]
    assert sentences(dataset, "validation") == ["odd plot"]
    assert sentences(dataset, "train") == ["good film", "bad film", "bad film"]
    # One that validation holds, and one without words.
    assert dataset.left_out == {"test": 0, "validation": 1, "train": 2}
    assert dataset.tokens == ["<pad>", "<unk>", "<class>", "film", "bad"]
    assert dataset.show("test", 1) == "<unk> <unk> <class>\nclass: positive"
    batch = dataset.splits["train"][:]
    assert batch.at is not None
    assert batch.at.flatten().tolist() == [2, 2, 2]
    assert batch.targets.flatten().tolist() == [1, 0, 0]


def test_any_sentence_can_be_asked(directory):
    dataset = Sentences(path=str(directory))
    batch = dataset.batch_of_text("BAD plot")
    assert dataset.decode(batch.inputs[0].tolist()) == "bad <unk> <class>"
    assert batch.at is not None
    assert batch.at.tolist() == [[2]]


def test_a_share_of_train_is_drawn_by_its_seed_and_keeps_equal_sentences_together(tmp_path):
    lines = [f"{n % 2} question {n // 2} here" for n in range(200)]
    (tmp_path / "train.all").write_text("\n".join(lines) + "\n")
    (tmp_path / "test.all").write_text("1 of another kind\n")
    files = {"train": "train.all", "validation": 0.2, "test": "test.all"}
    datasets = [
        Sentences(path=str(tmp_path), files=files, classes=["even", "odd"], seed=seed)
        for seed in (0, 0, 1)
    ]
    assert datasets[0].data_hash == datasets[1].data_hash != datasets[2].data_hash
    for dataset in datasets:
        held = set(sentences(dataset, "validation"))
        assert len(held) == 20
        assert len(sentences(dataset, "validation")) == 40
        assert not held & set(sentences(dataset, "train"))
        assert len(sentences(dataset, "train")) == 160
    # The data are the same ones, whatever is drawn of them.
    assert datasets[0].sha256 == datasets[2].sha256
    reread = Sentences(files=files, classes=["even", "odd"], sha256=datasets[0].sha256)
    assert reread.data_hash == datasets[0].data_hash


def test_another_encoding_is_read_where_it_is_named(tmp_path):
    for name in ("train", "dev", "test"):
        (tmp_path / name).write_bytes(f"0 caf\xe9 {name}\n1 th\xe9 {name}\n".encode("latin-1"))
    files = {"train": "train", "validation": "dev", "test": "test"}
    knobs = {"path": str(tmp_path), "files": files, "min_count": 1}
    assert "café" in Sentences(layout={"encoding": "latin-1"}, **knobs).tokens
    with refuses(ValueError, "dataset.sentences.not_utf8", tmp_path):
        Sentences(**knobs)


def test_what_cannot_be_classes_is_refused(directory):
    def of_validation(text: str) -> None:
        (directory / "validation.tsv").write_text(text)
        Sentences(path=str(directory))

    refused_calls(
        "dataset.sentences.{}",
        {
            "one_class": lambda: Sentences(path=str(directory), classes=["one"]),
            "negative_seed": lambda: Sentences(path=str(directory), seed=-1),
            "other_hash": lambda: Sentences(path=str(directory), sha256="00", obtain="them"),
            "no_class": lambda: of_validation("sentence\tlabel\ngood\t2\n"),
            "no_column": lambda: of_validation("phrase\tlabel\ngood\t1\n"),
            "one_column": lambda: of_validation("sentence\tlabel\ngood\n"),
            "empty": lambda: of_validation("sentence\tlabel\n"),
        },
        directory,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes", "left_out"),
    [
        ("sst2", {"test": 872, "validation": 6_735, "train": 60_539}, 75),
        ("trec", {"test": 500, "validation": 547, "train": 4_894}, 9),
    ],
)
def test_the_real_ones_are_the_published_ones(composed, name, sizes, left_out):
    dataset = Experiment(composed(f"dataset={name}", f"dataset.path={real(name)}")).dataset
    assert isinstance(dataset, Sentences)
    assert {split: len(made) for split, made in dataset.splits.items()} == sizes
    assert dataset.left_out["train"] == left_out


def test_what_is_left_out_is_said(directory):
    dataset = Sentences(path=str(directory))
    assert dataset.notes == [
        "validation: 1 of 2 sentences are left out (in an earlier split: 1)",
        "train: 2 of 5 sentences are left out (in an earlier split: 1; without words: 1)",
    ]


TABLES = {
    "t.csv": "sentence,label\ngood film,1\nNA,0\ngood film,1\n,1\n",
    "t.tsv": "\ufefflabel\tsentence\r\n1\tgood film\r\n0\tNA\r\n1\tgood film\r\n1\t\r\n",
    "t.JSONL": '{"text": "good film", "label": 1}\n{"text": "NA", "label": "0"}\n'
    '{"text": "good film", "label": 1}\n{"text": null, "label": 1}\n',
    "t.txt": "\ufeff1 good film\n0 NA\n1 good film\n1 \n",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_each_form_is_the_same_data(tmp_path, name):
    (tmp_path / name).write_bytes(TABLES[name].encode())
    (tmp_path / "held.txt").write_text("1 other\n")
    files = {"train": name, "validation": "held.txt"}
    dataset = Sentences(path=str(tmp_path), files=files, min_count=1)
    assert sentences(dataset, "train") == ["good film", "na", "good film"]
    assert dataset.tokens == ["<pad>", "<unk>", "<class>", "film", "good", "na"]
    assert dataset.notes == ["train: 1 of 4 sentences are left out (without words: 1)"]


def hub_of(monkeypatch, **columns: list[Any]) -> None:
    table = datasets.Dataset.from_dict(columns)
    held = datasets.Dataset.from_dict({"text": ["held back"], "label": [1]})
    tables = datasets.DatasetDict({"train": table, "validation": held})
    monkeypatch.setattr("attnlab.corpus.hub._hub_answers", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: tables)


REVIEWS = [
    (f"plot {n} was {'fine' if n % 3 else 'dull'}", "good" if n % 3 else "bad") for n in range(90)
]
NAMED = {"text": "review", "label": "stars"}


def write_csv(path: Path, rows: Sequence[tuple[str, object]]) -> Path:
    path.write_text("review,stars\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return path


def test_one_table_with_texts_for_labels_is_split_by_what_its_rows_say(tmp_path):
    path = write_csv(tmp_path / "reviews.csv", REVIEWS)
    dataset = Sentences(path=str(path), layout=NAMED, min_count=1)
    assert dataset.classes == ["bad", "good"]
    by_split = {split: set(sentences(dataset, split)) for split in dataset.split_names}
    assert set.union(*by_split.values()) == {text for text, _ in REVIEWS}
    assert sum(map(len, by_split.values())) == len(REVIEWS)
    assert 2 <= len(by_split["test"]) <= 20
    assert dataset.classes is not None
    labels = {" ".join(words): dataset.classes[label] for words, label in dataset.rows["train"]}
    assert labels.items() <= dict(REVIEWS).items()
    # Other rows, and another order, move no row to another split.
    fewer = write_csv(tmp_path / "fewer.csv", REVIEWS[::-2])
    of_fewer = Sentences(path=str(fewer), layout=NAMED, min_count=1)
    for split, found in by_split.items():
        assert set(sentences(of_fewer, split)) == found & {text for text, _ in REVIEWS[::-2]}
    shares = {"train": "train.tsv", "validation": 0.4, "test": None}
    held = Sentences(path=str(path), layout=NAMED, min_count=1, files=shares)
    assert held.split_names == ("validation", "train")
    assert 25 <= len(held.rows["validation"]) <= 47
    assert held.origin == (
        "validation (0.4) of one table, by the hash of each text and seed=0; the rest is train"
    )
    others = Sentences(path=str(path), layout=NAMED, min_count=1, seed=1)
    assert set(sentences(others, "test")) != by_split["test"]
    again = Sentences(sha256=dataset.sha256, classes=dataset.classes, min_count=1)
    assert again.data_hash == dataset.data_hash


def test_equal_sentences_of_one_table_are_in_one_split(tmp_path):
    path = write_csv(tmp_path / "reviews.csv", REVIEWS * 2)
    dataset = Sentences(path=str(path), layout=NAMED, min_count=1)
    assert dataset.left_out == dict.fromkeys(dataset.split_names, 0)
    assert sum(len(split_rows) for split_rows in dataset.rows.values()) == 2 * len(REVIEWS)


def test_classes_are_the_labels_in_order_or_as_stated(tmp_path):
    def of(labels: Sequence[object], **knobs: Any) -> Sentences:
        rows = [(text, labels[n % len(labels)]) for n, (text, _) in enumerate(REVIEWS)]
        path = write_csv(tmp_path / "reviews.csv", rows)
        return Sentences(path=str(path), layout=NAMED, min_count=1, **knobs)

    assert of([10, 9, 1]).classes == ["1", "9", "10"]
    assert of([0, 1]).classes == ["negative", "positive"]
    assert of([0, 1]).content_identity["classes"] == ["negative", "positive"]
    assert of(["b", "a"], classes=["b", "a"]).show("train").endswith("class: b")
    assert of([0, 1, 2], classes=["low", "mid", "high"]).classes == ["low", "mid", "high"]


def test_tables_of_each_split_are_found_by_their_names(tmp_path):
    for name, rows in (("train", REVIEWS[:60]), ("dev", REVIEWS[60:75]), ("test", REVIEWS[75:])):
        write_csv(tmp_path / f"reviews_{name}.csv", rows)
    dataset = Sentences(path=str(tmp_path), layout=NAMED, min_count=1)
    assert {split: len(found) for split, found in dataset.rows.items()} == {
        "test": 15,
        "validation": 15,
        "train": 60,
    }
    assert dataset.origin == "as the data have them"


def test_a_saved_dataset_brings_the_names_of_its_classes(tmp_path):
    classes = datasets.ClassLabel(names=["spam", "ham"])
    columns = {"text": [text for text, _ in REVIEWS], "label": [n % 2 for n in range(90)]}
    features = datasets.Features({"text": datasets.Value("string"), "label": classes})
    table = datasets.Dataset.from_dict(columns, features)
    table.save_to_disk(tmp_path / "one")
    one = Sentences(path=str(tmp_path / "one"), min_count=1)
    assert one.classes is not None
    assert one.classes == ["ham", "spam"]
    labels = {" ".join(words): one.classes[label] for words, label in one.rows["train"]}
    assert all(
        labels.get(text, name) == name
        for text, name in zip(columns["text"], ["spam", "ham"] * 45, strict=True)
    )
    splits = {"train": range(60), "validation": range(60, 75), "test": range(75, 90)}
    datasets.DatasetDict({s: table.select(at) for s, at in splits.items()}).save_to_disk(
        tmp_path / "all"
    )
    assert (
        sentences(Sentences(path=str(tmp_path / "all"), min_count=1), "test")
        == columns["text"][75:]
    )


@pytest.mark.parametrize("split", ["", "train", "test"])
def test_a_directory_of_texts_for_each_class_is_read(tmp_path, split):
    for number, (text, label) in enumerate(REVIEWS):
        splits = ["train", "validation", "test"] if split else [""]
        place = tmp_path / splits[number % 13 % len(splits)] / label
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.txt").write_text(f"{text}\n")
    dataset = Sentences(path=str(tmp_path), min_count=1)
    assert dataset.classes == ["bad", "good"]
    texts = {text for split in dataset.split_names for text in sentences(dataset, split)}
    assert texts == {text for text, _ in REVIEWS}


HUB_FILES = {"train": "train", "validation": "validation"}


def test_a_missing_sentence_of_the_hub_is_no_word(monkeypatch):
    texts = [None if n % 3 == 0 else f"film {n}" for n in range(30)]
    hub_of(monkeypatch, text=texts, label=[n % 2 for n in range(30)])
    dataset = Sentences(path="hub:some/rows", files=HUB_FILES, min_count=1)
    assert "none" not in dataset.tokens
    assert dataset.left_out == {"validation": 0, "train": 10}
    assert dataset.notes == ["train: 10 of 30 sentences are left out (without words: 10)"]


def test_cells_that_are_no_sentence_or_no_class_are_told_by_their_row(tmp_path, monkeypatch):
    def of_hub(**columns: list[Any]) -> Callable[[], object]:
        def call() -> None:
            hub_of(monkeypatch, **columns)
            Sentences(path="hub:some/rows", files=HUB_FILES, min_count=1)

        return call

    def of_file(name: str, text: str, **knobs: Any) -> Callable[[], object]:
        def call() -> None:
            (tmp_path / name).write_text(text)
            (tmp_path / "held.txt").write_text("1 other\n")
            files = {"train": name, "validation": "held.txt"}
            Sentences(path=str(tmp_path), files=files, **{"min_count": 1, **knobs})

        return call

    def of_table(rows: Sequence[tuple[str, object]], **knobs: Any) -> Callable[[], object]:
        def call() -> None:
            path = write_csv(tmp_path / "reviews.csv", rows)
            Sentences(path=str(path), **{"layout": NAMED, "min_count": 1, **knobs})

        return call

    def of_many(names: Sequence[str]) -> Callable[[], object]:
        def call() -> None:
            place = tmp_path / "-".join(names)
            place.mkdir()
            for name in names:
                write_csv(place / name, REVIEWS)
            Sentences(path=str(place), layout=NAMED)

        return call

    def of_plain(text: str, **knobs: Any) -> Callable[[], object]:
        def call() -> None:
            (tmp_path / "book.txt").write_text(text)
            Sentences(path=str(tmp_path / "book.txt"), **knobs)

        return call

    # One at which the sentence of the only class is held back.
    rare_seed = next(
        seed
        for seed in range(99)
        if split_by_hash(b'["an", "odd", "one"]', {"test": 0.1, "validation": 0.1}, seed) == "test"
    )
    refused_calls(
        "dataset.sentences.cell.{}",
        {
            "number_of_hub": of_hub(text=[1, 2], label=[0, 1]),
            "list_of_hub": of_hub(text=[["a"], ["b"]], label=[0, 1]),
            "text_for_a_class": of_hub(text=["a", "b"], label=["0", "positive"]),
            "share_for_a_class": of_hub(text=["a", "b"], label=[0.0, 1.0]),
            "no_class": of_hub(text=["a", "b"], label=[0, None]),
            "nothing_but_null": of_hub(text=[None, None], label=[0, 1]),
            "one_class": of_hub(text=["a", "b"], label=[1, 1]),
            "number_of_file": of_file("t.jsonl", '{"text": "a", "label": 1}\n{"text": 3}\n'),
            "torn": of_file("t.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "la'),
            "two_columns": of_file("t.tsv", "text\ttext\tlabel\na\tb\t1\n"),
            "rare_words": of_file("t.tsv", "text\tlabel\na\t1\nb\t0\n", min_count=2),
            "encoding": of_file("t.tsv", "text\tlabel\na\t1\n", layout={"encoding": "utf-9"}),
            "mixed_labels": of_table([*REVIEWS, ("one more", "3")]),
            "no_label": of_table([*REVIEWS, ("one more", "")]),
            "many_labels": of_table([(text, f"id{n}") for n, (text, _) in enumerate(REVIEWS)]),
            "rare_class": of_table([*REVIEWS, ("an odd one", "odd")], seed=rare_seed),
            "unlike_classes": of_table(REVIEWS, classes=["fine", "dull"]),
            "missing_class": of_table([*REVIEWS, ("one more", "other")], classes=["good", "bad"]),
            "near_column": of_table(REVIEWS, layout={"text": "revew", "label": "stars"}),
            "unknown_layout": of_table(REVIEWS, layout={"column": "review"}),
            "one_plain_file": of_plain("Call me Ishmael.\nSome years ago\n"),
            "named_column_of_text": of_plain("1 a\n0 b\n", layout=NAMED),
            "empty_table": of_table([]),
            "no_tables": lambda: Sentences(path=str(tmp_path)),
            "several_tables": of_many(("train_1.csv", "train_2.csv")),
            "no_validation": of_many(("train_1.csv",)),
            "encoding_of_hub": lambda: Sentences(
                path="hub:some/rows", layout={"encoding": "latin-1"}
            ),
        },
        tmp_path,
    )
