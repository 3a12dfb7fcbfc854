"""Read a run: its state, its result, its rows. Nothing here writes."""

import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pyarrow as pa
import pyarrow.compute as pc

from attnlab.errors import RecordError
from attnlab.printable import one_line
from attnlab.run_record.forms import Claim, Identity, Saved, fault
from attnlab.run_record.identity import identity_hash
from attnlab.run_record.layers import Layers, inferred_layers, read_layers
from attnlab.run_record.read import (
    MOST_TEXT,
    content,
    decoding,
    json_file,
    json_object,
    rows,
    yaml_object,
)
from attnlab.run_record.result import (
    AttemptSummary,
    FailedAttempt,
    RunResult,
    summary_from_json,
    todays_identity,
)

DEATHS = 3
"""How often the process of a run may die at one step before the run is given up."""
MOST_BEAT = 64
"""Bytes of a sign of life."""


@dataclass(frozen=True)
class AttemptState:
    """What an attempt's directory says of it."""

    path: Path
    number: int
    claim: Mapping[str, Any]
    summary: AttemptSummary | None
    """How it ended, if it could still say so."""

    @property
    def beat(self) -> tuple[int, int]:
        """Beats so far, and the step of the last; zeros before the first."""
        try:
            counter, step = content(self.path / "beat", self.path.parents[1], MOST_BEAT).split()
            return int(counter), int(step)
        except (FileNotFoundError, ValueError):
            return 0, 0

    @property
    def has_ended(self) -> bool:
        """Whether its summary says that it failed or was interrupted."""
        return self.summary is not None and not isinstance(self.summary, RunResult)

    @property
    def holder_exists(self) -> bool:
        """Whether the process that claimed it is there; on another host nobody can tell."""
        if self.claim["host"] != socket.gethostname():
            return True
        try:
            process = psutil.Process(self.claim["pid"])
            started, status = process.create_time(), process.status()
        except (psutil.NoSuchProcess, ValueError, OverflowError):
            # The last two: of a claim that names what can be no process.
            return False
        # A killed process whose parent has not asked for its exit code still has its pid.
        if status == psutil.STATUS_ZOMBIE:
            return False
        # A start time is a whole number of clock ticks after a boot time that can be corrected.
        return abs(started - self.claim["process_start"]) < 2


class Plan(NamedTuple):
    """What to do with a run, and why: start, resume, retry (it died), skip, held or refuse."""

    action: str
    why: str


