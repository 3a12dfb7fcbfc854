"""How good a model is on a split, without moving anything that training depends on."""

from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from attnlab.evaluation.slices import Slices
from attnlab.interp.observe import moved, undisturbed
from attnlab.interp.subject import Subject
from attnlab.metric.base import Metric, tally, total
from attnlab.split import IGNORE, Batch, Split
from attnlab.tap import record_gauges

Slicer = Callable[[Batch], Mapping[str, Tensor]]


def evaluate(
    subject: Subject,
    split: Split,
    metrics: Mapping[str, Metric],
    *,
    batch_size: int | None = None,
    slicer: Slicer | None = None,
) -> dict[str, float]:
    """Mean loss (nats) and metrics over all labels of a split, and the model's own gauges.

    No number depends on `batch_size`, but for what a batch shares by nature: the room of an expert
    with a capacity, and so its `drops`.

    With a `slicer` (a dataset's `slices`), metrics of one number stand beside them slice by slice;
    by label only where the objective asks for the labels of the dataset.

    Runs the eager model without gradients, in evaluation mode, under a forked random state: a
    training run is bit-equal with and without it.
    """
    model, objective, device = subject.model, subject.objective, subject.device
    totals: dict[str, Tensor] = defaultdict(
        lambda: torch.zeros((), dtype=torch.float64, device=device)
    )
    counts: dict[str, Tensor] = defaultdict(totals.default_factory)
    slices = Slices()
    with undisturbed(model), torch.no_grad():
        for examples, asked in subject.questions(split, batch_size=batch_size):
            # Losses and metrics are computed in a precision of their own.
            with subject.precision(), record_gauges(model) as readings:
                logits, _ = model(*asked.given)
            totals["loss"] += objective.loss(logits, asked.targets, "sum").double()
            counts["loss"] += (asked.targets != IGNORE).sum()
            for name, metric in metrics.items():
                sums, count = tally(metric, logits, asked.targets)
                totals[name] = totals[name] + sums.double()
                counts[name] += count
            if slicer is not None:
                _slice(slices, slicer, examples, asked.targets, metrics, logits)
            for name, (values, count) in readings.items():
                for key, value in _spread(name, values):
                    totals[key] += value.double() * count
                    counts[key] += count
    means = {
        name: total(metrics[name], sums, counts[name]) if name in metrics else sums / counts[name]
        for name, sums in totals.items()
    }
    numbers = torch.stack(list(means.values())).tolist()
    return dict(zip(means, numbers, strict=True)) | slices.means()


def _slice(
    slices: Slices,
    slicer: Slicer,
    examples: Batch,
    targets: Tensor,
    metrics: Mapping[str, Metric],
    logits: Tensor,
) -> None:
    """Keep a batch's metrics by slice: by label where the labels are those of the dataset."""
    examples = moved(examples, torch.device("cpu"))
    same = torch.equal(examples.targets, targets.cpu())
    by = {name: where for name, where in slicer(examples).items() if same or where.ndim == 1}
    for name, metric in metrics.items():
        values = metric(logits, targets).cpu()
        counted = targets.cpu() != IGNORE
        if values.ndim <= 2:
            slices.add(by, name, values, counted if values.ndim == 2 else counted.any(dim=1))


def _spread(name: str, values: Tensor) -> list[tuple[str, Tensor]]:
    """Give each number of a gauge a name of its own."""
    if values.ndim == 0:
        return [(name, values)]
    return [(f"{name}.{i}", value) for i, value in enumerate(values.flatten())]
