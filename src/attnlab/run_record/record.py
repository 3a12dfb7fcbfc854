"""Reads a run: its state, its result, its rows. Nothing here writes."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from attnlab.errors import RecordError
from attnlab.printable import one_line
from attnlab.run_record.annotations import Annotations, read_annotations
from attnlab.run_record.forms import AttemptClaim, Identity, ResumeOrigin, Saved, form_fault
from attnlab.run_record.holder import holder_exists, read_beat
from attnlab.run_record.identity import identity_hash
from attnlab.run_record.layers import (
    Layers,
    infer_layers,
    measured_layers,
    read_layers,
    recorded_layers,
)
from attnlab.run_record.read import (
    MOST_TEXT,
    read_json_file,
    read_json_object,
    read_plain_file,
    read_rows,
    read_yaml_object,
    refuse_damaged_rows,
)
from attnlab.run_record.result import (
    AttemptProvenance,
    FailedAttempt,
    RunResult,
    summary_from_json,
    todays_identity,
)

DEATHS = 3
"""Number of deaths of a run's process at one step after which the run is given up."""


@dataclass(frozen=True)
class AttemptState:
    """The state of an attempt, as its directory has it."""

    path: Path
    number: int
    claim: Mapping[str, Any]
    summary: AttemptProvenance | None
    """How it ended; None if it runs or was killed."""

    @property
    def beat(self) -> tuple[int, int]:
        """The number of beats so far, and the step of the last; zeros before the first."""
        return read_beat(self.path)

    @property
    def has_ended(self) -> bool:
        """Whether its summary states that it failed or was interrupted."""
        return self.summary is not None and not isinstance(self.summary, RunResult)

    @property
    def holder_exists(self) -> bool:
        """Whether the process that claimed it exists; True if it is on another host."""
        return holder_exists(self.claim)


class ResumePlan(NamedTuple):
    """What to do with a run, and why: start, resume, retry (it died), skip, held or refuse."""

    action: str
    reason: str


