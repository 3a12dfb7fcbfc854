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
from torch import nn

from attnlab.building import imported
from attnlab.callbacks.clock import Clock
from attnlab.callbacks.early_stop import EarlyStop
from attnlab.callbacks.keeper import Keeper
from attnlab.callbacks.statistics import Measured
from attnlab.callbacks.timekeeper import Timekeeper, Watcher
from attnlab.config import Config
from attnlab.config.callbacks import own_callbacks, without_inert
from attnlab.dataset.base import Dataset
from attnlab.dataset.loader import Loader
from attnlab.errors import RequestError
from attnlab.evidence.axes import stated_heads
from attnlab.evidence.evaluate import evaluate
from attnlab.evidence.heads import head_statistics
from attnlab.evidence.look import Seen, look
from attnlab.metric.base import Metric
from attnlab.model.base import Model
from attnlab.model.cost import flops
from attnlab.objective.base import Objective
from attnlab.runs.attempt import Attempt
from attnlab.runs.checkpoint import Checkpoint
from attnlab.runs.direction import LOSSES, lower_is_better, stated_names
from attnlab.runs.history import revised
from attnlab.signatures import targets
from attnlab.split import IGNORE, Batch
from attnlab.training import Settings, Training, Window

KEEPERS = ("recorder", "statistics", "vectors")
CADENCES = ("patterns_per_decade", "patterns_at", "statistics_every")
"""When keepers look."""
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
        # What is recorded changes nothing that is trained.
        kept = {k: v for k, v in without_inert(values["callbacks"]).items() if k not in KEEPERS}
        clock = {k: v for k, v in kept["clock"].items() if k not in CADENCES}
        variant = self.config.choices["variant"]
        callbacks = {**kept, "clock": clock}
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

    def timekeeper(
        self, training: Training, attempt: Attempt, watchers: Sequence[Watcher] = ()
    ) -> Timekeeper:
        """The callback that validates, writes and saves in time."""

        def evaluate_on(split: str) -> dict[str, float]:
            return self.evaluate(split, _precision(training))

        early_stop: EarlyStop | None = self._callback("early_stop")
        if early_stop:
            early_stop.lower_is_better = lower_is_better(early_stop.metric, self.lower_is_better)
        keepers = self.keepers(lambda: _precision(training)())
        return Timekeeper(self.clock, attempt, evaluate_on, early_stop, keepers, watchers)

    def keepers(
        self, precision: Callable[[], AbstractContextManager] = nullcontext
    ) -> list[Keeper]:
        """What looks at the model while it trains. Raises ValueError for what cannot be seen."""
        counts = stated_heads(self.model)

        def look_at(probe: Batch) -> Seen:
            return look(self.model, self.objective, probe, precision)

        def measure(count: int, pairs: bool) -> Measured:
            found = head_statistics(
                *(self.model, self.objective, self.dataset.splits["validation"]),
                batch_size=self.batch_size,
                num_examples=count,
                pairs=pairs,
                precision=precision,
            )
            # A pass may come to them in another order than they are numbered in.
            return {layer: found[layer] for layer in counts}

        wirings: dict[str, tuple[Any, ...]] = {"recorder": (self.objective, look_at, counts)}
        if counts:
            wirings["statistics"] = (self.batch_size, measure)
        table = getattr(self.model, "embedding", None)
        if isinstance(table, nn.Embedding):
            wirings["vectors"] = (lambda: table.weight,)
        made = {name: self._callback(name) for name in wirings}
        return [make(*wirings[name]) for name, make in made.items() if make]

    @property
    def own_callbacks(self) -> list[pl.Callback]:
        """The user's own Lightning callbacks, in the order of their config."""
        names = own_callbacks(self.config.values["callbacks"])
        return [self.config.build(f"callbacks.{name}") for name in names]

    def final(self, training: Training) -> dict[str, float]:
        """Measure the trained model: metrics of both held-back splits, and the evidence."""
        precision = _precision(training)
        found = {
            f"{split}/{name}": value
            for split in reversed(self.dataset.split_names)
            if split != "train"
            for name, value in self.evaluate(split, precision, sliced=True).items()
        }
        for name, measure in self.config.parts("evidence").items():
            with precision():
                measured = measure(self.model, self.objective, self.dataset)
            found |= {f"{name}/{what}": value for what, value in measured.items()}
        return found

    def _callback(self, name: str) -> Any:
        node = self.config.values["callbacks"].get(name)
        return node and self.config.build(f"callbacks.{name}")

    def evaluate(
        self,
        split: str,
        precision: Callable[[], AbstractContextManager],
        sliced: bool = False,
    ) -> dict[str, float]:
        """Loss and metrics of the model as it is on a whole split, in a precision."""
        found = evaluate(
            self.model,
            self.objective,
            self.dataset.splits[split],
            self.metrics,
            batch_size=max(self.batch_size, 256),
            precision=precision,
            slicer=self.dataset.slices if sliced else None,
        )
        return found | self.objective.derived(split, found["loss"]) if sliced else found

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
            callbacks=[*self.own_callbacks, timekeeper, *callbacks],
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
