"""How an attempt ended, as its run.json says it: with a result, with an error, or when told to.

`RunResult` is what all of attnlab knows of a finished run; its fields are documented here alone,
and nothing else writes or reads the run.json of one.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from attnlab.errors import RecordError
from attnlab.run_record import write
from attnlab.run_record.finding import Finding
from attnlab.run_record.forms import SCHEMA, Name, Whole, checked, sealed
from attnlab.run_record.history import todays_form


@dataclass(frozen=True, kw_only=True)
class AttemptSummary:
    """What is known of an attempt however it ended: what was run, and by which code."""

    status: ClassVar[str]
    """How it ended."""
    attempt: Whole
    """Which attempt of the run it was, from 1."""
    started: str
    """When, as in 2026-12-01T15:58:53Z."""
    identity: Mapping[str, Any]
    """The config that decides the run's result; of a `RunResult`, in today's form."""
    variant: Name
    dataset: Name
    num_layers: Whole
    seed: Whole
    code: Mapping[str, str]
    """The SHA-256 of the source of each class that the identity names."""
    config_dir: str | None = None
    """The --config-dir with parts of the user's own, if there was one."""
    git: Mapping[str, Any] | None
    """The commit of the code, and whether it was dirty; None where it is not known."""
    versions: Mapping[str, str | None]
    """Of Python, attnlab and the packages that decide numbers."""
    rows: Mapping[str, Whole] = field(default_factory=dict)
    """How many rows the attempt wrote into each table; records of 0.1 do not say."""

    def to_json(self) -> dict[str, Any]:
        """Return what run.json holds, with its sum."""
        return _run_json(self.status, asdict(self))


@dataclass(frozen=True)
class AttemptError:
    """Why an attempt failed."""

    type: str
    message: str
    step: Whole
    cause: str
    """One of diverged, logger, memory, disk and error."""


@dataclass(frozen=True, kw_only=True)
class FailedAttempt(AttemptSummary):
    """An attempt that ended in an error."""

    status: ClassVar[str] = "failed"
    error: AttemptError


@dataclass(frozen=True, kw_only=True)
class InterruptedAttempt(AttemptSummary):
    """An attempt that was told to stop."""

    status: ClassVar[str] = "interrupted"
    step: Whole
    """The last one that was done."""


@dataclass(frozen=True, kw_only=True)
class RunResult(AttemptSummary):
    """What a finished run measured, from what, and at what cost."""

    status: ClassVar[str] = "finished"
    network_depth: Whole
    """Hidden layers, the output layer, and the embedding layer."""
    seconds: float
    """How long the attempt took that came to the last step."""
    device: str | None
    """None where it is not known."""
    peak_memory_bytes: Whole | None
    """None where it is not known."""
    data_hash: str
    """The SHA-256 over all splits: equal for arms that saw the same data."""
    steps: Whole
    """Optimizer steps that were done."""
    stopped_early: bool
    tokens: Whole
    """Those that the training read, padding included."""
    budget_tokens: Whole
    """Those that it might have read: more, where it was stopped early."""
    parameters: Whole
    active_parameters: Whole
    """Those that one token uses."""
    flops_per_token: float
    """Forward, at the training length."""
    state_size: Whole | None
    """Numbers kept per sequence of the training length; None of a model that cannot step."""
    headline: Name
    """The metric that a comparison shows first."""
    lower_is_better: tuple[Name, ...] | None = None
    """Names, or patterns of them, of which less is better; None in a record of 0.1, which does not
    say (`run_record.direction`)."""
    higher_is_better: bool
    """Whether more of the headline is better."""
    metrics: Mapping[Name, float]
    """Those of the final evaluation, as SPLIT/METRIC and EVIDENCE/NUMBER."""
    findings: Mapping[Name, Finding] = field(default_factory=dict)
    """What each evidence found. In run.json they lack their scalars, which stand in `metrics`."""

    @classmethod
    def from_json(cls, value: Any, path: Path) -> "RunResult":
        """Build a result from what the run.json at `path` holds.

        Raises RecordError where it is damaged, lacks a field, is of a run that is not finished, or
        was written by a newer attnlab.
        """
        return _as_read(msgspec.convert(checked(value, path, {cls.status: cls}), cls), path)

    def to_json(self) -> dict[str, Any]:
        """Return what run.json holds, with its sum."""
        fields = asdict(self)
        for finding in fields["findings"].values():
            del finding["scalars"]
        return _run_json(self.status, fields)


SUMMARIES = {kind.status: kind for kind in (RunResult, FailedAttempt, InterruptedAttempt)}


def summary_from_json(value: Any, path: Path) -> AttemptSummary:
    """Build the summary of an attempt, however it ended, from what the run.json at `path` holds.

    Raises RecordError where it is damaged, lacks a field, or was written by a newer attnlab.
    """
    fields = checked(value, path, SUMMARIES)
    summary = msgspec.convert(fields, SUMMARIES[fields["status"]])
    return _as_read(summary, path) if isinstance(summary, RunResult) else summary


def todays_identity(identity: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return an identity that was read at `path` in today's form (`run_record.history`).

    Raises RecordError where it is damaged.
    """
    try:
        return todays_form(identity)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        # A knob has another type than the code that asks it expects.
        raise RecordError(f"{path} is damaged ({error}); move that run away") from error


def _run_json(status: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    # Numbers that only pass for Python's, as numpy's do, are those that will be read.
    return sealed(json.loads(write.to_json({"schema": SCHEMA, "status": status, **fields})))


def _as_read(result: RunResult, path: Path) -> RunResult:
    """Return a result with its identity in today's form, and its findings with their scalars."""
    findings = {
        name: replace(finding, scalars=_metrics_of(name, result.metrics))
        for name, finding in result.findings.items()
    }
    return replace(result, identity=todays_identity(result.identity, path), findings=findings)


def _metrics_of(evidence: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of an evidence by the keys that it gave them."""
    named = f"{evidence}/"
    return {n.removeprefix(named): value for n, value in metrics.items() if n.startswith(named)}