class Record:
    """One run's directory; each property reads its files again."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, one_line(path.name)

    @cached_property
    def real_path(self) -> Path:
        """The directory without links; equal for records of one run."""
        return self.path.resolve()

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The config that determines the run, in today's form (`run_record.history`).

        Raises RecordError if it cannot be read.
        """
        config_path = self.path / "config.yaml"
        identity = todays_identity(read_yaml_object(config_path, self.path, Identity), config_path)
        for first_number in attempt_numbers(self.path)[:1]:
            claim_path = self.path / "attempts" / str(first_number) / "claim.json"
            claim = read_json_object(claim_path, self.path, AttemptClaim)
            stated_hash = claim and claim.get("identity_hash")
            if stated_hash and stated_hash != identity_hash(identity):
                raise RecordError(
                    f"{config_path} is damaged: it is not what attempt {first_number} was "
                    "begun with; move that run away and train it again"
                )
        return identity

    @property
    def result(self) -> RunResult | None:
        """The published run.json; None before a run is finished."""
        return read_json_file(self.path / "run.json", self.path, RunResult.from_json)

    @property
    def attempts(self) -> list[AttemptState]:
        """All attempts, from the first to the last."""
        states = []
        for number in attempt_numbers(self.path):
            path = self.path / "attempts" / str(number)
            claim = read_json_object(path / "claim.json", self.path, AttemptClaim)
            if claim is None:
                raise RecordError(f"{path} has no claim.json; move that attempt away")
            summary = read_json_file(path / "run.json", self.path, summary_from_json)
            states.append(AttemptState(path, number, claim, summary))
        return states

    @property
    def state(self) -> str:
        """One of new, finished, running, interrupted, killed and failed."""
        if self.result is not None:
            return "finished"
        attempts = self.attempts
        if not attempts:
            return "new"
        last_attempt = attempts[-1]
        if last_attempt.summary is not None and last_attempt.has_ended:
            return last_attempt.summary.status
        return "running" if last_attempt.holder_exists else "killed"

    def rows(self, table: str) -> pa.Table:
        """Load all rows of a table in order, without those that a resumed attempt wrote again.

        Raises RecordError if a file is damaged, or lacks rows that were written.
        """
        attempt_tables = [
            attempt_table
            for linked_attempt in self._attempt_chain()
            if (attempt_table := _read_attempt_rows(linked_attempt, table)) is not None
        ]
        if not attempt_tables:
            return pa.table({"step": pa.array([], pa.int64())})
        try:
            # An attempt by other code may have other columns; a column that it lacks is null.
            return pa.concat_tables(attempt_tables, promote_options="default")
        except pa.ArrowException as error:
            raise RecordError(f"{self.path}: the attempts' {table} do not fit ({error})") from error

    @property
    def layers(self) -> Layers:
        """The layers of the model, from the newest attempt that states them.

        Raises RecordError if its file is damaged.
        """
        stated_layers = [
            read_layers(linked_attempt.path) for linked_attempt in self._attempt_chain()
        ]
        newest_layers = next(
            (layers for layers in reversed(stated_layers) if layers is not None), None
        )
        return self._infer_layers() if newest_layers is None else newest_layers

    def _infer_layers(self) -> Layers:
        """Infer the layers of a record of 0.1, which states none, from its rows."""
        num_heads_by_path, crossing_paths = measured_layers(self.rows("heads"), self.path)
        num_heads_by_source, crossing_sources = recorded_layers(self.rows("patterns"), self.path)
        with refuse_damaged_rows(self.path, "patterns"):
            stated_num_layers = (self.identity.get("model") or {}).get("num_layers")
        num_layers = stated_num_layers if type(stated_num_layers) is int else 0
        return infer_layers(
            num_heads_by_path, num_heads_by_source, num_layers, crossing_paths | crossing_sources
        )

    @property
    def annotations(self) -> Annotations:
        """Its tags, notes and sweeps. Raises RecordError if their file cannot be read."""
        return read_annotations(self.path)

    def check_rows(self) -> None:
        """Raise RecordError if any table of the run is damaged."""
        for table in dict.fromkeys(path.stem for path in self.table_files()):
            self.rows(table)

    def table_files(self) -> list[Path]:
        """Return the files of all tables, in the order of the attempts that wrote them."""
        return [
            path
            for linked_attempt in self._attempt_chain()
            for path in sorted(linked_attempt.path.glob("*.arrow"))
        ]

    def _attempt_chain(self) -> list["_LinkedAttempt"]:
        """Return the attempts that wrote the run's rows, oldest first, linked by `resumed_from`."""
        attempts, result = self.attempts, self.result
        if not attempts:
            return []
        number = result.attempt if result else attempts[-1].number
        summary = result or attempts[-1].summary
        path, last_step = self.path / "attempts" / str(number), None
        chain: list[_LinkedAttempt] = []
        while True:
            if path in [linked_attempt.path for linked_attempt in chain]:
                raise RecordError(f"{path} is damaged: it says that it was resumed from itself")
            run_dir = path.parents[1]
            claim = read_json_object(path / "claim.json", run_dir, AttemptClaim)
            if claim is None:
                raise RecordError(f"{path} has no claim.json, but a later attempt resumed from it")
            if last_step is not None:
                num_rows_by_table = _num_rows_at_step(path, last_step)
            else:
                num_rows_by_table = summary.rows if summary else {}
            is_sealed = claim["schema"] > 1
            chain.append(_LinkedAttempt(path, last_step, is_sealed, num_rows_by_table))
            origin = claim["resumed_from"]
            if origin is None:
                return chain[::-1]
            last_step = origin["step"]
            if "run" in origin:
                run_dir = run_dir.parent / origin["run"]
            path = run_dir / "attempts" / str(origin["attempt"])


