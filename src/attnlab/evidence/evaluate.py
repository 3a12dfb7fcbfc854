"""How good a model is on a split, without moving anything that training depends on."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from attnlab.dataset.base import IGNORE, Split
from attnlab.evidence.base import device_of, moved, undisturbed
from attnlab.objective.base import Objective
from attnlab.tap import Gauge, record, taps

Metric = Callable[[Tensor, Tensor], Tensor]
"""(logits, targets) to one number per label."""


def evaluate(
    model: nn.Module,
    objective: Objective,
    split: Split,
    metrics: Mapping[str, Metric],
    *,
    batch_size: int,
    precision: Callable[[], AbstractContextManager] = nullcontext,
    on_batch: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Mean loss (nats) and metrics over all labels of a split, and the model's own gauges.

    Runs the eager model without gradients, in evaluation mode, under a forked random state: a
    training run is bit-equal with and without it.
    """
    device = device_of(model)
    totals: dict[str, Tensor] = defaultdict(
        lambda: torch.zeros((), dtype=torch.float64, device=device)
    )
    count, examples = torch.zeros((), dtype=torch.float64, device=device), 0
    gauges = [name for name, tap in taps(model).items() if isinstance(tap, Gauge)]
    with undisturbed(model), torch.no_grad():
        for start in range(0, len(split), batch_size):
            index = np.arange(start, min(start + batch_size, len(split)))
            # Noise hangs on the example alone, so that every evaluation has the same.
            batch = split.batch(index)._replace(key=torch.from_numpy(index))
            asked = moved(objective.ask(batch), device)
            with ExitStack() as stack:
                stack.enter_context(precision())
                heard = [stack.enter_context(record(model, name)) for name in gauges]
                logits, _ = model(*asked.given)
            counted = asked.targets != IGNORE
            totals["loss"] += objective.loss(logits, asked.targets, "sum").double()
            for name, metric in metrics.items():
                totals[name] += (metric(logits, asked.targets) * counted).sum().double()
            count += counted.sum()
            for name, values in ((n, v) for gauge in heard for n, v in gauge.items()):
                for key, value in _spread(name, values):
                    totals[key] += value.double() * len(index)
            examples += len(index)
            on_batch()
    means = {
        name: total / (count if name == "loss" or name in metrics else examples)
        for name, total in totals.items()
    }
    return dict(zip(means, torch.stack(list(means.values())).tolist(), strict=True))


def _spread(name: str, values: Tensor) -> list[tuple[str, Tensor]]:
    """Give each number of a gauge a name of its own."""
    if values.ndim == 0:
        return [(name, values)]
    return [(f"{name}.{i}", value) for i, value in enumerate(values.flatten())]
