"""From a checked config to what it describes: data, objective, model, trainer."""

import hashlib
import inspect
import io
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning_fabric.utilities.warnings import PossibleUserWarning

from attnlab.building import imported
from attnlab.callbacks.base import Recorder
from attnlab.callbacks.clock import Clock
from attnlab.callbacks.early_stop import EarlyStop
from attnlab.callbacks.timekeeper import Timekeeper, Watcher
from attnlab.config import Config
from attnlab.config.callbacks import (
    EARLY_STOP,
    in_identity,
    lightning_callbacks,
    recorders,
)
from attnlab.dataset.base import Dataset
from attnlab.dataset.loader import Loader
from attnlab.errors import RequestError
from attnlab.evaluation.evaluate import evaluate
from attnlab.interp.subject import Subject
from attnlab.metric.base import Metric
from attnlab.model.base import Model
from attnlab.model.cost import flops
from attnlab.objective.base import Objective
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.checkpoint import Checkpoint
from attnlab.run_record.direction import LOSSES, lower_is_better, stated_names
from attnlab.run_record.finding import Finding
from attnlab.run_record.history import revised
from attnlab.signatures import targets
from attnlab.split import IGNORE, Batch
from attnlab.training import Settings, Training, Window

NOT_IN_IDENTITY = ("runs_dir", "rerun", "retry", "extend", "lease", "logger", "match")