class Snapshot(Record):
    """A run's directory whose tables are read once, at first use."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._tables: dict[str, pa.Table] = {}
        self._layers: Layers | None = None

    def rows(self, table: str) -> pa.Table:
        if table not in self._tables:
            self._tables[table] = super().rows(table)
        return self._tables[table]

    @property
    def layers(self) -> Layers:
        if self._layers is None:
            self._layers = super().layers
        return self._layers


class _LinkedAttempt(NamedTuple):
    """An attempt that a run's chain links, so that its rows are a part of the run's rows."""

    path: Path
    last_step: int | None
    """The last step whose rows count; None for all."""
    is_sealed: bool
    num_rows_by_table: Mapping[str, int]
    """The number of rows of each table up to that step, where it is stated."""


def _read_attempt_rows(linked_attempt: _LinkedAttempt, table: str) -> pa.Table | None:
    """Load the rows of a table that count of one attempt; None for no rows.

    Raises RecordError if the file is damaged, or lacks rows that were written.
    """
    path, run_dir = linked_attempt.path, linked_attempt.path.parents[1]
    rows = read_rows(path / f"{table}.arrow", run_dir, linked_attempt.is_sealed)
    if rows is not None and linked_attempt.last_step is not None:
        rows = rows.filter(pc.field("step") <= linked_attempt.last_step)
    num_rows = 0 if rows is None else rows.num_rows
    stated_num_rows = linked_attempt.num_rows_by_table.get(table)
    if stated_num_rows is not None and num_rows < stated_num_rows:
        raise RecordError(
            f"{path / table}.arrow is damaged: it has {num_rows} of {stated_num_rows} rows"
        )
    return rows if num_rows else None


def attempt_dir_and_origin(record: Record, result: RunResult) -> tuple[Path, ResumeOrigin | None]:
    """Return the directory of the attempt that ended with a result, and what it started from.

    Raises RecordError if the attempt does not say so.
    """
    path = record.path / "attempts" / str(result.attempt)
    claim = read_json_object(path / "claim.json", record.path, AttemptClaim)
    if claim is None:
        raise RecordError(f"{path} has no claim.json, but the result is that of this attempt")
    return path, claim["resumed_from"]


def _num_rows_at_step(attempt_dir: Path, step: int) -> Mapping[str, int]:
    """Return the number of rows of each table that an attempt had written at a saved step."""
    entries = read_manifest(attempt_dir, [])
    return next((entry.get("rows", {}) for entry in entries if entry["step"] == step), {})


def read_manifest(attempt_dir: Path, damage_reports: list[str]) -> list[Saved]:
    """Load an attempt's list of checkpoints.

    Adds a sentence for each damaged line to `damage_reports`.
    """
    path = attempt_dir / "checkpoints" / "manifest.jsonl"
    try:
        content = read_plain_file(path, attempt_dir.parents[1], MOST_TEXT)
    except FileNotFoundError:
        return []
    except RecordError as error:
        damage_reports.append(f"{error}; its checkpoints are passed over")
        return []
    entries: list[Saved] = []
    *ended_lines, last_line = content.split(b"\n")
    for line_number, line in enumerate([*ended_lines, last_line], start=1):
        entry: Any = None
        with suppress(ValueError, RecursionError):
            if line_number <= len(ended_lines):
                entry = json.loads(line)
            else:
                # An entry without its line feed still counts.
                entry, _ = json.JSONDecoder().raw_decode(line.decode(errors="replace"))
        if not form_fault(entry, Saved) and entry["file"] == checkpoint_name(entry["step"]):
            entries.append(entry)
        elif line_number <= len(ended_lines):
            # A bad last line is the torn end of a killed write, which is no damage.
            damage_reports.append(
                f"{path} is damaged in line {line_number}; its checkpoint is passed over"
            )
    return entries


def checkpoint_name(step: int) -> str:
    """Return the file name of a checkpoint."""
    return f"step-{step:09d}.ckpt"


def plan_resume(record: Record, holder_is_gone: bool = False) -> ResumePlan:
    """Return what to do with this run when its command is given again.

    `holder_is_gone` states that the process that holds it gives no sign of life.
    """
    state = record.state
    if state == "finished":
        return ResumePlan("skip", "finished before")
    if state == "new":
        return ResumePlan("start", "nothing has been tried yet")
    attempts = record.attempts
    if state == "running" and not holder_is_gone:
        claim = attempts[-1].claim
        return ResumePlan("held", f"process {claim['pid']} on {claim['host']} holds it")
    if state in ("running", "killed"):
        return _plan_after_death(attempts)
    if state != "failed":
        return ResumePlan("resume", f"it was {state}")
    summaries = [attempt.summary for attempt in attempts]
    errors = [summary.error for summary in summaries if isinstance(summary, FailedAttempt)]
    last_error = errors[-1]
    description = f"{last_error.type} at step {last_error.step}: {last_error.message}"
    if last_error.cause == "diverged":
        return ResumePlan(
            "refuse", f"it failed before ({description}), and would again; rerun=true repeats"
        )
    if last_error.cause == "error" and errors[-2:] == [last_error, last_error]:
        return ResumePlan(
            "refuse", f"it failed twice in the same way ({description}); rerun=true repeats"
        )
    return ResumePlan("resume", f"it failed ({description})")


def _plan_after_death(attempts: Sequence[AttemptState]) -> ResumePlan:
    """Return a plan for a run that was killed: retry, or refuse after DEATHS at the same step."""
    step = attempts[-1].beat[1]
    deaths = 0
    for attempt in reversed(attempts):
        if attempt.has_ended or attempt.beat[1] != step:
            break
        deaths += 1
        if read_manifest(attempt.path, []):
            break
    if deaths >= DEATHS:
        return ResumePlan(
            "refuse",
            f"its process died {deaths} times after step {step} without a new checkpoint, as where "
            "memory runs out; mend that, and retry=true goes on (rerun=true begins anew)",
        )
    return ResumePlan("retry", f"its process died after step {step}")


def wait_for_life(
    record: Record,
    lease_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Watch the last attempt for `lease_seconds`, and return whether a process trains the run.

    A process that exists but makes no progress (paused, hung, on a host that is down) counts as
    gone; a new attempt counts as a sign of life.
    """
    watched_attempt = record.attempts[-1]
    counter, deadline = watched_attempt.beat[0], clock() + lease_seconds
    while clock() < deadline:
        sleep(min(0.2, lease_seconds))
        if record.state != "running":
            return False
        last_attempt = record.attempts[-1]
        if last_attempt.number != watched_attempt.number or last_attempt.beat[0] != counter:
            return True
    return False


