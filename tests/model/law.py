"""One law over many cases: each of them is tried, and all that break the law are listed."""

import traceback
from collections.abc import Callable, Iterable
from functools import wraps
from inspect import Signature
from itertools import product
from typing import Any

import torch

Factor = Iterable[Any] | Callable[[], Iterable[Any]]
"""What a case is of; a function where it takes a while to know, so that collecting is quick."""


def law(*factors: Factor) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Make one test of a function of a case: of every combination of the factors."""

    def decorate(holds: Callable[..., None]) -> Callable[[], None]:
        @wraps(holds)
        def test() -> None:
            cases = list(product(*(f() if callable(f) else f for f in factors)))
            assert cases, "a law over nothing"
            offenders = [fault for case in cases if (fault := _fault(holds, case))]
            assert offenders == [], "\n".join(offenders)

        # pytest would otherwise take the parameters for fixtures.
        test.__signature__ = Signature()  # pyright: ignore[reportAttributeAccessIssue]
        return test

    return decorate


def _fault(holds: Callable[..., None], case: tuple[Any, ...]) -> str | None:
    """Say how a case, whose random numbers do not depend on the others, breaks the law."""
    torch.manual_seed(0)
    try:
        holds(*case)
    except Exception as error:
        (frame, *_) = [
            f for f in traceback.extract_tb(error.__traceback__) if f.name == holds.__name__
        ] or traceback.extract_tb(error.__traceback__)
        names = ", ".join(getattr(part, "__name__", str(part)) for part in case)
        reason = " ".join(str(error).split())[:300]
        return f"{names} (line {frame.lineno}): {type(error).__name__}: {reason}"
    return None