class Experiment:
    """Everything that a config describes, made when it is first asked for."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.seed: int = config.values["seed"]
        self.batch_size: int = config.values["batch_size"]

    @cached_property
    def settings(self) -> Settings:
        return self.config.build("trainer")

    @cached_property
    def dataset(self) -> Dataset:
        return self.config.build("dataset")

    @cached_property
    def loader(self) -> Loader:
        """The training batches. Raises RequestError where the data cannot give them."""
        try:
            return Loader(self.dataset.splits["train"], self.batch_size, self.seed)
        except ValueError as error:
            raise RequestError(f"dataset: {error}") from error

    @cached_property
    def objective(self) -> Objective:
        return self.config.build("objective")(self.dataset)

    @cached_property
    def metrics(self) -> Mapping[str, Metric]:
        return self.config.parts("metric")

    @property
    def lower_is_better(self) -> list[str]:
        """Of which of the run's metrics less is better."""
        metrics = [name for n, metric in self.metrics.items() for name in stated_names(metric, n)]
        evidence = self.config.parts("evidence").values()
        return [*LOSSES, *metrics, *(name for part in evidence for name in stated_names(part))]

    @cached_property
    def model(self) -> Model:
        """The model at its start; the seed alone decides it."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = self.config.model(self.objective)
            self.config.build("init")(model)
            return model

    @property
    def headline(self) -> str:
        """The metric that a comparison shows first, with the split it is reported on."""
        return f"{self.dataset.reported}/{self.dataset.headline}"

    @cached_property
    def clock(self) -> Clock:
        settings = self.settings
        make = self.config.build("callbacks.clock")
        return make(settings.max_steps, settings.val_check_interval)

    @property
    def threads(self) -> int:
        return self.settings.threads or torch.get_num_threads()

    @property
    def accelerator(self) -> str:
        gpu = self.settings.accelerator != "cpu" and torch.cuda.is_available()
        return "gpu" if gpu else "cpu"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What decides the result: the config as it is used, without where the result goes."""
        values = {k: v for k, v in self.config.values.items() if k not in NOT_IN_IDENTITY}
        trainer = {**values["trainer"], "accelerator": self.accelerator, "threads": self.threads}
        name = self.config.choices["dataset"]
        dataset = {"name": name, **values["dataset"], **self.dataset.located}
        variant = self.config.choices["variant"]
        callbacks = in_identity(values["callbacks"], self.config.own)
        sections = {"dataset": dataset, "trainer": trainer, "callbacks": callbacks}
        return revised({**values, "variant": variant, **sections})

    @cached_property
    def name(self) -> str:
        """What a reader of the runs directory sees first."""
        model = self.config.values["model"]
        shape = f"{model['num_layers']}x{model['d_model']}"
        choices = self.config.choices
        return f"{choices['dataset']}-{choices['variant']}-{shape}-s{self.seed}"

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimizer step reads, padding included."""
        per_example = self.example.num_tokens // len(self.example.inputs)
        return self.batch_size * self.settings.accumulate_grad_batches * per_example

    @cached_property
    def example(self) -> Batch:
        """A few training sequences, as the model is asked about them."""
        split = self.dataset.splits["train"]
        return self.objective.ask(split.batch(np.arange(min(4, len(split)))))

    @property
    def flops_per_token(self) -> float:
        """Forward, at the training length, with the experts that a token uses."""
        asked = self.example
        return flops(self.model, *asked.given) / asked.num_tokens

    @property
    def code_hash(self) -> dict[str, str]:
        """SHA-256 of the source file of each class that the config names."""
        names = sorted({node["_target_"] for node in targets(self.identity)})
        hashes = {}
        for name in names:
            # Of a class that was made in a notebook, or compiled, there is no source.
            with suppress(TypeError, OSError):
                file = inspect.getsourcefile(inspect.unwrap(imported(name)))
                hashes[name] = hashlib.sha256(Path(file or "").read_bytes()).hexdigest()
        return hashes

    @property
    def notes(self) -> list[str]:
        """What a reader of the result must know: a line for each thing."""
        notes = [f"{self.config.choices['dataset']}: {note}" for note in self.dataset.notes]
        warmup, steps = (
            self.config.values["schedule"].get("warmup_steps", 0),
            self.settings.max_steps,
        )
        if warmup > steps:
            notes.append(
                f"schedule.warmup_steps={warmup} is more than trainer.max_steps={steps}: the "
                "learning rate does not reach its peak"
            )
        return notes

    def training(self) -> Training:
        """The module that Lightning trains."""
        return Training(
            self.model,
            self.objective,
            self.metrics,
            self.config.build("optimizer"),
            self.config.build("schedule"),
            self.settings.max_steps,
            self.clock.logs,
            self._window,
        )

    @property
    def _window(self) -> Window | None:
        """The batches of a step, where there are several."""
        size = self.settings.accumulate_grad_batches
        if size == 1:
            return None

        @lru_cache(maxsize=1)
        def targets(step: int) -> int:
            batches = map(self.loader.batch, range(step * size, (step + 1) * size))
            return sum(int((self.objective.ask(b).targets != IGNORE).sum()) for b in batches) or 1

        return Window(size, targets)

    def subject(self, precision: Callable[[], AbstractContextManager] = nullcontext) -> Subject:
        """The model, as whoever looks into it needs it; `precision` is that of a forward pass."""
        return Subject(self.model, self.objective, precision, self.batch_size)

    def timekeeper(
        self, training: Training, attempt: Attempt, watchers: Sequence[Watcher] = ()
    ) -> Timekeeper:
        """The callback that validates, writes and saves in time."""
        subject = self.subject(lambda: _precision(training)())
        early_stop: EarlyStop | None = None
        if self.config.values["callbacks"].get(EARLY_STOP):
            early_stop = self.config.build(f"callbacks.{EARLY_STOP}")
            assert early_stop is not None
            early_stop.lower_is_better = lower_is_better(early_stop.metric, self.lower_is_better)
        return Timekeeper(
            *(self.clock, attempt, lambda split: self.evaluate(split, subject), early_stop),
            recorders=self.recorders(subject),
            watchers=watchers,
        )

    def recorders(self, subject: Subject) -> list[Recorder]:
        """What records something of the model while it trains, in the order of its config."""
        names = recorders(self.config.values["callbacks"], self.config.own)
        return [self.config.build(f"callbacks.{name}")(subject) for name in names]

    @property
    def lightning_callbacks(self) -> list[pl.Callback]:
        """The user's own Lightning callbacks, in the order of their config."""
        names = lightning_callbacks(self.config.values["callbacks"], self.config.own)
        return [self.config.build(f"callbacks.{name}") for name in names]

    def final(self, training: Training) -> tuple[dict[str, float], dict[str, Finding]]:
        """Measure the trained model: metrics of both held-back splits, and what evidence finds.

        The numbers that evidence finds are among the metrics, as EVIDENCE/KEY.
        """
        subject = self.subject(_precision(training))
        metrics = {
            f"{split}/{name}": value
            for split in reversed(self.dataset.split_names)
            if split != "train"
            for name, value in self.evaluate(split, subject, sliced=True).items()
        }
        findings: dict[str, Finding] = {}
        for name, make in self.config.parts("evidence").items():
            findings[name] = make(subject).measure()
            metrics |= {f"{name}/{key}": v for key, v in findings[name].scalars.items()}
        return metrics, findings

    def evaluate(self, split: str, subject: Subject, sliced: bool = False) -> dict[str, float]:
        """Loss and metrics of a model on a whole split."""
        metrics = evaluate(
            *(subject, self.dataset.splits[split], self.metrics),
            slicer=self.dataset.slices if sliced else None,
        )
        return metrics | self.objective.derived(split, metrics["loss"]) if sliced else metrics

    def fit(
        self,
        training: Training,
        timekeeper: Timekeeper,
        resumed: Checkpoint | None,
        callbacks: list[pl.Callback],
    ) -> pl.Trainer:
        """Train from the start, or from a checkpoint, to the last step."""
        settings = self.settings
        trainer = _quietly(
            pl.Trainer,
            accelerator=self.accelerator,
            devices=1,
            precision=settings.precision,
            max_steps=settings.max_steps,
            max_epochs=-1,
            accumulate_grad_batches=settings.accumulate_grad_batches,
            # The timekeeper saves, so what the user's own have done at a step comes before it.
            callbacks=[*self.lightning_callbacks, timekeeper, *callbacks],
            plugins=[AttemptCheckpoints(timekeeper.attempt, resumed)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=timekeeper.attempt.path,
        )
        self.loader.first = lambda: trainer.global_step * settings.accumulate_grad_batches
        torch.set_num_threads(self.threads)
        torch.set_float32_matmul_precision(settings.matmul_precision)
        torch.manual_seed(self.seed)
        _quietly(
            trainer.fit,
            training,
            self.loader,
            ckpt_path="resumed" if resumed else None,
            weights_only=True if resumed else None,
        )
        return trainer


def _precision(training: Training) -> Callable[[], AbstractContextManager]:
    """The context of a forward pass in training."""
    return training.trainer.strategy.precision_plugin.forward_context


class AttemptCheckpoints(CheckpointIO):
    """Lets Lightning save into an attempt, and load what was verified when the attempt began."""

    def __init__(self, attempt: Attempt, resumed: Checkpoint | None) -> None:
        self.attempt, self.resumed = attempt, resumed

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        self.attempt.save(checkpoint["global_step"], content.getvalue())

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: Any = True
    ) -> dict:
        assert self.resumed is not None
        content = io.BytesIO(self.resumed.content)
        return torch.load(content, map_location="cpu", weights_only=True)

    def remove_checkpoint(self, path: Any) -> None:
        """Leave it: the attempt keeps its newest two by itself."""


def _quietly(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call into Lightning without its advice on loaders and devices, which is not ours to take."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Lightning 2.6.6 still asks isinstance(treespec, LeafSpec), which torch 2.13 deprecates.
        warnings.filterwarnings("ignore", ".isinstance.treespec, LeafSpec", FutureWarning)
        warnings.filterwarnings("ignore", ".*", PossibleUserWarning)
        return call(*args, **kwargs)
