"""One run: skipped, refused, resumed or started, and recorded whatever happens to it."""

import errno
import json
import shlex
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from attnlab.callbacks.progress import ProgressBar
from attnlab.callbacks.row_logger import LoggerFailed, RowLogger
from attnlab.callbacks.stopwatch import Stopwatch
from attnlab.callbacks.training_callback import RowListener, beat_on_forward
from attnlab.config import Config
from attnlab.console import Console
from attnlab.errors import Diverged, RecordError, RequestError
from attnlab.experiment import Experiment
from attnlab.fit import fit
from attnlab.interruption import Interrupted, delay_interruption, raise_on_stop_signals
from attnlab.launch import machine
from attnlab.launch.logged_run import describe_training_run, probe_page_builder
from attnlab.launch.measure_result import (
    build_run_result,
    code_hashes,
    flops_per_token,
    identify_attempt,
    keep_finite_numbers,
    measure_trained,
    run_notes,
    tokens_per_step,
)
from attnlab.launch.outcome import Outcome
from attnlab.launch.sweep_progress import PlaceInSweep
from attnlab.process_state import preserve_process_state
from attnlab.run_record import write
from attnlab.run_record.annotations import annotate
from attnlab.run_record.attempt import AlreadyClaimed, Attempt
from attnlab.run_record.checkpoint import Checkpoint, last_checkpoint, newest_checkpoint
from attnlab.run_record.history import earlier_revisions
from attnlab.run_record.identity import identity_hash
from attnlab.run_record.layers import FILE as LAYERS
from attnlab.run_record.layers import Layers
from attnlab.run_record.mirrors import find_mirror, read_mirrors
from attnlab.run_record.record import (
    Record,
    attempt_numbers,
    find_runs,
    generation_dir,
    name_on_disk,
    plan_resume,
    wait_for_life,
)
from attnlab.run_record.result import (
    AttemptError,
    AttemptProvenance,
    FailedAttempt,
    InterruptedAttempt,
    RunResult,
)


class PlaceOfRun(NamedTuple):
    """Where a run is recorded, or would be."""

    record: Record
    identity: dict[str, Any]
    extended_run: Record | None
    """The finished run that it extends."""


def run(
    config: Config,
    console: Console,
    postpones: bool = False,
    known_notes: Collection[str] = (),
    place: PlaceInSweep | None = None,
) -> Outcome:
    """Do what is missing of a run, and return what became of it.

    Its notes are printed before it is trained, but for `known_notes`. `place` is its place in a
    sweep.

    With `postpones`, a run that another process holds or that died is left as it is: it may end
    meanwhile, and what killed it may kill the next one. Raises RequestError where the record
    cannot be used, Interrupted on Ctrl-C, SIGTERM and SIGHUP.
    """
    with raise_on_stop_signals():
        experiment = Experiment(config)
        outcome = _run(experiment, console, postpones, known_notes, place or PlaceInSweep())
        outcome.notes = run_notes(experiment)
        return outcome


def _run(
    experiment: Experiment,
    console: Console,
    postpones: bool,
    known_notes: Collection[str],
    place: PlaceInSweep,
) -> Outcome:
    """Return the outcome of a run that need not be trained now, else train it."""
    config = experiment.config
    run_place = find_place_of_run(experiment, console)
    record = run_place.record
    plan = plan_resume(record)
    last_known_attempt = max(attempt_numbers(record.path), default=0)
    if postpones and plan.action in ("held", "retry"):
        status = "held" if plan.action == "held" else "dead"
        return Outcome(record.path, status, note=plan.reason)
    if plan.action == "held":
        console.print(f"{record.name}: {plan.reason}; waiting for a sign of life")
        if wait_for_life(record, config.values["lease"]):
            return Outcome(record.path, "held", note="another process is training it")
        plan = plan_resume(record, holder_is_gone=True)
    if plan.action == "skip":
        result = record.result
        assert result is not None
        _join_sweep(config, record, console)
        return Outcome(record.path, "skipped", result, _describe_skip(experiment, record, result))
    if plan.action == "refuse" and not config.values["retry"]:
        return Outcome(record.path, "refused", note=plan.reason)
    if plan.action == "start":
        _print_earlier_revision(record.path.parent, run_place.identity, console)
    return _claim_and_train(experiment, run_place, last_known_attempt, console, known_notes, place)


