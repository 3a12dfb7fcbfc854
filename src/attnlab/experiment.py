"""What a config describes: its data, objective, model and settings, and the identity of the run."""

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from attnlab.callbacks.cadence import Cadence
from attnlab.config import Config
from attnlab.config.callbacks import callbacks_in_identity
from attnlab.config.config import NOT_IN_IDENTITY
from attnlab.config.run_name import run_name
from attnlab.dataset.base import Dataset
from attnlab.dataset.loader import Loader
from attnlab.errors import RequestError
from attnlab.interp.subject import Subject
from attnlab.metric.base import Metric
from attnlab.model.base import Model
from attnlab.objective.base import Objective
from attnlab.precision import forward_context
from attnlab.run_record.bounds import stated_bounds
from attnlab.run_record.direction import LOSSES, lower_is_better_names
from attnlab.run_record.history import add_revisions
from attnlab.split import Batch
from attnlab.training import Settings


class Experiment:
    """Everything that a config describes, built when it is first needed."""

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
    def example(self) -> Batch:
        """A few training sequences, as the model reads them."""
        split = self.dataset.splits["train"]
        return self.objective.training_batch(split.batch(np.arange(min(4, len(split)))))

    @cached_property
    def metrics(self) -> Mapping[str, Metric]:
        return self.config.build_parts("metric")

    @property
    def headline(self) -> str:
        """The metric that a comparison shows first, with the split that it is reported on."""
        return f"{self.dataset.report_split}/{self.dataset.headline}"

    @property
    def lower_is_better(self) -> list[str]:
        """The names, or patterns of names, of the run's metrics of which less is better."""
        metrics = [
            name for n, metric in self.metrics.items() for name in lower_is_better_names(metric, n)
        ]
        evidence = self.config.build_parts("evidence").values()
        return [
            *LOSSES,
            *metrics,
            *(name for part in evidence for name in lower_is_better_names(part)),
        ]

    @property
    def bounds(self) -> dict[str, tuple[float | None, float | None]]:
        """The ranges of the run's metrics, by names or patterns of names."""
        return stated_bounds(self.metrics, self.config.build_parts("evidence"))

    @cached_property
    def model(self) -> Model:
        """The model at its start; the seed alone decides it."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = self.config.build_model(self.objective)
            self.config.build("init")(model)
            return model

    @property
    def subject(self) -> Subject:
        """The model as evaluation, recorders and evidence read it, in the precision of training."""
        device_type = "cuda" if self.accelerator == "gpu" else "cpu"
        precision = partial(forward_context, self.settings.precision, device_type)
        return Subject(self.model, self.objective, precision, self.batch_size)

    @cached_property
    def cadence(self) -> Cadence:
        settings = self.settings
        return self.config.build("callbacks.cadence")(
            settings.max_steps, settings.val_check_interval
        )

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
        dataset = {"name": name, **values["dataset"], **self.dataset.content_identity}
        variant = self.config.choices["variant"]
        callbacks = callbacks_in_identity(values["callbacks"], self.config.user_targets)
        sections = {"dataset": dataset, "trainer": trainer, "callbacks": callbacks}
        return add_revisions({**values, "variant": variant, **sections})

    @property
    def choices(self) -> dict[str, str]:
        """The choice of each group of the config, without Hydra's own, loggers and the launcher."""
        return {
            group: choice
            for group, choice in self.config.choices.items()
            if isinstance(choice, str)
            and group.split("/")[0] not in ("hydra", "logger", "launcher")
        }

    @cached_property
    def name(self) -> str:
        """What a reader of the runs directory sees first."""
        return run_name(self.config)
