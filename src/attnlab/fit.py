"""Train what an experiment describes, with Lightning, from its start or from a checkpoint.

To resume, nothing is replayed. The checkpoint holds the weights, the optimizer, the schedule and
the random states (`TrainingCallback`), and a batch is a function of its number alone, so the loader
begins at the batch that comes next. A resumed run is bit-equal to one that was never stopped.
"""

import io
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import median
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning_fabric.utilities.warnings import PossibleUserWarning

from attnlab.callbacks.early_stop import EarlyStop
from attnlab.callbacks.evidence import EvidenceRecorder
from attnlab.callbacks.stopwatch import Stopwatch
from attnlab.callbacks.training_callback import RowListener, TrainingCallback
from attnlab.config.callbacks import EARLY_STOP, build_recorders, lightning_callback_names
from attnlab.evaluation.evaluate import evaluate
from attnlab.experiment import Experiment
from attnlab.interp.observe import to_device
from attnlab.precision import parameter_type
from attnlab.process_state import preserve_process_state
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.checkpoint import Checkpoint
from attnlab.run_record.direction import lower_is_better
from attnlab.split import IGNORE
from attnlab.training import Training, Window


class FitResult(NamedTuple):
    """How training ended; the trained model is the experiment's, on `device`."""

    steps: int
    stopped_early: bool
    device: torch.device


def fit(
    experiment: Experiment,
    attempt: Attempt,
    start_checkpoint: Checkpoint | None,
    listeners: Sequence[RowListener] = (),
    callbacks: Sequence[pl.Callback] = (),
    stopwatch: Stopwatch | None = None,
) -> FitResult:
    """Train to the last step, and write what is measured meanwhile into the attempt.

    Raises Interrupted once what is asked to stop is saved, Diverged, and whatever the user's own
    parts raise; RuntimeError where a callback ends training in the middle of a step.
    """
    settings = experiment.settings
    training = build_training_module(experiment)
    training_callback = _build_training_callback(experiment, attempt, listeners, stopwatch)
    trainer = _build_trainer(experiment, attempt, start_checkpoint, training_callback, callbacks)
    first_step = start_checkpoint.step if start_checkpoint else 0
    torch.set_num_threads(experiment.threads)
    torch.set_float32_matmul_precision(settings.matmul_precision)
    torch.manual_seed(experiment.seed)
    _call_quietly(
        trainer.fit,
        training,
        experiment.loader.starting_at(first_step * settings.accumulate_grad_batches),
        ckpt_path="resumed" if start_checkpoint else None,
        weights_only=True if start_checkpoint else None,
    )
    if trainer.global_step < settings.max_steps and not training_callback.stopped_early:
        raise RuntimeError("training was ended by a callback in the middle of a step")
    # Lightning has moved the model back to the CPU.
    experiment.model.to(trainer.strategy.root_device)
    return FitResult(
        trainer.global_step, training_callback.stopped_early, trainer.strategy.root_device
    )


def _build_trainer(
    experiment: Experiment,
    attempt: Attempt,
    start_checkpoint: Checkpoint | None,
    training_callback: TrainingCallback,
    callbacks: Sequence[pl.Callback],
) -> pl.Trainer:
    """Build Lightning's trainer, without its own validation, checkpoints, loggers and bars."""
    settings, config = experiment.settings, experiment.config
    names = lightning_callback_names(config.values["callbacks"], config.user_targets)
    config_callbacks = [config.build(f"callbacks.{name}") for name in names]
    return _call_quietly(
        pl.Trainer,
        accelerator=experiment.accelerator,
        devices=1,
        precision=settings.precision,
        max_steps=settings.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=settings.accumulate_grad_batches,
        # The training callback saves, so what the user's own have done at a step comes before it.
        callbacks=[*config_callbacks, training_callback, *callbacks],
        plugins=[AttemptCheckpoints(attempt, start_checkpoint)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=attempt.path,
    )


class StepSeconds(NamedTuple):
    """How long a training step takes, and a batch in evaluation."""

    training: float
    evaluation: float


def time_steps(experiment: Experiment, budget: float) -> StepSeconds:
    """Measure real training steps of an experiment for about `budget` seconds; spoils its model.

    The first step only warms up, unless it takes the whole budget. Nothing is recorded.
    """
    training, settings = build_training_module(experiment), experiment.settings
    device = torch.device("cuda" if experiment.accelerator == "gpu" else "cpu")
    precision = experiment.subject.precision
    with preserve_process_state():
        torch.set_num_threads(experiment.threads)
        torch.set_float32_matmul_precision(settings.matmul_precision)
        model = experiment.model.to(device, parameter_type(settings.precision)).train()
        optimizer = training.optimizer.build(model)

        def train_step(first_batch: int) -> None:
            """Train one step on the micro-batches from a number on."""
            for micro_batch_index in range(settings.accumulate_grad_batches):
                with precision():
                    loss = training.training_step(
                        to_device(experiment.loader.batch(first_batch + micro_batch_index), device),
                        micro_batch_index,
                    )
                loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
            optimizer.step()
            optimizer.zero_grad()

        def evaluate_batch(batch_index: int) -> None:
            batch = experiment.objective.training_batch(experiment.loader.batch(batch_index))
            with torch.no_grad(), precision():
                model(*to_device(batch, device).model_inputs)

        train_seconds = _median_seconds(train_step, budget, device)
        evaluation_seconds = _median_seconds(evaluate_batch, budget / 4, device)
    return StepSeconds(train_seconds, evaluation_seconds)


MOST_TIMED = 10
"""Steps after which a time is known well enough."""


def _median_seconds(work: Callable[[int], None], budget: float, device: torch.device) -> float:
    """Return the median seconds of a work that is repeated until the budget is spent."""
    seconds: list[float] = []
    while len(seconds) <= MOST_TIMED and sum(seconds) < budget:
        start = time.perf_counter()
        work(len(seconds))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:] or seconds)