def _claim_and_train(
    experiment: Experiment,
    run_place: PlaceOfRun,
    last_known_attempt: int,
    console: Console,
    known_notes: Collection[str],
    place: PlaceInSweep,
) -> Outcome:
    """Begin the attempt that follows the last known one, from the newest checkpoint; train it."""
    record, identity, extended_run = run_place
    runs_dir = record.path.parent
    # Data that cannot be had are told before anything is written.
    _ = experiment.loader
    checkpoint, damage_reports = newest_checkpoint(record.path)
    extended_name = None
    if checkpoint is None and extended_run is not None:
        checkpoint, damage_reports_there = last_checkpoint(extended_run)
        extended_name = extended_run.name
        damage_reports = [*damage_reports, *damage_reports_there]
    for damage_report in damage_reports:
        console.print(f"warning: {damage_report}")
    # Before the claim: whoever stops the run from there on finds it written down as interrupted.
    description = identify_attempt(experiment)
    with delay_interruption():
        try:
            attempt = Attempt.claim(
                record.path,
                identity,
                _resume_origin(checkpoint, extended_name),
                last_known_attempt=last_known_attempt,
            )
        except AlreadyClaimed:
            return Outcome(record.path, "held", note="another process has just begun it")
        except OSError as error:
            if not runs_dir.is_dir():
                raise RequestError(
                    f"runs_dir {runs_dir} cannot be written ({error.strerror}); name another"
                ) from error
            note = f"cannot begin: {_describe_error(error, False)}"
            return Outcome(record.path, "failed", note=note, cause=_classify_error(error))
        place.announce_attempt(attempt.path)
        _join_sweep(experiment.config, record, console)
        if checkpoint is not None:
            origin = f"continues {extended_name}" if extended_name else "resumed"
            console.print(f"{place.title or record.name}: {origin} from step {checkpoint.step}")
        for note in run_notes(experiment):
            if note not in known_notes:
                console.print(note)
        return _train_attempt(experiment, attempt, description, checkpoint, console, place)


def _join_sweep(config: Config, record: Record, console: Console) -> None:
    """State beside the record that the run is a part of its sweep, unless that stands there."""
    sweep = config.values["sweep"]
    try:
        if sweep is not None and sweep not in record.annotations.sweeps:
            annotate(record.path, "sweep", sweep)
    except RecordError as error:
        console.print(f"warning: {record.name} is not listed as a run of sweep {sweep}: {error}")


def find_place_of_run(experiment: Experiment, console: Console) -> PlaceOfRun:
    """Find the record of an experiment; nothing is written. Raises RequestError where none fits."""
    values = experiment.config.values
    runs_dir, identity, extended_run = Path(values["runs_dir"]), experiment.identity, None
    if values["extend"]:
        extended_run = _find_extended_run(runs_dir, identity, console)
        identity = {**identity, "parent": extended_run.name}
    name = name_on_disk(runs_dir, experiment.name, identity_hash(identity))
    run_dir = generation_dir(runs_dir, name, values["rerun"])
    return PlaceOfRun(Record(run_dir), identity, extended_run)


