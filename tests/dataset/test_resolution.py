"""A pronoun is asked where it stands, and neither the form nor the order tells the answer."""

import csv

import pytest

from attnlab.dataset.resolution import PRONOUN, Resolution, input_words, load_questions
from attnlab.experiment import Experiment
from tests.corpus.real import SMALL, real
from tests.prose import refuses
from tests.refused_calls import refused_calls

SCHEMA = "The cup fell on the dog, since it was near it.\nit\nThe cup,the dog\nthe dog\n"


def read(tmp_path, text: str) -> list[list[str]]:
    (tmp_path / "some.txt").write_text(text)
    return load_questions(tmp_path, "some.txt")


def test_a_schema_is_read_at_its_first_pronoun(tmp_path):
    (row,) = read(tmp_path, SCHEMA)
    words = "<a> the cup <b> the dog <text> the cup fell on the dog , since <pronoun> was near it ."
    assert " ".join(input_words(row)) == words
    assert row[-1] == "B"


def test_a_is_whom_the_text_names_first_whatever_the_file_says(tmp_path):
    hidden = (
        "The suitcase holds my trophy since [MASK]  is big. \n[MASK]\n{} \n{} \n\n"
        "The suitcase holds my trophy since [MASK]  is small. \n[MASK]\n{} \n{} \n"
    )
    both = ("The suitcase ,the trophy", "The suitcase", "the trophy ,The suitcase", "the trophy")
    big, small = read(tmp_path, hidden.format(*both))
    assert big[2:] == ["The suitcase", "the trophy", "A"]
    assert small[2:] == ["The suitcase", "the trophy", "B"]


def test_gap_is_read_at_its_offsets_and_neither_is_left_out():
    path = SMALL / "gap"
    files = {split: f"gap-{split}.tsv" for split in ("validation", "test")}
    dataset = Resolution(path=str(path), files={**files, "train": "gap-development.tsv"})
    assert dataset.left_out == {"test": 2, "validation": 2, "train": 18}
    assert dataset.notes[0] == "test: 2 of 10 questions are left out (of neither candidate: 2)"
    assert dataset.show("test", 0).startswith("<a> sue <b> liz <text> sue met liz before <pronoun>")


def test_a_table_of_another_form_is_the_same_questions(tmp_path):
    gap = (SMALL / "gap/gap-test.tsv").read_text()
    (tmp_path / "gap.TSV").write_text(f"\ufeff{gap}")
    with (tmp_path / "gap.csv").open("w", newline="") as file:
        csv.writer(file).writerows(line.split("\t") for line in gap.splitlines())
    expected = load_questions(SMALL / "gap", "gap-test.tsv")
    assert load_questions(tmp_path, "gap.TSV") == load_questions(tmp_path, "gap.csv") == expected


def test_the_label_is_asked_at_the_pronoun_and_both_are_as_frequent():
    dataset = Resolution(path=str(SMALL / "resolution"))
    for split in dataset.splits.values():
        batch = split[:]
        assert batch.at is not None
        asked = batch.inputs.gather(1, batch.at)
        assert {dataset.tokens[token] for token in asked.flatten().tolist()} == {PRONOUN}
        assert batch.targets.float().mean() == dataset.chance


def test_twins_stay_together():
    dataset = Resolution(path=str(SMALL / "resolution"), seed=3)
    pairs = {name: {(row[2], row[3]) for row in part} for name, part in dataset.rows.items()}
    assert not pairs["train"] & pairs["validation"]
    assert len(dataset.rows["validation"]) == 2 * len(pairs["validation"])
    assert dataset.data_hash != Resolution(path=str(SMALL / "resolution"), seed=4).data_hash
    assert Resolution(sha256=dataset.sha256, seed=3).data_hash == dataset.data_hash


def test_any_text_of_that_form_can_be_asked():
    dataset = Resolution(path=str(SMALL / "resolution"))
    text = "<a> the wolf <b> the cow <text> The wolf eats the cow because <pronoun> was hungry."
    batch = dataset.batch_of_text(text)
    assert dataset.decode(batch.inputs[0].tolist()) == (
        "<a> the wolf <b> the cow <text> the wolf <unk> the cow because <pronoun> was hungry ."
    )
    assert batch.at is not None
    assert batch.at.tolist() == [[13]]
    with refuses(ValueError, "dataset.resolution.no_pronoun"):
        dataset.batch_of_text("the wolf")


def test_what_is_no_question_is_told_with_its_line(tmp_path):
    gap = (SMALL / "gap/gap-test.tsv").read_text()

    def read_gap(text: str) -> None:
        (tmp_path / "gap.tsv").write_text(text)
        load_questions(tmp_path, "gap.tsv")

    refused_calls(
        "dataset.resolution.{}",
        {
            "other_answer": lambda: read(tmp_path, SCHEMA.replace("\nthe dog\n", "\nthe cat\n")),
            "other_pronoun": lambda: read(tmp_path, SCHEMA.replace("\nit\n", "\nshe\n")),
            "one_candidate": lambda: read(tmp_path, SCHEMA.replace("cup,", "cup ")),
            "one_line": lambda: read(tmp_path, f"{SCHEMA}\nThe end.\n"),
            "empty": lambda: read(tmp_path, "\n"),
            "other_offset": lambda: read_gap(gap.replace("\tshe\t", "\the\t")),
            "no_word_for_true": lambda: read_gap(gap.replace("\tTRUE", "\tyes", 1)),
            "both_meant": lambda: read_gap(gap.replace("\tFALSE", "\tTRUE")),
            "no_column": lambda: read_gap(gap.replace("A-coref", "A-means")),
        },
        tmp_path,
    )


def test_impossible_knobs_are_refused():
    path = str(SMALL / "resolution")
    refused_calls(
        "dataset.resolution.{}",
        {
            "no_length": lambda: Resolution(path=path, length=0),
            "negative_seed": lambda: Resolution(path=path, seed=-1),
            "short": lambda: Resolution(path=path, length=5),
            "other_hash": lambda: Resolution(path=path, sha256="00"),
            "hub": lambda: Resolution(path="hub:some/questions"),
        },
        SMALL,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "place", "sizes"),
    [
        ("dpr", "dpr", {"test": 564, "validation": 132, "train": 1_184}),
        ("wsc273", ".", {"test": 273, "validation": 564, "train": 1_316}),
        ("gap", "gap", {"test": 1_658, "validation": 372, "train": 1_680}),
    ],
)
def test_the_real_ones_are_balanced(composed, name, place, sizes):
    real("gap")
    dataset = Experiment(composed(f"dataset={name}", f"dataset.path={real(place)}")).dataset
    assert isinstance(dataset, Resolution)
    assert {split: len(made) for split, made in dataset.splits.items()} == sizes
    for split in dataset.splits.values():
        assert 0.47 < split[:].targets.float().mean() < 0.53
