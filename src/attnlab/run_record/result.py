"""How an attempt ended, as stated in its run.json: with a result, with an error, or interrupted.

`RunResult` is the result of a finished run for all of attnlab; its fields are documented only
here, and nothing else writes or reads its run.json.
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
from attnlab.run_record.forms import SCHEMA, Name, Whole, seal, unseal
from attnlab.run_record.history import todays_form


@dataclass(frozen=True, kw_only=True)
class AttemptProvenance:
    """What is stated of an attempt however it ended: what was run, and by which code."""

    status: ClassVar[str]
    """How the attempt ended."""
    attempt: Whole
    """The number of the attempt, from 1."""
    started: str
    """The time of the start, as in 2026-12-01T15:58:53Z."""
    identity: Mapping[str, Any]
    """The config that determines the run's result; in a `RunResult`, in today's form."""
    variant: Name
    dataset: Name
    num_layers: Whole
    seed: Whole
    code: Mapping[str, str]
    """The SHA-256 of the source of each class that the identity names."""
    config_dir: str | None = None
    """The --config-dir with parts of the user's own, if there was one."""
    overrides: tuple[str, ...] = ()
    """The overrides as they were given; empty in records of 0.1."""
    git: Mapping[str, Any] | None
    """The commit of the code, and whether it was dirty; None if unknown."""
    versions: Mapping[str, str | None]
    """The versions of Python, attnlab and the packages that affect the numbers."""
    choices: Mapping[str, Name] = field(default_factory=dict)
    """The choice of each config group by its name; empty in older records."""
    rows: Mapping[str, Whole] = field(default_factory=dict)
    """The number of rows that the attempt wrote into each table; empty in records of 0.1."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of run.json, with its checksum."""
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
class FailedAttempt(AttemptProvenance):
    """An attempt that ended in an error."""

    status: ClassVar[str] = "failed"
    error: AttemptError


@dataclass(frozen=True, kw_only=True)
class InterruptedAttempt(AttemptProvenance):
    """An attempt that was interrupted."""

    status: ClassVar[str] = "interrupted"
    step: Whole
    """The last optimizer step that was done."""


@dataclass(frozen=True, kw_only=True)
class RunResult(AttemptProvenance):
    """What a finished run measured, on which data, and at what cost."""

    status: ClassVar[str] = "finished"
    network_depth: Whole
    """Hidden layers, the output layer, and the embedding layer."""
    seconds: float
    """How long training took, the final evaluation included, over the attempts that led to the last
    step; of a resumed run whose `seconds_before` are None, the last attempt's alone."""
    seconds_before: float | None = None
    """The part of `seconds` up to the checkpoint that the last attempt began from; None in older
    records, and where that checkpoint is one of an older version."""
    device: str | None
    """None if unknown."""
    peak_memory_bytes: Whole | None
    """None if unknown."""
    data_hash: str
    """The SHA-256 over all splits: equal for arms with the same data."""
    steps: Whole
    """Number of optimizer steps that were done."""
    stopped_early: bool
    tokens: Whole
    """Number of training tokens that were read, including padding."""
    budget_tokens: Whole
    """Number of training tokens without an early stop."""
    parameters: Whole
    active_parameters: Whole
    """Number of parameters that one token uses."""
    flops_per_token: float
    """FLOPs of a forward pass per token, at the training length."""
    state_size: Whole | None
    """Numbers kept per sequence of the training length; None for a model that cannot step."""
    headline: Name
    """The metric that a comparison shows first."""
    lower_is_better: tuple[Name, ...] | None = None
    """Names, or patterns of them, of which lower is better; None in a record of 0.1, which does not
    state it (`run_record.direction`)."""
    bounds: Mapping[Name, tuple[float | None, float | None]] | None = None
    """The ranges of metrics, by names or patterns of them, None for no bound; None in a record from
    before records stated them (`run_record.bounds`)."""
    higher_is_better: bool
    """Whether a higher headline is better."""
    metrics: Mapping[Name, float]
    """The metrics of the final evaluation, as SPLIT/METRIC and EVIDENCE/NUMBER."""
    findings: Mapping[Name, Finding] = field(default_factory=dict)
    """The finding of each evidence; in run.json without its scalars, which are in `metrics`."""

    @property
    def attempt_seconds(self) -> float:
        """The duration of the attempt that did the last step."""
        return self.seconds - (self.seconds_before or 0.0)

    @property
    def has_seconds_of_all_steps(self) -> bool:
        """Whether `seconds` are those of all steps, and not of the last attempt of several."""
        was_begun_anew = self.attempt == 1 and "parent" not in self.identity
        return self.seconds_before is not None or was_begun_anew

    @classmethod
    def from_json(cls, value: Any, path: Path) -> "RunResult":
        """Build a result from the content of the run.json at `path`.

        Raises RecordError if it is damaged, lacks a field, is of a run that is not finished, or was
        written by a newer attnlab.
        """
        fields = unseal(value, path, {cls.status: cls})
        return _result_in_todays_form(msgspec.convert(fields, cls), path)

    def to_json(self) -> dict[str, Any]:
        """Return the content of run.json, with its checksum."""
        fields = asdict(self)
        for finding in fields["findings"].values():
            del finding["scalars"]
        return _run_json(self.status, fields)


SUMMARIES = {kind.status: kind for kind in (RunResult, FailedAttempt, InterruptedAttempt)}


def summary_from_json(value: Any, path: Path) -> AttemptProvenance:
    """Build the summary of an attempt, however it ended, from the run.json at `path`.

    Raises RecordError if it is damaged, lacks a field, or was written by a newer attnlab.
    """
    fields = unseal(value, path, SUMMARIES)
    summary = msgspec.convert(fields, SUMMARIES[fields["status"]])
    return _result_in_todays_form(summary, path) if isinstance(summary, RunResult) else summary


def todays_identity(identity: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return an identity that was read from `path` in today's form (`run_record.history`).

    Raises RecordError if it is damaged.
    """
    try:
        return todays_form(identity)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        # A knob has another type than the functions of `REVISED` expect.
        raise RecordError(f"{path} is damaged ({error}); move that run away") from error


def _run_json(status: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    # Write and read once, so that the checksum is that of numbers as read, not of numpy's.
    return seal(json.loads(write.json_bytes({"schema": SCHEMA, "status": status, **fields})))


def _result_in_todays_form(result: RunResult, path: Path) -> RunResult:
    """Return a result with its identity in today's form, and its findings with their scalars."""
    findings = {
        name: replace(finding, scalars=_metrics_of_evidence(name, result.metrics))
        for name, finding in result.findings.items()
    }
    return replace(result, identity=todays_identity(result.identity, path), findings=findings)


def _metrics_of_evidence(evidence: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of an evidence by their keys, without the evidence's name."""
    prefix = f"{evidence}/"
    return {
        name.removeprefix(prefix): value
        for name, value in metrics.items()
        if name.startswith(prefix)
    }
