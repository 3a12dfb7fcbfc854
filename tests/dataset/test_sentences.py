"""A sentence is of the class that its file says, and stands in one split alone."""

import pytest

from attnlab.assemble import Experiment
from attnlab.dataset.sentences import Sentences
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
    batch = dataset.read("BAD plot")
    assert dataset.write(batch.inputs[0].tolist()) == "bad <unk> <class>"
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
    assert "café" in Sentences(encoding="latin-1", **knobs).tokens
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