class Record:
    """One run's directory, read afresh each time it is asked."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, one_line(path.name)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The config that the run was made from, in today's form (`run_record.history`).

        Raises RecordError if it cannot be read.
        """
        path = self.path / "config.yaml"
        identity = todays_identity(yaml_object(path, self.path, Identity), path)
        for number in attempt_numbers(self.path)[:1]:
            path = self.path / "attempts" / str(number) / "claim.json"
            claim = json_object(path, self.path, Claim)
            stated = claim and claim.get("identity_hash")
            if stated and stated != identity_hash(identity):
                raise RecordError(
                    f"{self.path / 'config.yaml'} is damaged: it is not what attempt {number} was "
                    "begun with; move that run away and train it again"
                )
        return identity

    @property
    def result(self) -> RunResult | None:
        """The published run.json; None before a run is finished."""
        return json_file(self.path / "run.json", self.path, RunResult.from_json)

    @property
    def attempts(self) -> list[AttemptState]:
        """All attempts, from the first to the last."""
        states = []
        for number in attempt_numbers(self.path):
            path = self.path / "attempts" / str(number)
            claim = json_object(path / "claim.json", self.path, Claim)
            if claim is None:
                raise RecordError(f"{path} has no claim.json; move that attempt away")
            summary = json_file(path / "run.json", self.path, summary_from_json)
            states.append(AttemptState(path, number, claim, summary))
        return states

    @property
    def state(self) -> str:
        """Whether it is new, finished, running, interrupted, killed or failed."""
        if self.result is not None:
            return "finished"
        attempts = self.attempts
        if not attempts:
            return "new"
        last = attempts[-1]
        if last.summary is not None and last.has_ended:
            return last.summary.status
        return "running" if last.holder_exists else "killed"

    def rows(self, table: str) -> pa.Table:
        """All rows of a table in order, without those that a resumed attempt did again.

        Raises RecordError where a file is damaged, or lacks rows that were written.
        """
        parts = []
        for link in self._chain():
            run_dir = link.path.parents[1]
            part = rows(link.path / f"{table}.arrow", run_dir, link.is_sealed)
            if part is not None and link.upto is not None:
                part = part.filter(pc.field("step") <= link.upto)
            count, expected = 0 if part is None else part.num_rows, link.rows.get(table)
            if expected is not None and count < expected:
                raise RecordError(
                    f"{link.path / table}.arrow is damaged: it has {count} of {expected} rows"
                )
            if part is not None and part.num_rows:
                parts.append(part)
        if not parts:
            return pa.table({"step": pa.array([], pa.int64())})
        try:
            # An attempt made by other code may have other columns; they are null where it had none.
            return pa.concat_tables(parts, promote_options="default")
        except pa.ArrowException as error:
            raise RecordError(f"{self.path}: the attempts' {table} do not fit ({error})") from error

    @property
    def layers(self) -> Layers:
        """The layers of the model, as the newest attempt that states them does.

        Raises RecordError where that is damaged.
        """
        stated = [read_layers(link.path) for link in self._chain()]
        newest = next((layers for layers in reversed(stated) if layers is not None), None)
        return self._inferred_layers() if newest is None else newest

    def _inferred_layers(self) -> Layers:
        """Infer the layers of a record of 0.1, which states none."""
        measured, recorded = {}, {}
        measures: dict[str, set[str]] = {}
        heads, patterns = self.rows("heads"), self.rows("patterns")
        with decoding(self.path, "heads"):
            columns = ["layer", "measure", "heads"]
            for line in heads.select(columns).to_pylist() if heads.num_rows else ():
                measured[line["layer"]] = len(line["heads"])
                measures.setdefault(line["layer"], set()).add(line["measure"])
        # Between two sequences there is no distance.
        crossing = {
            path
            for path, names in measures.items()
            if "entropy" in names and "distance" not in names
        }
        with decoding(self.path, "patterns"):
            # Earlier versions kept patterns of one sequence alone.
            columns = ["source", "heads", *({"reading"} & {*patterns.column_names})]
            for line in patterns.select(columns).to_pylist() if patterns.num_rows else ():
                recorded[line["source"]] = int(line["heads"])
                if line.get("reading"):
                    crossing.add(line["source"])
            num_layers = (self.identity.get("model") or {}).get("num_layers")
        num_layers = num_layers if type(num_layers) is int else 0
        return inferred_layers(measured, recorded, num_layers, crossing)

    def check_rows(self) -> None:
        """Raise RecordError where any table of the run is damaged."""
        for table in dict.fromkeys(
            path.stem for link in self._chain() for path in sorted(link.path.glob("*.arrow"))
        ):
            self.rows(table)

    def _chain(self) -> list["_Link"]:
        """Follow `resumed_from` back from the attempt that counts; its rows end at no step."""
        attempts, result = self.attempts, self.result
        if not attempts:
            return []
        number = result.attempt if result else attempts[-1].number
        last = result or attempts[-1].summary
        path, upto = self.path / "attempts" / str(number), None
        chain: list[_Link] = []
        while True:
            if path in [link.path for link in chain]:
                raise RecordError(f"{path} is damaged: it says that it was resumed from itself")
            run_dir = path.parents[1]
            claim = json_object(path / "claim.json", run_dir, Claim)
            if claim is None:
                raise RecordError(f"{path} has no claim.json, but a later attempt resumed from it")
            num_rows = _rows_at(path, upto) if upto is not None else last.rows if last else {}
            chain.append(_Link(path, upto, claim["schema"] > 1, num_rows))
            origin = claim["resumed_from"]
            if origin is None:
                return chain[::-1]
            upto = origin["step"]
            if "run" in origin:
                run_dir = run_dir.parent / origin["run"]
            path = run_dir / "attempts" / str(origin["attempt"])