class Progress(RowListener):
    """Knows the last step that was written, for the word on how a run ended."""

    def __init__(self, step: int) -> None:
        self.step = step

    def receive_rows(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self.step = max([self.step, *(row["step"] for row in rows)])


def _train_attempt(
    experiment: Experiment,
    attempt: Attempt,
    description: Mapping[str, Any],
    checkpoint: Checkpoint | None,
    console: Console,
    place: PlaceInSweep,
) -> Outcome:
    """Train, and state in the attempt how that ended, whoever asks to stop meanwhile."""
    run_dir = attempt.path.parents[1]
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    provenance = AttemptProvenance(attempt=attempt.number, started=started, **description)
    progress = Progress(checkpoint.step if checkpoint else 0)
    bar = ProgressBar(
        console,
        place.title or experiment.name,
        experiment.settings.max_steps,
        tokens_per_step(experiment),
        place.sweep_left,
    )
    try:
        with _record_ending(attempt, provenance, progress):
            with raise_on_stop_signals(), preserve_process_state():
                result = _train(experiment, attempt, provenance, checkpoint, console, progress, bar)
            if attempt.finish(result):
                return Outcome(run_dir, "finished", result, pace=bar.pace_of_training)
            return Outcome(run_dir, "skipped", result, "another attempt finished first")
    # Some part may even try to end the program.
    except (Exception, SystemExit) as error:
        if _classify_error(error) == "error":
            # Where the log cannot be written, the error is told all the same.
            with suppress(OSError):
                attempt.log_exception(error)
        return Outcome(run_dir, "failed", note=_describe_error(error), cause=_classify_error(error))


def _train(
    experiment: Experiment,
    attempt: Attempt,
    provenance: AttemptProvenance,
    checkpoint: Checkpoint | None,
    console: Console,
    progress: Progress,
    bar: ProgressBar,
) -> RunResult:
    """Train, measure what came out, and return the result; beats wherever a model computes."""
    stopwatch = Stopwatch()
    machine.reset_peak_memory()

    def beat() -> None:
        attempt.beat(progress.step)

    beat()
    with beat_on_forward(beat):
        token_flops = flops_per_token(experiment)
    layers = _write_model_files(experiment, attempt)
    record = Record(attempt.path.parents[1])
    row_logger = RowLogger(
        list(experiment.config.build_parts("logger").values()),
        describe_training_run(experiment, record.name, attempt.number, token_flops),
        layers,
        probe_page_builder(record.name),
        lambda warning: console.print(f"warning: {warning}"),
    )
    with row_logger.logging_attempt(attempt, record):
        # The first request to stop is left to the training callback, which saves after the step.
        with bar, delay_interruption(1):
            listeners = [progress, bar, row_logger]
            fitted = fit(experiment, attempt, checkpoint, listeners, [bar], stopwatch)
        progress.step = fitted.steps
        with beat_on_forward(beat):
            final_numbers, warning = keep_finite_numbers(
                measure_trained(experiment), experiment.headline, fitted.steps
            )
            if warning:
                console.print(f"warning: {warning}")
        result = build_run_result(
            experiment, provenance, fitted, final_numbers, token_flops, stopwatch
        )
        row_logger.log_result(result, checkpoint.step if checkpoint else 0)
    return result


def _write_model_files(experiment: Experiment, attempt: Attempt) -> Layers:
    """Write the tokenizer and the layers of the model into an attempt, and return the layers."""
    model, dataset = experiment.model, experiment.dataset
    if dataset.tokenizer_state:
        write.create_file(attempt.path / "tokenizer.json", dataset.tokenizer_state.encode())
    layers = Layers(
        *(model.attention_layers(), model.mixing_layers()),
        *(model.expert_layers(), model.lstm_layers()),
    )
    write.create_file(attempt.path / LAYERS, json.dumps(layers.to_json()).encode())
    return layers


@contextmanager
def _record_ending(
    attempt: Attempt, provenance: AttemptProvenance, progress: Progress
) -> Iterator[None]:
    """Write a summary into an attempt that is interrupted or fails; the error goes on."""
    try:
        yield
    except Interrupted as interrupted:
        step = progress.step if interrupted.step is None else interrupted.step
        with suppress(OSError):
            attempt.end(InterruptedAttempt(**vars(provenance), step=step))
        raise
    except (Exception, SystemExit) as error:
        attempt_error = AttemptError(
            type=type(error).__name__,
            message=str(error),
            step=error.step if isinstance(error, Diverged) else progress.step,
            cause=_classify_error(error),
        )
        # A full disk has no room for the word of it; the state is then computed from the claim.
        with suppress(OSError):
            attempt.end(FailedAttempt(**vars(provenance), error=attempt_error))
        raise


def _classify_error(error: BaseException) -> str:
    """Return the cause of an error as `AttemptError.cause` states it."""
    if isinstance(error, Diverged):
        return "diverged"
    if isinstance(error, LoggerFailed):
        return "logger"
    is_memory_error = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    if is_memory_error or "can't allocate memory" in str(error):
        return "memory"
    disk_errors = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
    return "disk" if isinstance(error, OSError) and error.errno in disk_errors else "error"


def _describe_error(error: BaseException, is_logged: bool = True) -> str:
    """Put an error into one line that says what can be done."""
    line = f"{type(error).__name__}: {error}".split("\n")[0]
    hints = {
        "disk": "make room, and the same command goes on from the last checkpoint",
        "memory": "a smaller batch_size needs less; the same command goes on",
        "logger": "mend that, or leave the logger out",
        "error": "run.log in the newest attempt says where" if is_logged else "",
    }
    hint = hints.get(_classify_error(error))
    return f"{line}; {hint}" if hint else line


def _find_extended_run(runs_dir: Path, identity: Mapping[str, Any], console: Console) -> Record:
    """Find the finished run that `extend` continues: equal but for fewer steps.

    Damaged runs are named and passed over.
    """
    max_steps = identity["trainer"]["max_steps"]
    records = find_runs(runs_dir) if runs_dir.is_dir() else []
    max_steps_and_records = []
    for record in records:
        try:
            if _is_extendable(record, identity):
                max_steps_and_records.append((record.identity["trainer"]["max_steps"], record))
        except (RecordError, LookupError, TypeError) as error:
            console.print(f"warning: {record.name} is passed over: {error}")
    if not max_steps_and_records:
        raise RequestError(
            f"extend=true, but no finished run in {runs_dir} equals this one with fewer than "
            f"trainer.max_steps={max_steps}"
        )
    _, longest_run = max(max_steps_and_records, key=lambda steps_and_record: steps_and_record[0])
    return longest_run


def _is_extendable(record: Record, identity: Mapping[str, Any]) -> bool:
    """Return whether a run is finished, and is the one with this identity but for fewer steps."""
    return (
        record.state == "finished"
        and _without_steps(record.identity) == _without_steps(identity)
        and record.identity["trainer"]["max_steps"] < identity["trainer"]["max_steps"]
    )


def _without_steps(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity without its number of steps and without the run that it extends."""
    other_sections = {key: value for key, value in identity.items() if key != "parent"}
    trainer = {key: value for key, value in identity["trainer"].items() if key != "max_steps"}
    return {**other_sections, "trainer": trainer}


def _print_earlier_revision(runs_dir: Path, identity: Mapping[str, Any], console: Console) -> None:
    """Say why a run that code of an earlier revision made is not taken for this one."""
    for earlier in earlier_revisions(identity):
        for path in sorted(runs_dir.glob(f"*-{identity_hash(earlier.identity)}")):
            console.print(
                f"{path.name} has the same config, but the numbers have changed since it was made "
                f"({'; '.join(earlier.reasons)}); it is kept, and this run is trained anew",
            )
            return


def _resume_origin(
    checkpoint: Checkpoint | None, extended_name: str | None
) -> dict[str, Any] | None:
    """Return what a claim states of the checkpoint, which may be one of the extended run."""
    if checkpoint is None:
        return None
    origin = {"attempt": checkpoint.attempt, "step": checkpoint.step, "sha256": checkpoint.sha256}
    return {**origin, "run": extended_name} if extended_name else origin


def _describe_skip(experiment: Experiment, record: Record, result: RunResult) -> str:
    """Return why a run is skipped, and what has changed or was not logged since."""
    hashes_today = code_hashes(experiment)
    changed_classes = sorted(
        name for name in hashes_today if result.code.get(name) != hashes_today[name]
    )
    sentences = ["finished before"]
    if changed_classes:
        sentences = [
            f"finished before, but the code of {', '.join(changed_classes)} has changed; "
            "rerun=true repeats"
        ]
    mirrors = read_mirrors(record.path)
    for name, logger in experiment.config.build_parts("logger").items():
        # A logger follows a run while it trains.
        if not logger.tool:
            sentences.append(f"logger={name} saw nothing of it; rerun=true repeats")
        elif not find_mirror(mirrors, logger.tool, None, logger.destination):
            project = "" if logger.destination is None else f" --project {logger.destination}"
            command = f"attnlab sync {shlex.quote(str(record.path))} --to {logger.tool}{project}"
            sentences.append(f"logger={name} saw nothing of it; `{command}` sends it")
    return "; ".join(sentences)
