"""What the tests check at each call: types, shapes that agree, in functions of every kind."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from attnlab.attend import Attend
from tests.type_checked import type_checked
from tests.unchecked import unchecked_types


@type_checked
def product(x: Float[Tensor, "a b"], y: Float[Tensor, "b c"]) -> Float[Tensor, "a c"]:
    return x @ y if len(x) < 4 else y


@type_checked
def listed(first: int, /, *more: int, word: str = "", **others: list[str]) -> "int | None":
    return first if word or others or more else None


class Sizes(TypedDict):
    width: int


@type_checked
def sized(sizes: Sizes | None, read: Callable[[], int] | None = None) -> dict[str, Any]:
    return {**sizes} if sizes else {}


@type_checked
@dataclass
class Point:
    x: int


@type_checked
def later() -> Iterator[int]:
    yield 1


def ones(*shape: int) -> Tensor:
    return torch.ones(shape)


def test_what_is_stated_is_let_through():
    assert product(ones(2, 3), ones(3, 4)).shape == (2, 4)
    assert listed(1) is None
    assert listed(1, 2, word="a", b=["c"]) == 1
    assert sized({"width": 1}, lambda: 1) == {"width": 1}
    assert sized(None, read=None) == {}
    assert Point(1) == Point(x=1)
    assert list(later()) == [1]


@pytest.mark.parametrize(
    "call",
    [
        lambda: product(ones(2, 3), ones(4, 3)),
        lambda: product(ones(2, 3), y=ones(4, 3)),
        lambda: product(ones(2), ones(2, 2)),
        lambda: product(ones(2, 3).long(), ones(3, 3)),
        lambda: product(ones(4, 3), ones(3, 3)),
        lambda: listed("1"),
        lambda: listed(1, 2, "3"),
        lambda: listed(1, word=2),
        lambda: listed(1, first="a"),
        lambda: listed(1, b=[1]),
        lambda: sized([1]),
        lambda: sized({}, 3),
        lambda: Point("1"),
        lambda: Point(x=None),
    ],
)
def test_what_is_not_is_refused(call):
    with pytest.raises(TypeCheckError):
        call()


def test_a_block_may_be_left_unchecked():
    with unchecked_types():
        assert Point("1") == Point(x="1")  # pyright: ignore


def test_a_result_is_checked_and_the_place_is_said():
    with pytest.raises(TypeCheckError, match=r"product: return is a Tensor of shape \(3, 3\)"):
        product(ones(4, 3), ones(3, 3))


def test_functions_of_one_def_are_checked_each_by_its_own_annotations():
    def make(kind: Any, size: int) -> Any:
        @type_checked
        def made(x: kind, y: Float[Tensor, f"{size}"]) -> int:  # pyright: ignore
            return size

        return made

    text, number = make(str, 1), make(int, 2)
    assert (text("a", ones(1)), number(1, ones(2)), make(str, 2)("a", ones(2))) == (1, 2, 2)
    for call in (lambda: text(1, ones(1)), lambda: text("a", ones(2)), lambda: number(1, ones(1))):
        with pytest.raises(TypeCheckError):
            call()


def test_an_annotation_may_name_what_comes_later():
    @type_checked
    def early(x: "Later") -> None: ...

    early(Later())
    with pytest.raises(TypeCheckError):
        early(1)


class Later:
    pass


def test_the_functions_of_attnlab_are_checked():
    attend = Attend(causal=True, dropout=0.0, num_heads=1)
    with pytest.raises(TypeCheckError):
        Attend(True, 0.0, "1")  # pyright: ignore
    with pytest.raises(TypeCheckError):
        attend(ones(1, 1, 2, 3), ones(1, 1, 2, 3), ones(1, 1, 3, 3))
