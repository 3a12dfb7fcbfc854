"""A tokenizer parts any text into tokens and puts them together again, however it is cut."""

from functools import cache, partial

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from attnlab.building import NO_USER_TARGETS, build
from attnlab.config import conf_dir
from attnlab.tokenizer import bpe
from attnlab.tokenizer.base import Tokenizer, number_type, whole_words
from attnlab.tokenizer.bpe import BPE
from attnlab.tokenizer.bytes import Bytes
from attnlab.tokenizer.characters import Characters
from attnlab.tokenizer.words import Words
from tests.choices import choices
from tests.depth import examples
from tests.refused_calls import refused_calls

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
EXACT = [name for name in choices("dataset/tokenizer") if name != "words"]
BORDERS = st.text("ab1é日.' \n\t\r\u00a0\u3000\u2028\x1c\x85", min_size=1, max_size=60)


def tokenizer(name: str) -> Tokenizer:
    node = yaml.safe_load((conf_dir() / f"dataset/tokenizer/{name}.yaml").read_text())
    return build(node, "dataset", NO_USER_TARGETS)


def pieces(content: bytes, size: int) -> list[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]


def encoded(made: Tokenizer, content: bytes, size: int, vocabulary: list[str]) -> np.ndarray:
    return np.concatenate(list(made.encode(pieces(content, size), vocabulary)))


@pytest.mark.parametrize("name", choices("dataset/tokenizer"))
@examples(25)
@given(text=TEXTS, size=st.integers(1, 7))
def test_a_corpus_in_any_pieces_is_parted_as_the_text_is(name, text, size):
    learnt_tokenizer, content = tokenizer(name), text.encode()
    vocabulary = learnt_tokenizer.vocabulary(pieces(content, size))
    numbers = encoded(learnt_tokenizer, content, size, vocabulary)
    assert len(set(vocabulary)) == len(vocabulary)
    names = [vocabulary[number] for number in numbers]
    assert names == learnt_tokenizer.tokenize(text)
    assert numbers.dtype == number_type(len(vocabulary))
    written = learnt_tokenizer.detokenize(names)
    if name in EXACT:
        assert written == text
        assert sum(map(learnt_tokenizer.num_bytes, names)) == len(content)
    assert learnt_tokenizer.tokenize(written) == names


@pytest.mark.parametrize("name", ["bpe", "words"])
def test_what_was_learnt_can_be_recalled(name):
    text = "the cat sat on the mat, the dog sat too\n" * 9
    learner, recalled = tokenizer(name), tokenizer(name)
    vocabulary = learner.vocabulary([text.encode()])
    recalled.load_state(learner.state)
    assert encoded(recalled, text.encode(), 5, vocabulary).tolist() == (
        encoded(learner, text.encode(), 99, vocabulary).tolist()
    )
    assert recalled.tokenize("the hat é") == learner.tokenize("the hat é")


@examples(25)
@given(text=TEXTS)
def test_characters_are_those_of_the_text_in_order(text):
    assert Characters().vocabulary([text.encode()]) == sorted(set(text))


def test_bytes_are_themselves():
    content = bytes(range(256))
    assert np.concatenate(list(Bytes().encode([content], []))).tobytes() == content
    assert Bytes().tokenize("aé\n") == ["a", r"\xc3", r"\xa9", "\n"]


def test_words_are_counted_and_rare_ones_unknown():
    text = "b a b\n c <unk> b a\n\n"
    assert Words().vocabulary([text.encode()]) == ["<unk>", "<eos>", "b", "a", "c"]
    assert Words(min_count=2).vocabulary([text.encode()]) == ["<unk>", "<eos>", "b", "a"]
    small = Words(max_size=3)
    vocabulary = small.vocabulary([text.encode()])
    assert vocabulary == ["<unk>", "<eos>", "b"]
    names = [vocabulary[n] for n in encoded(small, text.encode(), 2, vocabulary)]
    assert names == "b <unk> b <eos> <unk> <unk> b <unk> <eos> <eos>".split()  # noqa: SIM905
    assert small.detokenize(names) == "b <unk> b\n<unk> <unk> b <unk>\n\n"
    assert [Words().num_bytes(name) for name in ("é", "abc", "<eos>")] == [3, 4, 1]


def test_byte_pairs_of_a_small_text_by_hand():
    bpe_tokenizer = BPE(vocab_size=259)
    vocabulary = bpe_tokenizer.vocabulary([b"low low low low lower lower newest newest newest"])
    # l-o and o-w stand 6 times each, then a word's space before "low" 5 times.
    assert vocabulary[256:] == ["lo", "low", "Ġlow"]
    assert bpe_tokenizer.tokenize("é") == ["Ã", "©"]
    assert bpe_tokenizer.detokenize(bpe_tokenizer.tokenize(" low\né")) == " low\né"
    assert bpe_tokenizer.detokenize(["Ã"]) == "\ufffd"


@cache
def learnt() -> tuple[BPE, list[str]]:
    tokenizer_of_text = BPE(vocab_size=400)
    text = "a'b ab  1 .\n\n a\t b\u00a0 ab \u3000日 日é. 'a\r\n b " * 20
    return tokenizer_of_text, tokenizer_of_text.vocabulary([text.encode()])


@examples(100)
@given(text=BORDERS, size=st.integers(1, 9), part=st.integers(1, 9))
def test_byte_pairs_do_not_see_where_a_text_was_cut(text, size, part):
    tokenizer_of_text, vocabulary = learnt()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "PART", part)
        patch.setattr(bpe, "TOGETHER", size)
        names = [vocabulary[n] for n in encoded(tokenizer_of_text, text.encode(), 5, vocabulary)]
    assert names == tokenizer_of_text.tokenize(text)


def test_whole_words_are_cut_before_spaces_alone():
    assert list(whole_words([b"one t", b"wo  thr", b"ee", b" four"])) == [
        "one",
        " two",
        "  three four",
    ]
    assert list(whole_words([b"one", b"two", b"\xc3", b"\xa9"])) == ["onetwoé"]
    assert list(whole_words([])) == []


def test_knobs_that_leave_nothing_are_refused():
    refused_calls(
        "tokenizer.{}",
        {
            "vocab_size": lambda: BPE(vocab_size=255),
            "min_count": lambda: Words(min_count=0),
            "max_size": lambda: Words(max_size=2),
        },
    )


@pytest.mark.parametrize("make", [Characters, Words, lambda: BPE(vocab_size=300)])
def test_what_is_not_utf_8_is_told_with_its_place(make):
    contents = {
        "latin": "aé".encode() + b"bc\xe9 d",
        "torn": b"abc\xc3",
        "utf16": "abc".encode("utf-16-le"),
    }
    for size in (1, 2, 3, 100):
        calls = {
            name: partial(make().vocabulary, pieces(content, size))
            for name, content in contents.items()
        }
        refused_calls("tokenizer.not_utf8.{}", calls)


def test_numbers_take_the_smallest_type():
    assert [number_type(n) for n in (1, 256, 257, 65536, 65537)] == [
        *(np.uint8, np.uint8),
        *(np.uint16, np.uint16),
        np.uint32,
    ]
