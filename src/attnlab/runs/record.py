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
from attnlab.runs.forms import SUMMARIES, Claim, Identity, Saved, fault
from attnlab.runs.history import todays_form
from attnlab.runs.identity import identity_hash
from attnlab.runs.read import MOST_TEXT, content, json_object, rows, yaml_object

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
    summary: Mapping[str, Any] | None
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
        return self.summary is not None and self.summary["status"] != "finished"

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
        """The config that the run was made from, in today's form (`runs.history`).

        Raises RecordError if it cannot be read.
        """
        path = self.path / "config.yaml"
        identity = _todays_form(yaml_object(path, self.path, Identity), path)
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
    def result(self) -> dict[str, Any] | None:
        """The published run.json, its identity in today's form; None before a run is finished."""
        result = json_object(self.path / "run.json", self.path, SUMMARIES)
        if result is not None and "identity" in result:
            result["identity"] = _todays_form(result["identity"], self.path / "run.json")
        return result

    @property
    def attempts(self) -> list[AttemptState]:
        """All attempts, from the first to the last."""
        states = []
        for number in attempt_numbers(self.path):
            path = self.path / "attempts" / str(number)
            claim = json_object(path / "claim.json", self.path, Claim)
            if claim is None:
                raise RecordError(f"{path} has no claim.json; move that attempt away")
            summary = json_object(path / "run.json", self.path, SUMMARIES)
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
            return str(last.summary["status"])
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
        number = result["attempt"] if result else attempts[-1].number
        last = result or attempts[-1].summary or {}
        path, upto = self.path / "attempts" / str(number), None
        chain: list[_Link] = []
        while True:
            if path in [link.path for link in chain]:
                raise RecordError(f"{path} is damaged: it says that it was resumed from itself")
            run_dir = path.parents[1]
            claim = json_object(path / "claim.json", run_dir, Claim)
            if claim is None:
                raise RecordError(f"{path} has no claim.json, but a later attempt resumed from it")
            num_rows = _rows_at(path, upto) if upto is not None else last.get("rows", {})
            chain.append(_Link(path, upto, claim["schema"] > 1, num_rows))
            origin = claim["resumed_from"]
            if origin is None:
                return chain[::-1]
            upto = origin["step"]
            if "run" in origin:
                run_dir = run_dir.parent / origin["run"]
            path = run_dir / "attempts" / str(origin["attempt"])


class _Link(NamedTuple):
    """An attempt whose rows are part of a run's."""

    path: Path
    upto: int | None
    """The last step that counts; None for all."""
    is_sealed: bool
    rows: Mapping[str, int]
    """How many rows of each table it wrote up to there, where it says."""


def _todays_form(identity: Mapping[str, Any], path: Path) -> dict[str, Any]:
    try:
        return todays_form(identity)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        # A knob has another type than the code that asks it expects.
        raise RecordError(f"{path} is damaged ({error}); move that run away") from error


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
    errors = [a.summary["error"] for a in attempts if a.summary and a.summary["status"] == "failed"]
    last = errors[-1]
    said = f"{last['type']} at step {last['step']}: {last['message']}"
    if last["cause"] == "diverged":
        return Plan("refuse", f"it failed before ({said}), and would again; rerun=true repeats")
    same = [all(e[k] == last[k] for k in last) for e in errors[-2:]]
    if last["cause"] == "error" and len(same) == 2 and all(same):
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
