"""Evaluate a model on a split, without changing anything that training depends on."""

from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from attnlab.evaluation.slices import Slices
from attnlab.interp.observe import isolated_evaluation, to_device
from attnlab.interp.subject import Subject
from attnlab.metric.base import Metric, finish_metric, tally
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
    """Compute mean loss (nats) and metrics over all labels of a split, and the model's gauges.

    No number depends on `batch_size`, except what the tokens of a batch share: the capacity of an
    expert, and so its `drops`.

    With a `slicer` (a dataset's `slices`), scalar metrics are also returned for each slice; slices
    by label need an objective whose labels are those of the dataset.

    Runs the eager model without gradients, in evaluation mode, under a forked random state: a
    training run is bit-equal with and without it.
    """
    model, objective, device = subject.model, subject.objective, subject.device
    totals: dict[str, Tensor] = defaultdict(
        lambda: torch.zeros((), dtype=torch.float64, device=device)
    )
    counts: dict[str, Tensor] = defaultdict(totals.default_factory)
    slices = Slices()
    with isolated_evaluation(model), torch.no_grad():
        for examples, model_batch in subject.paired_batches(split, batch_size=batch_size):
            # Losses and metrics are computed in a precision of their own.
            with subject.precision(), record_gauges(model) as readings:
                logits, _ = model(*model_batch.model_inputs)
            totals["loss"] += objective.loss(logits, model_batch.targets, "sum").double()
            counts["loss"] += (model_batch.targets != IGNORE).sum()
            for name, metric in metrics.items():
                sums, count = tally(metric, logits, model_batch.targets)
                totals[name] = totals[name] + sums.double()
                counts[name] += count
            if slicer is not None:
                _add_slices(slices, slicer, examples, model_batch.targets, metrics, logits)
            for gauge_name, (values, count) in readings.items():
                for scalar_name, scalar in _name_scalars(gauge_name, values):
                    totals[scalar_name] += scalar.double() * count
                    counts[scalar_name] += count
    mean_by_name = {
        name: finish_metric(metrics[name], sums, counts[name])
        if name in metrics
        else sums / counts[name]
        for name, sums in totals.items()
    }
    means = torch.stack(list(mean_by_name.values())).tolist()
    return dict(zip(mean_by_name, means, strict=True)) | slices.mean_by_slice()


def evaluate_in_full(
    subject: Subject, split: str, metrics: Mapping[str, Metric]
) -> dict[str, float]:
    """Return the numbers of `evaluate` on a split, with slices and the objective's derived ones."""
    dataset, objective = subject.dataset, subject.objective
    values = evaluate(subject, dataset.splits[split], metrics, slicer=dataset.slices)
    return values | objective.derived_metrics(split, values["loss"])


def _add_slices(
    slices: Slices,
    slicer: Slicer,
    examples: Batch,
    targets: Tensor,
    metrics: Mapping[str, Metric],
    logits: Tensor,
) -> None:
    """Add a batch's metrics to slices; slices by label need the labels of the dataset."""
    examples = to_device(examples, torch.device("cpu"))
    same_labels = torch.equal(examples.targets, targets.cpu())
    slice_keys = {
        name: keys for name, keys in slicer(examples).items() if same_labels or keys.ndim == 1
    }
    for name, metric in metrics.items():
        values = metric(logits, targets).cpu()
        counted = targets.cpu() != IGNORE
        if values.ndim <= 2:
            slices.add(
                slice_keys, name, values, counted if values.ndim == 2 else counted.any(dim=1)
            )


def _name_scalars(gauge_name: str, values: Tensor) -> list[tuple[str, Tensor]]:
    """Return each number of a gauge with a name of its own."""
    if values.ndim == 0:
        return [(gauge_name, values)]
    return [(f"{gauge_name}.{index}", value) for index, value in enumerate(values.flatten())]
