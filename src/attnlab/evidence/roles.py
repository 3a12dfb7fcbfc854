"""Names for heads by their scores, and since when a head has its name.

A name says where a head looks, and not that the model needs it: ablate the head to know that.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from attnlab.evidence.circuits import emergence

MOST = 0.5
"""More weight than on all other keys together. Our choice: sources rank heads and set no number."""
EVEN = 0.9
"""Of a normalised entropy: n keys are as many as n ** .9 with equal weights, 12 of 16. Our choice;
what Clark et al. (2019, sec. 3.3) call broad, at most .1 on a key, hangs on the length."""
RECALL = "recall/"
"""What the metrics of `evidence=recall` begin with."""


class Role(NamedTuple):
    """A name that heads have whose mean score is above a threshold."""

    name: str
    measure: str
    """Of `attnlab.evidence.rows.measure`."""
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


def recalled(metrics: Mapping[str, float]) -> dict[str, Any] | None:
    """Name the heads that `evidence=recall` found, by their weights at the places that matter.

    Mean scores name neither where most queries ask nothing. `metrics` are those a run ended with;
    None without that evidence. `previous token` is the head that tells its place what stood before
    by looking there most of all; one that `gathers` looks at several tokens.
    """
    found = {name: value for name, value in metrics.items() if name.startswith(RECALL)}
    found = {name.removeprefix(RECALL): value for name, value in found.items()}
    if "read" not in found:
        return None
    names = {
        "read": "match and read" if found["read"] > MOST else "reads",
        "gather": "previous token" if found.get("previous", 0) > MOST else "gathers",
    }
    heads = {
        name: {
            "layer": int(found[f"{name}_layer"]),
            "head": int(found[f"{name}_head"]),
            "weight": found[name],
            "role": role,
            "without": found[f"without_{name}"],
            "without_mean": found[f"without_{name}_mean"],
        }
        for name, role in names.items()
        if name in found
    }
    return {"whole": found["whole"], "behind": int(found["read_behind"]), **heads}


def since(
    role: Role, course: tuple[Int[np.ndarray, " step"], Float[np.ndarray, "step head"]], head: int
) -> int | None:
    """Give the measured step from which on the score of a head stays above the role's threshold."""
    steps, values = course
    scores: Sequence[float] = values[:, head].tolist()
    return emergence(steps.tolist(), scores, role.threshold)
