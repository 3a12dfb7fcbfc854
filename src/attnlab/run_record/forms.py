"""The forms of a record's files, and the checksums that show that a file is undamaged.

Every JSON object contains the SHA-256 of its other fields, and every batch of rows (`batches.py`)
that of its content. So any flipped bit on a disk is detected, and never shown as a result.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec

from attnlab.errors import RecordError
from attnlab.printable import OBEYED
from attnlab.run_record.identity import canonical_json, plain_config

SCHEMA = 2
"""The version of the forms; readers refuse a newer one. Since version 2, files have checksums."""
SEAL = "sha256"
"""The key of the checksum, in a JSON object and in the metadata of a batch of rows."""
DEEPEST = 40
"""The greatest depth to which the values of a record may nest."""


_ONE_LINE = rf"\A[^\n\t{OBEYED.pattern[1:-1]}]*\Z"
Name = Annotated[str, msgspec.Meta(pattern=_ONE_LINE)]
"""A text of one line, without characters that a terminal obeys."""
Whole = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""A count."""


class ResumeOrigin(TypedDict):
    """The checkpoint that an attempt started from."""

    attempt: Whole
    step: Whole
    sha256: str
    run: NotRequired[Annotated[str, msgspec.Meta(pattern=r"\A(?!\.{0,2}\Z)[^/\x00]+\Z")]]
    """The name of its run, in the same directory, if `extend=true` continued another run."""


class AttemptClaim(TypedDict):
    """claim.json: which process began an attempt, and from which checkpoint."""

    schema: int
    host: str
    pid: Whole
    process_start: float
    at: str
    resumed_from: ResumeOrigin | None
    identity_hash: NotRequired[str]


class LaunchClaim(TypedDict):
    """claim.json of a launch: which process trains cells of a sweep, and how."""

    schema: int
    host: Name
    pid: Whole
    process_start: float
    at: Name
    launcher: Name
    jobs: Whole


class Saved(TypedDict):
    """A line of checkpoints/manifest.jsonl."""

    step: Whole
    file: str
    size: Whole
    sha256: str
    rows: NotRequired[dict[str, Whole]]
    """The number of rows of each table before it."""


class Mirror(TypedDict):
    """A line of mirrors.jsonl: a complete copy of the run in another tool."""

    tool: Name
    place: Name
    """Its directory, from the run's on or absolute; "online" for an upload."""
    project: Name | None
    run_id: Name
    at: Name


class Identity(TypedDict, total=False):
    """config.yaml: what determines a run's result. A section may be left out."""

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


def form_fault(value: Any, form: Any) -> str | None:
    """Return why a value does not fit a form, nests too deep or is no plain text; None if it fits.

    `form` may be a mapping from the value's status to its form.
    """
    if _nesting_depth(value) > DEEPEST:
        return f"its values nest deeper than {DEEPEST}"
    try:
        json.dumps(plain_config(value, "$"), ensure_ascii=False).encode()
        if isinstance(form, Mapping):
            status = value.get("status") if isinstance(value, dict) else None
            if not isinstance(status, str) or status not in form:
                return f"its status is {status!r}, none of {', '.join(form)}"
            form = form[status]
        msgspec.convert(value, form)
    except (TypeError, ValueError, msgspec.ValidationError) as error:
        pattern_text = f"`str` matching regex {_ONE_LINE!r}"
        return str(error).replace(pattern_text, "`str` in one line, without control characters")
    return None


def unseal(value: Any, path: Path, form: Any) -> dict[str, Any]:
    """Return the object read from `path` without its checksum, if it is undamaged and fits `form`.

    `form` is as for `form_fault`. Raises RecordError if it is damaged, has another form, or was
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
    if fault_text := form_fault(value, form):
        raise RecordError(f"{path} is damaged ({fault_text}); move that run away")
    # Before schema 2 there were no checksums.
    if schema > 1 and not has_stated_checksum(value):
        raise RecordError(
            f"{path} is damaged (it does not have the SHA-256 that it states); move that run away"
        )
    return _without_seal(value)


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with the SHA-256 of its content as another field."""
    return {**value, SEAL: _checksum(value)}


def has_stated_checksum(value: Mapping[str, Any]) -> bool:
    """Return whether an object still has the content that its checksum was computed from."""
    return value.get(SEAL) == _checksum(_without_seal(value))


def _without_seal(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: child for key, child in value.items() if key != SEAL}


def _checksum(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _nesting_depth(value: Any) -> int:
    """Return how deep a value nests, counted up to one more than DEEPEST."""
    depth, level = 0, [value]
    while level and depth <= DEEPEST:
        children = [list(node.values()) if isinstance(node, dict) else node for node in level]
        level = [child for group in children if isinstance(group, list) for child in group]
        depth += 1
    return depth