def find_runs(runs_dir: Path, all_generations: bool = False) -> list[Record]:
    """List the runs of a directory by name.

    For a run that was repeated, only the newest finished generation is listed (if none is finished,
    the newest), unless `all_generations`. Raises RecordError if there is no such directory.
    """
    if not runs_dir.is_dir():
        raise RecordError(f"there is no directory {runs_dir}; `attnlab train` makes runs")
    records = [
        Record(path)
        for path in sorted(runs_dir.iterdir())
        if not path.name.startswith(".") and _is_run(path)
    ]
    if all_generations:
        return records
    generations_by_name: dict[str, list[tuple[int, Record]]] = {}
    for record in records:
        first_name, generation = _name_and_generation(record.name)
        generations_by_name.setdefault(first_name, []).append((generation, record))
    preferred_records = [
        _preferred_generation(run_generations) for run_generations in generations_by_name.values()
    ]
    return sorted(preferred_records, key=lambda record: record.name)


def _preferred_generation(run_generations: Sequence[tuple[int, Record]]) -> Record:
    """Return the newest finished generation of a run; if none is finished, the newest."""
    by_generation = sorted(run_generations, key=lambda numbered_record: numbered_record[0])
    records = [record for _, record in by_generation]
    if len(records) == 1:
        return records[0]
    return next((record for record in reversed(records) if _is_finished(record)), records[-1])


def is_directory(path: str | Path) -> bool:
    """Return whether a directory is there; False for a text that no directory can be called."""
    # Path.is_dir raises OSError for a name that is too long.
    return os.path.isdir(path)  # noqa: PTH112


