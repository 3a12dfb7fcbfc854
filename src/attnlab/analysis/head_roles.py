"""Names for heads by their scores, and since when a head has its name.

A name says where a head looks, and not that the model needs it: ablate the head to know that.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from attnlab.interp.circuits import emergence

MOST = 0.5
"""More weight than on all other keys together. Our choice: sources rank heads and set no number."""
EVEN = 0.9
"""Of a normalised entropy: n keys are as many as n ** .9 with equal weights, 12 of 16. Our choice;
what Clark et al. (2019, sec. 3.3) call broad, at most .1 on a key, hangs on the length."""


class Role(NamedTuple):
    """A name that heads have whose mean score is above a threshold."""

    name: str
    measure: str
    """Of `attnlab.interp.pattern_stats.measure`."""
    threshold: float
    source: str


BROAD = Role("broad", "normalised_entropy", EVEN, "Clark et al. 2019, sec. 3.3")
ROLES = (
    Role("previous token", "previous", MOST, "Clark et al. 2019, sec. 3.1"),
    Role("current token", "current", MOST, "Clark et al. 2019, sec. 3.1"),
    Role("next token", "next", MOST, "Clark et al. 2019, sec. 3.1"),
    Role("duplicate token", "duplicate_token", MOST, "Wang et al. 2023, sec. 3"),
    Role("induction", "prefix_matching", MOST, "Olsson et al. 2022"),
    Role("sink", "sink", MOST, "Xiao et al. 2024"),
    BROAD,
)


def roles(scores: Mapping[str, float | None]) -> list[Role]:
    """Name a head by its mean scores, the highest first; nothing where none is above its threshold.

    A broad head has no other name: in a short sequence, an even row has much weight on any few keys
    (.63 on the first four of eight, if it is causal). A score that is not there, or NaN, names
    nothing.
    """
    found = [role for role in ROLES if (scores.get(role.measure) or 0) > role.threshold]
    if BROAD in found:
        return [BROAD]
    return sorted(found, key=lambda role: -(scores[role.measure] or 0))


def since(
    role: Role, course: tuple[Int[np.ndarray, " step"], Float[np.ndarray, "step head"]], head: int
) -> int | None:
    """Give the measured step from which on the score of a head stays above the role's threshold."""
    steps, values = course
    scores: Sequence[float] = values[:, head].tolist()
    return emergence(steps.tolist(), scores, role.threshold)
