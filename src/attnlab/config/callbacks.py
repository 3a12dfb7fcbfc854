"""What the entries of `callbacks` are: attnlab's own, recorders, and Lightning's callbacks."""

import re
from collections.abc import Iterator, Mapping
from inspect import isclass
from typing import Any

from attnlab.building import UserTargets, find_target
from attnlab.callbacks.base import Recorder
from attnlab.callbacks.cadence import Cadence
from attnlab.config.config import Config
from attnlab.interp.subject import Subject

CADENCE, EARLY_STOP = "cadence", "early_stop"
"""The entries that attnlab itself asks."""
IN_IDENTITY = "_in_identity_"
"""A directive: false says that a callback changes nothing that is trained or measured."""
WRITTEN_IN_TRAINING = ("train", "validation", "test")
"""The tables that no recorder writes."""
REPLACED = {
    "BatchSizeFinder": "batch_size is part of what is compared",
    "Checkpoint": "callbacks.cadence.checkpoint_every says when the run is saved",
    "EarlyStopping": "callbacks=early_stop ends a run",
    "GradientAccumulationScheduler": "trainer.accumulate_grad_batches adds gradients up",
    "LearningRateFinder": "optimizer.lr=1e-3,2e-3 with -m tries several",
    "LearningRateMonitor": "the learning rate is in every row of the record",
    "ModelSummary": "the record has the parameters, and `attnlab bench` the costs",
    "ProgressBar": "attnlab shows a bar of its own",
    "StochasticWeightAveraging": "it counts epochs, and attnlab steps; WeightAveraging does too",
}
"""Callbacks of Lightning that would do what attnlab does, and what to do instead."""


def recorders(callbacks: Mapping[str, Any], own: UserTargets) -> list[str]:
    """Return the names of the entries that record something, in the order of the config."""
    return [name for name in _entries(callbacks) if _is_recorder(callbacks[name], own)]


def build_recorders(config: Config, subject: Subject) -> list[Recorder]:
    """Build what records something of a subject, in the order of the config."""
    names = recorders(config.values["callbacks"], config.own)
    return [config.build(f"callbacks.{name}")(subject) for name in names]


def lightning_callbacks(callbacks: Mapping[str, Any], own: UserTargets) -> list[str]:
    """Return the names of the entries that Lightning is given, in the order of the config."""
    return [name for name in _entries(callbacks) if not _is_recorder(callbacks[name], own)]


def recorder_faults(callbacks: Mapping[str, Any], own: UserTargets) -> Iterator[str]:
    """Say which recorders cannot be built, or would write the same table."""
    by_table: dict[str, str] = {}
    for name in recorders(callbacks, own):
        if not callbacks[name].get("_partial_"):
            yield f"callbacks.{name}: expected `_partial_: true` beside its _target_"
        table = getattr(_target(callbacks[name], own), "table", None)
        if table is None:
            yield f"callbacks.{name}: its class must name the `table` that it writes"
        elif not isinstance(table, str) or not re.fullmatch(r"[a-z]\w*", table):
            yield (
                f"callbacks.{name}: its table {table!r} is no name; expected lower-case letters, "
                "digits and _"
            )
        elif table in WRITTEN_IN_TRAINING:
            yield f"callbacks.{name}: training itself writes the table {table}; name another"
        elif table in by_table:
            yield f"callbacks.{name}: callbacks.{by_table[table]} records {table} already"
        else:
            by_table[table] = name


def lightning_faults(name: str, callback: Any) -> Iterator[str]:
    """Say why something cannot be given to Lightning as a callback."""
    # Lightning itself takes seconds to import, and a check needs nothing of it.
    of_lightning = [
        base.__name__
        for base in type(callback).__mro__
        if base.__module__.split(".")[0] in ("pytorch_lightning", "lightning")
    ]
    if "Callback" not in of_lightning:
        kind = type(callback).__name__
        yield (
            f"callbacks.{name}: expected a pytorch_lightning Callback or an attnlab Recorder, "
            f"got a {kind}"
        )
    for refused in [base for base in of_lightning if base in REPLACED]:
        yield f"callbacks.{name}: attnlab has no use for {refused}; {REPLACED[refused]}"


def in_identity(callbacks: Mapping[str, Any], own: UserTargets) -> dict[str, Any]:
    """Return what of the callbacks is part of a run's identity: what changes its result."""
    cadence = {k: v for k, v in callbacks[CADENCE].items() if k not in Cadence.not_in_identity}
    others = {
        name: callbacks[name]
        for name in _entries(callbacks)
        if callbacks[name].get(IN_IDENTITY, True)
        and getattr(_target(callbacks[name], own), "in_identity", True)
    }
    return {CADENCE: cadence, EARLY_STOP: callbacks.get(EARLY_STOP), **others}


def _entries(callbacks: Mapping[str, Any]) -> list[str]:
    return [
        n for n, node in callbacks.items() if n not in (CADENCE, EARLY_STOP) and node is not None
    ]


def _is_recorder(node: Mapping[str, Any], own: UserTargets) -> bool:
    target = _target(node, own)
    return isclass(target) and issubclass(target, Recorder)


def _target(node: Mapping[str, Any], own: UserTargets) -> Any:
    return find_target(node["_target_"], "callbacks", own)