def find_named_run(run: str, runs_dir: Path) -> Record:
    """Return the run with a directory, or with a unique prefix of its name or of its hash."""
    if is_directory(run) and Path(run, "config.yaml").exists():
        return Record(Path(run).resolve())
    if not runs_dir.is_dir():
        raise RecordError(
            f"there is no run {run!r}: it is no run's directory, and there is no directory "
            f"{runs_dir} to look for its name; `attnlab train` makes runs"
        )
    records = find_runs(runs_dir, all_generations=True)
    matching_records = records_with_prefix(records, run)
    if len(matching_records) == 1:
        return matching_records[0]
    if matching_records:
        raise RecordError(
            f"{run!r} may be {len(matching_records)} runs "
            f"({_abbreviate_names(matching_records)}); say more of the name"
        )
    if is_directory(run):
        raise RecordError(f"{run} is no run: it has no config.yaml; name a run's directory")
    raise RecordError(
        f"there is no run {run!r} in {runs_dir}, which holds {_abbreviate_names(records)}"
    )


def records_with_prefix(records: Sequence[Record], prefix: str) -> list[Record]:
    """Return the run of that name, else those whose name or hash begins with it.

    Whole words of names come first: `...-s1` is not the start of `...-s10-...`, where both are.
    """
    matching_records = [
        record
        for record in records
        if record.name.startswith(prefix) or hash_in_name(record.name).startswith(prefix)
    ]
    return (
        [record for record in matching_records if record.name == prefix]
        or [record for record in matching_records if record.name.startswith(f"{prefix}-")]
        or matching_records
    )


def name_on_disk(runs_dir: Path, name: str, identity_hash: str) -> str:
    """Return the name of the run with this hash: that on disk, else `name` with the hash.

    The readable part of the name on disk may be that of an older version.
    """
    run_dirs = sorted(runs_dir.glob(f"*-{identity_hash}")) if runs_dir.is_dir() else []
    return run_dirs[0].name if run_dirs else f"{name}-{identity_hash}"


def hash_in_name(name: str) -> str:
    """Return the hash that a run's name ends with."""
    return _name_and_generation(name)[0].rpartition("-")[2]


def generation_dir(runs_dir: Path, name: str, rerun: bool) -> Path:
    """Return the directory of the newest generation of a run: NAME, then NAME.2, NAME.3, ...

    With `rerun`, return a new generation if the newest is finished or given up; one that was only
    interrupted is continued.
    """
    newest_dir, generation = runs_dir / name, 1
    next_dir = runs_dir / f"{name}.2"
    while next_dir.exists():
        newest_dir, generation = next_dir, generation + 1
        next_dir = runs_dir / f"{name}.{generation + 1}"
    if not (rerun and newest_dir.exists()):
        return newest_dir
    is_over = plan_resume(Record(newest_dir)).action in ("skip", "refuse")
    return next_dir if is_over else newest_dir


def attempt_numbers(run_dir: Path) -> list[int]:
    """List the numbers of a run's attempts in order; an unfinished directory has no number."""
    try:
        names = [path.name for path in (run_dir / "attempts").iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RecordError(f"{run_dir} cannot be read ({error.strerror})") from error
    return sorted(int(name) for name in names if name.isdecimal())


def _is_run(path: Path) -> bool:
    try:
        return (path / "config.yaml").exists()
    except OSError:
        # A directory that cannot be read may be a run, which is then reported as damaged.
        return True


def _is_finished(record: Record) -> bool:
    try:
        return record.result is not None
    except RecordError:
        return False


def _abbreviate_names(records: list[Record]) -> str:
    """Return the names of the first five records, for a message."""
    names = [record.name for record in records[:5]] or ["no runs"]
    return ", ".join(names + ["..."] * (len(records) > 5))


def _name_and_generation(name: str) -> tuple[str, int]:
    """Return a run's name without its generation, and the generation, from 1."""
    first_name, _, suffix = name.rpartition(".")
    return (first_name, int(suffix)) if first_name and suffix.isdecimal() else (name, 1)
