"""What the files of a record hold, and how a file says that it is whole.

Every JSON object carries the SHA-256 of the rest of it, and every batch of rows (`runs.batches`)
that of its content. So a bit that flips on a disk is noticed, wherever it lies, and never shown as
a result.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec

from attnlab.printable import OBEYED
from attnlab.runs.identity import canonical, plain

SCHEMA = 2
"""The version of what a record's files hold; readers refuse a newer one. Since 2 they are sealed.
"""
SEAL = "sha256"
"""The key of the sum, in a JSON object and in the metadata of a batch of rows."""
DEEPEST = 40
"""How deep the values of a record nest at most."""


Name = Annotated[str, msgspec.Meta(pattern=rf"\A[^\n\t{OBEYED.pattern[1:-1]}]*\Z")]
"""A text that stands in a line among others: a terminal obeys nothing in it."""
Whole = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""A number of something."""


class Origin(TypedDict):
    """The checkpoint that an attempt began from."""

    attempt: Whole
    step: Whole
    sha256: str
    run: NotRequired[Annotated[str, msgspec.Meta(pattern=r"\A(?!\.{0,2}\Z)[^/\x00]+\Z")]]
    """The run beside this one that it is of, where `extend=true` went on from one."""


class Claim(TypedDict):
    """claim.json: who began an attempt, and from where."""

    schema: int
    host: str
    pid: Whole
    process_start: float
    at: str
    resumed_from: Origin | None
    identity_hash: NotRequired[str]


class Error(TypedDict):
    """Why an attempt failed."""

    type: str
    message: str
    step: Whole
    cause: str


class _Ended(TypedDict):
    schema: int
    attempt: Whole


class _Told(TypedDict, total=False):
    """What may be known of an attempt, however it ended."""

    started: str
    identity: dict[str, Any]
    variant: Name
    dataset: Name
    num_layers: Whole
    network_depth: Whole
    seed: Whole
    code: dict[str, str]
    config_dir: str | None
    git: dict[str, Any] | None
    versions: dict[str, str | None]
    data_hash: str
    steps: Whole
    stopped_early: bool
    tokens: Whole
    budget_tokens: Whole
    parameters: Whole
    active_parameters: Whole
    flops_per_token: float
    state_size: Whole | None
    device: str | None
    peak_memory_bytes: Whole | None
    headline: Name
    lower_is_better: list[Name]
    higher_is_better: bool
    metrics: dict[Name, float]
    seconds: float
    rows: dict[str, Whole]
    """How many rows the attempt wrote into each table."""


class Finished(_Ended, _Told):
    """run.json of an attempt that came to its last step."""

    status: Literal["finished"]


class Interrupted(_Ended, _Told):
    """run.json of an attempt that was told to stop."""

    status: Literal["interrupted"]


class Failed(_Ended, _Told):
    """run.json of an attempt that ended in an error."""

    status: Literal["failed"]
    error: Error


SUMMARIES: dict[Any, Any] = {
    "finished": Finished,
    "interrupted": Interrupted,
    "failed": Failed,
}
"""What run.json holds, by its status."""
COMPARED = (
    *("identity", "variant", "dataset", "num_layers", "network_depth", "seed", "data_hash"),
    *("parameters", "active_parameters", "flops_per_token", "tokens", "budget_tokens", "seconds"),
    *("metrics", "headline", "higher_is_better"),
)
"""The fields of a finished run that a comparison needs."""


class Saved(TypedDict):
    """A line of checkpoints/manifest.jsonl."""

    step: Whole
    file: str
    size: Whole
    sha256: str
    rows: NotRequired[dict[str, Whole]]
    """How many rows of each table come before it."""


class Identity(TypedDict, total=False):
    """config.yaml: what decides a run's result. A section may be left out."""

    variant: str
    seed: Whole
    batch_size: Whole
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
    """Say where a value is not of a form, nests too deep or is no plain text; None where it fits.

    `form` may be `SUMMARIES`, of which the status chooses one.
    """
    if _depth(value) > DEEPEST:
        return f"its values nest deeper than {DEEPEST}"
    try:
        json.dumps(plain(value, "$"), ensure_ascii=False).encode()
        if form is SUMMARIES:
            status = value.get("status") if isinstance(value, dict) else None
            form = SUMMARIES.get(status if isinstance(status, str) else None)
            if form is None:
                return f"its status is {status!r}, none of {', '.join(SUMMARIES)}"
        msgspec.convert(value, form)
    except (TypeError, ValueError, msgspec.ValidationError) as error:
        return str(error)
    return None


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with the SHA-256 of what it holds."""
    return {**value, SEAL: _sum(value)}


def is_whole(value: Mapping[str, Any]) -> bool:
    """Whether an object is what it was when it was sealed."""
    rest = {key: content for key, content in value.items() if key != SEAL}
    return value.get(SEAL) == _sum(rest)


def _sum(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level and deepest <= DEEPEST:
        children = [list(v.values()) if isinstance(v, dict) else v for v in level]
        level = [child for v in children if isinstance(v, list) for child in v]
        deepest += 1
    return deepest
