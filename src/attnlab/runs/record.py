"""Read a run: its state, its result, its rows. Nothing here writes."""

import json
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from attnlab.errors import RequestError
from attnlab.runs.history import todays_form
from attnlab.runs.identity import SCHEMA


class RecordError(RequestError):
    """A record cannot be used: which file, what is wrong, what to do."""


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
            counter, step = (self.path / "beat").read_text().split()
        except (FileNotFoundError, ValueError):
            return 0, 0
        return int(counter), int(step)

    @property
    def holder_exists(self) -> bool:
        """Whether the process that claimed it is there; on another host nobody can tell."""
        if self.claim["host"] != socket.gethostname():
            return True
        try:
            process = psutil.Process(self.claim["pid"])
            started, status = process.create_time(), process.status()
        except psutil.NoSuchProcess:
            return False
        # A killed process whose parent has not asked for its exit code still has its pid.
        if status == psutil.STATUS_ZOMBIE:
            return False
        # A start time is a whole number of clock ticks after a boot time that can be corrected.
        return abs(started - self.claim["process_start"]) < 2


class Plan(NamedTuple):
    """What to do with a run, and why: start, resume, skip, held or refuse."""

    action: str
    why: str


class Record:
    """One run's directory, read afresh each time it is asked."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The config that the run was made from, in today's form (`runs.history`).

        Raises RecordError if it cannot be read.
        """
        path = self.path / "config.yaml"
        try:
            identity = yaml.safe_load(path.read_bytes())
        except FileNotFoundError as error:
            raise RecordError(f"{self.path} is no run: it has no config.yaml") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RecordError(f"{path} is damaged; move that run away") from error
        if not isinstance(identity, dict):
            raise RecordError(f"{path} is damaged; move that run away and train it again")
        return todays_form(identity)

    @property
    def result(self) -> dict[str, Any] | None:
        """The published run.json, its identity in today's form; None before a run is finished."""
        result = _read(self.path / "run.json")
        if result is not None and isinstance(result.get("identity"), dict):
            result["identity"] = todays_form(result["identity"])
        return result

    @property
    def attempts(self) -> list[AttemptState]:
        """All attempts, from the first to the last."""
        states = []
        for number in attempt_numbers(self.path):
            path = self.path / "attempts" / str(number)
            claim = _read(path / "claim.json")
            if claim is None:
                raise RecordError(f"{path} has no claim.json; move that attempt away")
            states.append(AttemptState(path, number, claim, _read(path / "run.json")))
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
        if last.summary is not None and last.summary["status"] != "finished":
            return str(last.summary["status"])
        return "running" if last.holder_exists else "killed"

    def rows(self, table: str) -> pa.Table:
        """All rows of a table in order, without those that a resumed attempt did again."""
        parts = []
        for path, upto in self._chain():
            part = _stream(path / f"{table}.arrow")
            if part is not None and part.num_rows:
                parts.append(part if upto is None else part.filter(pc.field("step") <= upto))
        if not parts:
            return pa.table({"step": pa.array([], pa.int64())})
        # An attempt made by other code may have other columns; they are null where it had none.
        return pa.concat_tables(parts, promote_options="default")

    def _chain(self) -> list[tuple[Path, int | None]]:
        """Follow `resumed_from` back from the attempt that counts; its rows end at no step."""
        attempts, result = self.attempts, self.result
        if not attempts:
            return []
        number = result["attempt"] if result else attempts[-1].number
        path, upto = self.path / "attempts" / str(number), None
        chain: list[tuple[Path, int | None]] = []
        while True:
            chain.append((path, upto))
            claim = _read(path / "claim.json")
            if claim is None:
                raise RecordError(f"{path} has no claim.json, but a later attempt resumed from it")
            origin = claim.get("resumed_from")
            if origin is None:
                return chain[::-1]
            upto = origin["step"]
            run_dir = path.parents[1]
            if "run" in origin:
                run_dir = run_dir.with_name(origin["run"])
            path = run_dir / "attempts" / str(origin["attempt"])


def plan(record: Record) -> Plan:
    """Decide what the same command again means for this run."""
    state = record.state
    if state == "finished":
        return Plan("skip", "finished before")
    if state == "new":
        return Plan("start", "nothing has been tried yet")
    attempts = record.attempts
    if state == "running":
        claim = attempts[-1].claim
        return Plan("held", f"process {claim['pid']} on {claim['host']} holds it")
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
        if not path.name.startswith(".") and (path / "config.yaml").exists()
    ]
    if all_generations:
        return records
    generations: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: _generation(record.name)[1]):
        generations.setdefault(_generation(record.name)[0], []).append(record)
    counted = [
        next((r for r in reversed(same) if len(same) > 1 and r.result is not None), same[-1])
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
    directory = run_dir / "attempts"
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal())


def _some(records: list[Record]) -> str:
    names = [record.name for record in records[:5]] or ["no runs"]
    return ", ".join(names + ["..."] * (len(records) > 5))


def _generation(name: str) -> tuple[str, int]:
    base, _, number = name.rpartition(".")
    return (base, int(number)) if base and number.isdecimal() else (name, 1)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} is damaged ({error}); move that run away") from error
    if not isinstance(content, dict) or not isinstance(content.get("schema"), int):
        raise RecordError(f"{path} is no record of attnlab; move it away")
    if content["schema"] > SCHEMA:
        raise RecordError(
            f"{path} was written by a newer attnlab (schema {content['schema']}, this one reads "
            f"{SCHEMA}); upgrade attnlab"
        )
    return content


def _stream(path: Path) -> pa.Table | None:
    """Read the whole batches of a stream; the torn end of a killed write is left out."""
    if not path.exists() or not path.stat().st_size:
        return None
    # Read before it is parsed, so that a disk that cannot be read is not taken for a torn end.
    content = pa.BufferReader(path.read_bytes())
    batches = []
    try:
        reader = pa.ipc.open_stream(content)
        while True:
            batches.append(reader.read_next_batch())
    except (StopIteration, pa.ArrowInvalid, OSError):
        pass
    return pa.Table.from_batches(batches) if batches else None
