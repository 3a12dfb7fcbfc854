"""What the files of a record hold, and how a file says that it is whole.

Every JSON object carries the SHA-256 of the rest of it, and every batch of rows (`batches.py`) that
of its content. So a bit that flips on a disk is noticed, wherever it lies, and never shown as
a result.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec

from attnlab.errors import RecordError
from attnlab.printable import OBEYED
from attnlab.run_record.identity import canonical, plain

SCHEMA = 2
"""The version of what a record's files hold; readers refuse a newer one. Since 2 they are sealed.
"""
SEAL = "sha256"
"""The key of the sum, in a JSON object and in the metadata of a batch of rows."""
DEEPEST = 40
"""How deep the values of a record nest at most."""


_ONE_LINE = rf"\A[^\n\t{OBEYED.pattern[1:-1]}]*\Z"
Name = Annotated[str, msgspec.Meta(pattern=_ONE_LINE)]
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

    `form` may be a mapping, of which the value's status chooses one.
    """
    if _depth(value) > DEEPEST:
        return f"its values nest deeper than {DEEPEST}"
    try:
        json.dumps(plain(value, "$"), ensure_ascii=False).encode()
        if isinstance(form, Mapping):
            status = value.get("status") if isinstance(value, dict) else None
            if not isinstance(status, str) or status not in form:
                return f"its status is {status!r}, none of {', '.join(form)}"
            form = form[status]
        msgspec.convert(value, form)
    except (TypeError, ValueError, msgspec.ValidationError) as error:
        matching = f"`str` matching regex {_ONE_LINE!r}"
        return str(error).replace(matching, "`str` in one line, without control characters")
    return None


def checked(value: Any, path: Path, form: Any) -> dict[str, Any]:
    """Return the object that was read at `path`, without its sum, if it is sound and of a form.

    `form` is as for `fault`. Raises RecordError where it is damaged, has another form, or was
    written by a newer attnlab.
    """
    schema = value.get("schema") if isinstance(value, dict) else None
    if type(schema) is not int or schema < 1:
        raise RecordError(f"{path} is no record of attnlab; move it away")
    if schema > SCHEMA:
        raise RecordError(
            f"{path} was written by a newer attnlab (schema {schema}, this one reads "
            f"{SCHEMA}); upgrade attnlab"
        )
    if wrong := fault(value, form):
        raise RecordError(f"{path} is damaged ({wrong}); move that run away")
    # Before schema 2 nothing was sealed.
    if schema > 1 and not is_whole(value):
        raise RecordError(
            f"{path} is damaged (it does not have the SHA-256 that it states); move that run away"
        )
    return {key: content for key, content in value.items() if key != SEAL}


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
