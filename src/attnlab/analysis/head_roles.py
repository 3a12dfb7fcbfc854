"""Roles of heads by their scores, and the step from which on a head has its role.

A role says where a head attends, not that the model needs the head; only an ablation shows that.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from attnlab.analysis.emergence import emergence_step
from attnlab.evidence.base import MOST_WEIGHT

EVEN = 0.9
"""A normalised entropy: n keys are as many as n ** .9 with equal weights, 12 of 16. Our choice; the
criterion of Clark et al. (2019, sec. 3.3), at most .1 on a key, depends on the length."""


class Role(NamedTuple):
    """The role of heads whose mean score is above a threshold."""

    name: str
    measure: str
    """One of `attnlab.interp.pattern_stats.measure_rows`."""
    threshold: float
    source: str


BROAD = Role("broad", "normalised_entropy", EVEN, "Clark et al. 2019, sec. 3.3")
ROLES = (
    Role("previous token", "previous", MOST_WEIGHT, "Clark et al. 2019, sec. 3.1"),
    Role("current token", "current", MOST_WEIGHT, "Clark et al. 2019, sec. 3.1"),
    Role("next token", "next", MOST_WEIGHT, "Clark et al. 2019, sec. 3.1"),
    Role("duplicate token", "duplicate_token", MOST_WEIGHT, "Wang et al. 2023, sec. 3"),
    Role("induction", "prefix_matching", MOST_WEIGHT, "Olsson et al. 2022"),
    Role("sink", "sink", MOST_WEIGHT, "Xiao et al. 2024"),
    BROAD,
)


def assign_roles(scores: Mapping[str, float | None]) -> list[Role]:
    """Return the roles whose thresholds the mean scores of a head exceed, the highest score first.

    A broad head has no other role: in a short sequence, an even row has much weight on any few keys
    (.63 on the first four of eight, if it is causal). A missing score or NaN gives no role.
    """
    named_roles = [role for role in ROLES if (scores.get(role.measure) or 0) > role.threshold]
    if BROAD in named_roles:
        return [BROAD]
    return sorted(named_roles, key=lambda role: -(scores[role.measure] or 0))


def first_role_step(
    role: Role, history: tuple[Int[np.ndarray, " step"], Float[np.ndarray, "step head"]], head: int
) -> int | None:
    """Return the measured step from which on a head's score stays above the role's threshold."""
    steps, values = history
    scores: Sequence[float] = values[:, head].tolist()
    return emergence_step(steps.tolist(), scores, role.threshold)
