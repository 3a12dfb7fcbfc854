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
from attnlab.signatures import partial_faults

CADENCE, EARLY_STOP = "cadence", "early_stop"
"""The entries that attnlab itself asks."""
IN_IDENTITY = "_in_identity_"
"""A directive: false says that a callback changes nothing that is trained or measured."""
WRITTEN_IN_TRAINING = ("train", "validation", "test", "evidence")
"""The tables that no entry writes."""
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


def recorder_names(callbacks: Mapping[str, Any], user_targets: UserTargets) -> list[str]:
    """Return the names of the entries that record something, in the order of the config."""
    return [name for name in _entry_names(callbacks) if _is_recorder(callbacks[name], user_targets)]


def build_recorders(config: Config, subject: Subject) -> list[Recorder]:
    """Build what records something of a subject, in the order of the config."""
    names = recorder_names(config.values["callbacks"], config.user_targets)
    return [config.build(f"callbacks.{name}")(subject) for name in names]


def lightning_callback_names(callbacks: Mapping[str, Any], user_targets: UserTargets) -> list[str]:
    """Return the names of the entries that Lightning is given, in the order of the config."""
    return [
        name for name in _entry_names(callbacks) if not _is_recorder(callbacks[name], user_targets)
    ]


def recorder_faults(callbacks: Mapping[str, Any], user_targets: UserTargets) -> Iterator[str]:
    """Yield which recorders cannot be built, or would write the same table."""
    name_by_table: dict[str, str] = {}
    for name in recorder_names(callbacks, user_targets):
        yield from partial_faults(callbacks[name], f"callbacks.{name}", is_called_later=True)
        table = getattr(_find_entry_target(callbacks[name], user_targets), "table", None)
        if table is None:
            yield f"callbacks.{name}: its class must name the `table` that it writes"
        elif not isinstance(table, str) or not re.fullmatch(r"[a-z]\w*", table):
            yield (
                f"callbacks.{name}: its table {table!r} is no name; expected lower-case letters, "
                "digits and _"
            )
        elif table in WRITTEN_IN_TRAINING:
            yield f"callbacks.{name}: training itself writes the table {table}; name another"
        elif table in name_by_table:
            yield f"callbacks.{name}: callbacks.{name_by_table[table]} records {table} already"
        else:
            name_by_table[table] = name


def lightning_faults(name: str, callback: Any) -> Iterator[str]:
    """Yield why something cannot be given to Lightning as a callback."""
    # Lightning itself takes seconds to import, and a check needs nothing of it.
    lightning_bases = [
        base.__name__
        for base in type(callback).__mro__
        if base.__module__.split(".")[0] in ("pytorch_lightning", "lightning")
    ]
    if "Callback" not in lightning_bases:
        kind = type(callback).__name__
        yield (
            f"callbacks.{name}: expected a pytorch_lightning Callback or an attnlab Recorder, "
            f"got a {kind}"
        )
    for replaced_base in [base for base in lightning_bases if base in REPLACED]:
        yield f"callbacks.{name}: attnlab has no use for {replaced_base}; {REPLACED[replaced_base]}"


def callbacks_in_identity(
    callbacks: Mapping[str, Any], user_targets: UserTargets
) -> dict[str, Any]:
    """Return what of the callbacks is part of a run's identity: what changes its result."""
    cadence_knobs = {
        k: v for k, v in callbacks[CADENCE].items() if k not in Cadence.not_in_identity
    }
    other_callbacks = {
        name: callbacks[name]
        for name in _entry_names(callbacks)
        if callbacks[name].get(IN_IDENTITY, True)
        and getattr(_find_entry_target(callbacks[name], user_targets), "in_identity", True)
    }
    return {CADENCE: cadence_knobs, EARLY_STOP: callbacks.get(EARLY_STOP), **other_callbacks}


def _entry_names(callbacks: Mapping[str, Any]) -> list[str]:
    return [
        n for n, node in callbacks.items() if n not in (CADENCE, EARLY_STOP) and node is not None
    ]


def _is_recorder(node: Mapping[str, Any], user_targets: UserTargets) -> bool:
    target = _find_entry_target(node, user_targets)
    return isclass(target) and issubclass(target, Recorder)


def _find_entry_target(node: Mapping[str, Any], user_targets: UserTargets) -> Any:
    return find_target(node["_target_"], "callbacks", user_targets)
