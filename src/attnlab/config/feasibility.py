"""Find what fits the signatures and still cannot work: each part is built, and says so itself.

A model is built on the meta device, where it costs nothing. A new part needs no line here: what its
constructor raises as ValueError is a fault of the config.
"""

from collections.abc import Callable, Iterator, Sequence
from inspect import isclass
from typing import Any

import torch

from attnlab.building import fault_of_own_part
from attnlab.callbacks.cadence import Cadence
from attnlab.config.callbacks import (
    CADENCE,
    EARLY_STOP,
    lightning_callback_names,
    lightning_faults,
    recorder_faults,
    recorder_names,
)
from attnlab.config.config import Config
from attnlab.config.own_layers import own_layer_faults
from attnlab.config.own_parts import (
    own_mixer_faults,
    own_optimizer_faults,
    own_schedule_faults,
)
from attnlab.dataset.base import Dataset
from attnlab.errors import ConfigError
from attnlab.evidence.base import Evidence
from attnlab.interp.subject import Subject
from attnlab.logger.base import Logger
from attnlab.model.base import Model
from attnlab.objective.base import Objective
from attnlab.optimizer.base import Optimizer
from attnlab.schedule.base import Schedule
from attnlab.signatures import partial_faults

BASES = {"dataset": Dataset, "optimizer": Optimizer, "schedule": Schedule, "logger": Logger}
"""What each part of a section must be, so that the rest of attnlab can ask it."""
STEPS_OF_THE_RUN = {
    "schedule.warmup_steps": "the learning rate would not reach its peak",
    "trainer.val_check_interval": "nothing would be validated before the last step",
}
"""Knobs that count steps of the run, and what becomes of one that is longer."""


def step_count_faults(config: Config, overrides: Sequence[str]) -> Iterator[str]:
    """Yield a fault for each number of steps that an override states and the run does not have.

    What a YAML states is a default for runs of a usual length: a shorter run ends within its
    warm-up, and is validated at its last step.
    """
    overridden_keys = {text.lstrip("+").partition("=")[0] for text in overrides}
    max_steps = config.values["trainer"].get("max_steps")
    for key, consequence in STEPS_OF_THE_RUN.items():
        section, knob = key.split(".")
        steps = config.values[section].get(knob)
        if key in overridden_keys and None not in (steps, max_steps) and steps > max_steps:
            yield (
                f"{key}: expected at most trainer.max_steps={max_steps}, got {steps}: {consequence}"
            )


def feasibility_faults(config: Config) -> list[str]:
    """Return a fault for each part that cannot be built, or cannot work with the others."""
    builder = _PartBuilder(config)
    faults = builder.faults
    sections = ("dataset", "optimizer", "schedule", "trainer")
    dataset, optimizer, schedule, settings = map(builder.build, sections)
    _build_logger_metrics_and_callbacks(config, builder)
    cadence = None
    if settings is not None:
        steps = (settings.max_steps, settings.val_check_interval)
        faults += own_schedule_faults(config, schedule, settings.max_steps)
        cadence = builder.attempt(
            "callbacks.cadence", lambda: config.build(f"callbacks.{CADENCE}")(*steps)
        )
    if dataset is None:
        return faults
    objective = builder.attempt("objective", lambda: config.build("objective")(dataset))
    if objective is None:
        return faults
    faults += _evidence_faults(config, objective, dataset)
    with torch.device("meta"):
        model = builder.attempt("model", lambda: config.build_model(objective))
    if model is None:
        return faults
    faults += _recorder_faults(config, objective, dataset, model, cadence)
    builder.attempt("init", lambda: config.build("init")(model))
    mixer_faults = [*own_mixer_faults(config, objective, model)]
    faults += mixer_faults or own_layer_faults(config, objective, model)
    faults += own_optimizer_faults(config, optimizer, model)
    return faults


class _PartBuilder:
    """Builds parts of a config, and collects the faults of those that cannot be built."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.faults: list[str] = []

    def attempt(self, key: str, build: Callable[[], Any]) -> Any:
        """Return what is built, or None once its fault is noted."""
        try:
            return build()
        except ConfigError as error:
            self.faults.extend(error.faults)
        except ValueError as error:
            self.faults.append(f"{self.config.key_at_fault(error, key)}: {error}")
        except Exception as error:
            fault = fault_of_own_part(error, self.config.user_targets)
            if fault is None:
                raise
            self.faults.append(f"{key}: {fault}")
        return None

    def build(self, key: str) -> Any:
        """Return the part at a key; None for one that cannot be built or has another base class."""
        part = self.attempt(key, lambda: self.config.build(key))
        base = BASES.get(key.split(".")[0])
        if part is None or base is None or isinstance(part, base):
            return part
        base_name, kind = f"{base.__module__}.{base.__name__}", type(part).__name__
        self.faults.append(f"{key}: expected a class of {base_name}, got a {kind}")
        return None


def _build_logger_metrics_and_callbacks(config: Config, builder: _PartBuilder) -> None:
    """Build the parts that need no other part, so that the builder collects their faults."""
    for section in ("logger", "metric"):
        for name in config.part_names(section):
            builder.build(f"{section}.{name}")
    callbacks = config.values["callbacks"]
    if callbacks.get(EARLY_STOP):
        builder.build(f"callbacks.{EARLY_STOP}")
    for name in lightning_callback_names(callbacks, config.user_targets):
        key = f"callbacks.{name}"
        if faults := [*partial_faults(callbacks[name], key, is_called_later=False)]:
            builder.faults += faults
        elif (callback := builder.build(key)) is not None:
            builder.faults += lightning_faults(name, callback)


def _evidence_faults(config: Config, objective: Objective, dataset: Dataset) -> Iterator[str]:
    """Yield why parts of `evidence` are none, or cannot work with the objective and the data."""
    for name in config.part_names("evidence"):
        node, key = config.values["evidence"][name], f"evidence.{name}"
        if faults := [*partial_faults(node, key, is_called_later=True)]:
            yield from faults
            continue
        evidence_class = config.build(f"evidence.{name}").func
        if not (isclass(evidence_class) and issubclass(evidence_class, Evidence)):
            yield f"evidence.{name}: expected a class of attnlab.evidence.base.Evidence"
            continue
        for fault in evidence_class.compatibility_faults(objective, dataset):
            yield f"evidence.{name}: {fault}; use evidence=none"


def _recorder_faults(
    config: Config, objective: Objective, dataset: Dataset, model: Model, cadence: Cadence | None
) -> Iterator[str]:
    """Yield why recorders cannot be built or would write one table, and what has no split."""
    callbacks = config.values["callbacks"]
    yield from recorder_faults(callbacks, config.user_targets)
    for name in recorder_names(callbacks, config.user_targets):
        # One that is not partial has been refused, and cannot be given a subject.
        if callbacks[name].get("_partial_"):
            try:
                config.build(f"callbacks.{name}")(Subject(model, objective))
            except ValueError as error:
                yield from getattr(error, "faults", [f"callbacks.{name}: {error}"])
    if cadence is not None:
        try:
            cadence.require_splits(dataset.split_names)
        except ValueError as error:
            yield f"callbacks.cadence.{error}"
