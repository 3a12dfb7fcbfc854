"""Lightning callbacks of the user's own, beside those that attnlab itself asks."""

from collections.abc import Iterator, Mapping
from typing import Any

OURS = ("clock", "early_stop", "recorder", "statistics", "vectors")
"""What attnlab builds of `callbacks`, each with its wiring."""
IN_IDENTITY = "_in_identity_"
"""A directive: false says that a callback changes nothing that is trained or measured."""
REPLACED = {
    "BatchSizeFinder": "batch_size is part of what is compared",
    "Checkpoint": "callbacks.clock.checkpoint_every says when the run is saved",
    "EarlyStopping": "callbacks=early_stop ends a run",
    "GradientAccumulationScheduler": "trainer.accumulate_grad_batches adds gradients up",
    "LearningRateFinder": "optimizer.lr=1e-3,2e-3 with -m tries several",
    "LearningRateMonitor": "the learning rate is in every row of the record",
    "ModelSummary": "the record has the parameters, and `attnlab bench` the costs",
    "ProgressBar": "attnlab shows a bar of its own",
    "StochasticWeightAveraging": "it counts epochs, and attnlab steps; WeightAveraging does too",
}
"""Callbacks of Lightning that would do what attnlab does, and what to do instead."""


def own_callbacks(callbacks: Mapping[str, Any]) -> list[str]:
    """Return the names of the Lightning callbacks in a config, in its order."""
    return [name for name, node in callbacks.items() if name not in OURS and node is not None]


def callback_faults(name: str, callback: Any) -> Iterator[str]:
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
            f"callbacks.{name}: expected a pytorch_lightning Callback, got a {kind}; of attnlab's "
            f"own there are {', '.join(OURS)}"
        )
    for refused in [base for base in of_lightning if base in REPLACED]:
        yield f"callbacks.{name}: attnlab has no use for {refused}; {REPLACED[refused]}"


def without_inert(callbacks: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of the callbacks is part of a run's identity."""
    return {
        name: node
        for name, node in callbacks.items()
        if not isinstance(node, Mapping) or node.get(IN_IDENTITY, True)
    }