def build_training_module(experiment: Experiment) -> Training:
    """Build the module that Lightning trains."""
    return Training(
        experiment.model,
        experiment.objective,
        experiment.metrics,
        experiment.config.build("optimizer"),
        experiment.config.build("schedule"),
        experiment.settings.max_steps,
        experiment.cadence.logs,
        _build_window(experiment),
    )


def _build_window(experiment: Experiment) -> Window | None:
    """Return the micro-batches of a step; None where a step has a single batch."""
    size = experiment.settings.accumulate_grad_batches
    if size == 1:
        return None

    # All micro-batches of a step divide by the targets of the whole step. Without the cache, each
    # of them would read the batches of the step again.
    @lru_cache(maxsize=1)
    def count_targets(step: int) -> int:
        batches = map(experiment.loader.batch, range(step * size, (step + 1) * size))
        model_batches = map(experiment.objective.training_batch, batches)
        return sum(int((batch.targets != IGNORE).sum()) for batch in model_batches) or 1

    return Window(size, count_targets)


def _build_training_callback(
    experiment: Experiment,
    attempt: Attempt,
    listeners: Sequence[RowListener],
    stopwatch: Stopwatch | None,
) -> TrainingCallback:
    """Build the callback that validates, writes and saves in time."""
    subject, config = experiment.subject, experiment.config
    early_stop: EarlyStop | None = None
    if config.values["callbacks"].get(EARLY_STOP):
        early_stop = config.build(f"callbacks.{EARLY_STOP}")
        assert early_stop is not None
        early_stop.lower_is_better = lower_is_better(early_stop.metric, experiment.lower_is_better)
    return TrainingCallback(
        experiment.cadence,
        attempt,
        lambda split: evaluate(subject, experiment.dataset.splits[split], experiment.metrics),
        early_stop,
        recorders=[*build_recorders(config, subject), *_build_evidence_recorder(experiment)],
        listeners=listeners,
        stopwatch=stopwatch,
    )


def _build_evidence_recorder(experiment: Experiment) -> list[EvidenceRecorder]:
    """Return the recorder of the run's evidence, where the cadence measures it in training."""
    if experiment.cadence.evidence_every is None:
        return []
    subject = experiment.subject
    evidence = experiment.config.build_parts("evidence")
    return [EvidenceRecorder(subject, {name: part(subject) for name, part in evidence.items()})]


class AttemptCheckpoints(CheckpointIO):
    """Lets Lightning save into an attempt, and load what was verified when the attempt began."""

    def __init__(self, attempt: Attempt, start_checkpoint: Checkpoint | None) -> None:
        self.attempt, self.start_checkpoint = attempt, start_checkpoint

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        self.attempt.save(checkpoint["global_step"], content.getvalue())

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: Any = True
    ) -> dict:
        assert self.start_checkpoint is not None
        content = io.BytesIO(self.start_checkpoint.content)
        return torch.load(content, map_location="cpu", weights_only=True)

    def remove_checkpoint(self, path: Any) -> None:
        """Leave it: the attempt keeps its newest two by itself."""


def _call_quietly(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call into Lightning without its advice on loaders and devices, which is not ours to take."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Lightning 2.6.6 still asks isinstance(treespec, LeafSpec), which torch 2.13 deprecates.
        warnings.filterwarnings("ignore", ".isinstance.treespec, LeafSpec", FutureWarning)
        warnings.filterwarnings("ignore", ".*", PossibleUserWarning)
        return call(*args, **kwargs)