class Snapshot(Record):
    """A run's directory whose tables are read once, when they are first asked for."""

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


class _Link(NamedTuple):
    """An attempt whose rows are part of a run's."""

    path: Path
    upto: int | None
    """The last step that counts; None for all."""
    is_sealed: bool
    rows: Mapping[str, int]
    """How many rows of each table it wrote up to there, where it says."""


def _rows_at(attempt: Path, step: int) -> Mapping[str, int]:
    """Return how many rows of each table an attempt had written when it saved at a step."""
    saved = manifest(attempt, [])
    return next((entry.get("rows", {}) for entry in saved if entry["step"] == step), {})


def manifest(attempt: Path, damaged: list[str]) -> list[Saved]:
    """Read what an attempt saved; a sentence for each damaged line is added to `damaged`."""
    path = attempt / "checkpoints" / "manifest.jsonl"
    try:
        text = content(path, attempt.parents[1], MOST_TEXT)
    except FileNotFoundError:
        return []
    except RecordError as error:
        damaged.append(f"{error}; its checkpoints are passed over")
        return []
    entries: list[Saved] = []
    *lines, end = text.split(b"\n")
    for number, line in enumerate([*lines, end], start=1):
        entry: Any = None
        with suppress(ValueError, RecursionError):
            if number <= len(lines):
                entry = json.loads(line)
            else:
                # An entry whose line feed was lost still counts.
                entry, _ = json.JSONDecoder().raw_decode(line.decode(errors="replace"))
        if not fault(entry, Saved) and entry["file"] == checkpoint_name(entry["step"]):
            entries.append(entry)
        elif number <= len(lines):
            # The rest is the torn end of a killed write.
            damaged.append(f"{path} is damaged in line {number}; its checkpoint is passed over")
    return entries


def checkpoint_name(step: int) -> str:
    """Return the name of the file of a checkpoint."""
    return f"step-{step:09d}.ckpt"


def plan(record: Record, holder_is_gone: bool = False) -> Plan:
    """Decide what the same command again means for this run.

    `holder_is_gone` says that whoever holds it gives no sign of life.
    """
    state = record.state
    if state == "finished":
        return Plan("skip", "finished before")
    if state == "new":
        return Plan("start", "nothing has been tried yet")
    attempts = record.attempts
    if state == "running" and not holder_is_gone:
        claim = attempts[-1].claim
        return Plan("held", f"process {claim['pid']} on {claim['host']} holds it")
    if state in ("running", "killed"):
        return _after_death(attempts)
    if state != "failed":
        return Plan("resume", f"it was {state}")
    errors = [a.summary.error for a in attempts if isinstance(a.summary, FailedAttempt)]
    last = errors[-1]
    said = f"{last.type} at step {last.step}: {last.message}"
    if last.cause == "diverged":
        return Plan("refuse", f"it failed before ({said}), and would again; rerun=true repeats")
    if last.cause == "error" and errors[-2:] == [last, last]:
        return Plan("refuse", f"it failed twice in the same way ({said}); rerun=true repeats")
    return Plan("resume", f"it failed ({said})")


def _after_death(attempts: Sequence[AttemptState]) -> Plan:
    """Try again what was killed, unless that has happened at the same step often enough."""
    step = attempts[-1].beat[1]
    deaths = 0
    for attempt in reversed(attempts):
        if attempt.has_ended or attempt.beat[1] != step:
            break
        deaths += 1
        if manifest(attempt.path, []):
            break
    if deaths >= DEATHS:
        return Plan(
            "refuse",
            f"its process died {deaths} times after step {step} without a new checkpoint, as where "
            "memory runs out; mend that, and retry=true goes on (rerun=true begins anew)",
        )
    return Plan("retry", f"its process died after step {step}")


