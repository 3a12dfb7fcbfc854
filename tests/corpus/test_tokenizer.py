"""A tokenizer parts any text into tokens and puts them together again, however it is cut."""

import numpy as np
import pytest
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from attnlab.config import conf_dir
from attnlab.tokenizer.base import Tokenizer, number_type
from attnlab.tokenizer.bytes import Bytes
from attnlab.tokenizer.characters import Characters
from tests.conftest import choices

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def tokenizer(name: str) -> Tokenizer:
    node = OmegaConf.load(conf_dir() / f"dataset/tokenizer/{name}.yaml")
    return instantiate(node, _execution_whitelist_=["attnlab.*"])


def pieces(content: bytes, size: int) -> list[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]


@pytest.mark.parametrize("name", choices("dataset/tokenizer"))
@given(text=TEXTS, size=st.integers(1, 7))
def test_a_corpus_in_any_pieces_is_the_text_again(name, text, size):
    made, content = tokenizer(name), text.encode()
    vocabulary = made.vocabulary(pieces(content, size))
    numbers = np.concatenate(list(made.encode(pieces(content, size), vocabulary)))
    assert len(set(vocabulary)) == len(vocabulary)
    names = [vocabulary[number] for number in numbers]
    assert names == made.part(text)
    assert made.join(names) == text
    assert numbers.dtype == number_type(len(vocabulary))


@given(text=TEXTS)
def test_characters_are_those_of_the_text_in_order(text):
    assert Characters().vocabulary([text.encode()]) == sorted(set(text))


def test_bytes_are_themselves():
    content = bytes(range(256))
    assert np.concatenate(list(Bytes().encode([content], []))).tobytes() == content
    assert Bytes().part("aé\n") == ["a", r"\xc3", r"\xa9", "\n"]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_what_is_not_utf_8_is_told_with_its_place(size):
    content = "aé".encode() + b"bc\xe9 d"
    with pytest.raises(ValueError, match=r"not UTF-8: byte 0xe9 at 5; .*tokenizer=bytes"):
        Characters().vocabulary(pieces(content, size))
    with pytest.raises(ValueError, match=r"byte 0xc3 at 3"):
        Characters().vocabulary(pieces(b"abc\xc3", size))


def test_numbers_take_the_smallest_type():
    assert [number_type(n) for n in (1, 256, 257, 65536, 65537)] == [
        *(np.uint8, np.uint8),
        *(np.uint16, np.uint16),
        np.uint32,
    ]
