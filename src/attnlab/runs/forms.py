"""What the files of a record hold, and how a file says that it is whole.

Every JSON object carries the SHA-256 of the rest of it, and every batch of rows (`runs.batches`)
that of its content. So a bit that flips on a disk is noticed, wherever it lies, and never shown as
a result.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec

from attnlab.runs.identity import canonical

SCHEMA = 2
"""The version of what a record's files hold; readers refuse a newer one. Since 2 they are sealed.
"""
SEAL = "sha256"
"""The key of the sum, in a JSON object and in the metadata of a batch of rows."""
DEEPEST = 40
"""How deep the values of a record nest at most."""


Name = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*\Z")]
"""What stands in a line among others: nothing in it moves the cursor or turns the writing."""


class Origin(TypedDict):
    """The checkpoint that an attempt began from."""

    attempt: int
    step: int
    sha256: str
    run: NotRequired[str]
    """The run beside this one that it is of, where `extend=true` went on from one."""


class Claim(TypedDict):
    """claim.json: who began an attempt, and from where."""

    host: str
    pid: int
    process_start: float
    at: str
    resumed_from: Origin | None
    identity_hash: NotRequired[str]


class Error(TypedDict):
    """Why an attempt failed."""

    type: str
    message: str
    step: int
    cause: str


class Summary(TypedDict, total=False):
    """run.json: how an attempt ended. Which fields there are depends on that."""

    status: str
    attempt: int
    started: str
    identity: dict[str, Any]
    variant: Name
    dataset: Name
    num_layers: int
    network_depth: int
    seed: int
    code: dict[str, str]
    config_dir: str | None
    git: dict[str, Any] | None
    versions: dict[str, str]
    data_hash: str
    steps: int
    stopped_early: bool
    tokens: int
    budget_tokens: int
    parameters: int
    active_parameters: int
    flops_per_token: float
    state_size: int | None
    device: str
    peak_memory_bytes: int | None
    headline: Name
    lower_is_better: list[Name]
    higher_is_better: bool
    metrics: dict[Name, float]
    seconds: float
    rows: dict[str, int]
    """How many rows the attempt wrote into each table."""
    step: int
    error: Error


COMPARED = (
    *("identity", "variant", "dataset", "num_layers", "network_depth", "seed", "data_hash"),
    *("parameters", "active_parameters", "flops_per_token", "tokens", "budget_tokens", "seconds"),
    *("metrics", "headline", "higher_is_better"),
)
"""The fields of a finished run that a comparison needs."""


class Saved(TypedDict):
    """A line of checkpoints/manifest.jsonl."""

    step: int
    file: str
    size: int
    sha256: str
    rows: NotRequired[dict[str, int]]
    """How many rows of each table come before it."""


class Identity(TypedDict, total=False):
    """config.yaml: what decides a run's result. A section may be left out."""

    variant: str
    seed: int
    batch_size: int
    parent: str
    model: dict[str, Any]
    init: dict[str, Any]
    objective: dict[str, Any]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    trainer: dict[str, Any]
    dataset: dict[str, Any]
    callbacks: dict[str, Any] | None
    metric: dict[str, Any] | None
    evidence: dict[str, Any] | None


def fault(value: Any, form: Any) -> str | None:
    """Say where a value is not of a form, or nests too deep; None where it fits."""
    if _depth(value) > DEEPEST:
        return f"its values nest deeper than {DEEPEST}"
    try:
        msgspec.convert(value, form)
    except (msgspec.ValidationError, RecursionError) as error:
        return str(error)
    return None


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with the SHA-256 of what it holds."""
    return {**value, SEAL: _sum(value)}


def is_whole(value: Mapping[str, Any]) -> bool:
    """Whether an object is what it was when it was sealed."""
    rest = {key: content for key, content in value.items() if key != SEAL}
    try:
        return value.get(SEAL) == _sum(rest)
    except ValueError:
        # It holds a number that is none, which is never sealed.
        return False


def _sum(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level and deepest <= DEEPEST:
        children = [list(v.values()) if isinstance(v, dict) else v for v in level]
        level = [child for v in children if isinstance(v, list) for child in v]
        deepest += 1
    return deepest