def wait_for_life(
    record: Record,
    lease_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Watch the last attempt for a lease of our own clock, and say whether somebody trains.

    A process that exists but stands still (paused, hung, on a host that is gone) counts as gone;
    a new attempt counts as life.
    """
    watched = record.attempts[-1]
    counter, until = watched.beat[0], clock() + lease_seconds
    while clock() < until:
        sleep(min(0.2, lease_seconds))
        if record.state != "running":
            return False
        last = record.attempts[-1]
        if last.number != watched.number or last.beat[0] != counter:
            return True
    return False


def find_runs(runs_dir: Path, all_generations: bool = False) -> list[Record]:
    """List the runs of a directory by name.

    Of a run that was repeated, only the newest finished generation counts (without one, the newest
    of all), unless `all_generations`. Raises RecordError if there is no such directory.
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
    generations: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: _generation(record.name)[1]):
        generations.setdefault(_generation(record.name)[0], []).append(record)
    counted = [
        next((r for r in reversed(same) if len(same) > 1 and _is_finished(r)), same[-1])
        for same in generations.values()
    ]
    return sorted(counted, key=lambda record: record.name)


def resolve(run: str, runs_dir: Path) -> Record:
    """Find a run by its directory, or by a unique prefix of its name or of its hash."""
    if (Path(run) / "config.yaml").exists():
        return Record(Path(run).resolve())
    records = find_runs(runs_dir, all_generations=True)
    found = [r for r in records if r.name == run] or [
        r for r in records if r.name.startswith(run) or hash_in(r.name).startswith(run)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise RecordError(
            f"{run!r} may be {len(found)} runs ({_some(found)}); say more of the name"
        )
    if Path(run).is_dir():
        raise RecordError(f"{run} is no run: it has no config.yaml; name a run's directory")
    raise RecordError(f"there is no run {run!r} in {runs_dir}, which holds {_some(records)}")


def stem_of_hash(runs_dir: Path, name: str, identity_hash: str) -> str:
    """Return the name of the run with this hash: the one on disk, else `name` with the hash.

    The readable part of a name may have been another when the run was made.
    """
    paths = sorted(runs_dir.glob(f"*-{identity_hash}")) if runs_dir.is_dir() else []
    return paths[0].name if paths else f"{name}-{identity_hash}"


def hash_in(name: str) -> str:
    """Return the hash that a run's name ends with."""
    return _generation(name)[0].rpartition("-")[2]


def generation_dir(runs_dir: Path, name: str, rerun: bool) -> Path:
    """Give the directory of the newest generation of a run: NAME, then NAME.2, NAME.3, ...

    With `rerun`, a newest generation that is finished or given up is followed by a new one, and one
    that was only interrupted goes on.
    """
    newest = runs_dir / name
    number = 1
    while (following := runs_dir / f"{name}.{number + 1}").exists():
        newest, number = following, number + 1
    if rerun and newest.exists() and plan(Record(newest)).action in ("skip", "refuse"):
        return following
    return newest


def attempt_numbers(run_dir: Path) -> list[int]:
    """List the attempts of a run in order; what a kill left half-made has no number."""
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
        # What cannot be read may be one, and is then named as damaged.
        return True


def _is_finished(record: Record) -> bool:
    try:
        return record.result is not None
    except RecordError:
        return False


def _some(records: list[Record]) -> str:
    names = [record.name for record in records[:5]] or ["no runs"]
    return ", ".join(names + ["..."] * (len(records) > 5))


def _generation(name: str) -> tuple[str, int]:
    base, _, number = name.rpartition(".")
    return (base, int(number)) if base and number.isdecimal() else (name, 1)
