"""Checks and defaults of every ablation request: heads, method and metric."""

from collections.abc import Sequence

from attnlab.errors import RequestError
from attnlab.interp.attention_taps import all_heads
from attnlab.interp.interventions import MeanPatterns, mean_patterns
from attnlab.layers import HeadRef
from attnlab.loaded_run import LoadedRun

METHODS = ("zero", "mean")
"""A head outputs 0, or has its mean pattern over the split."""


def require_heads(loaded_run: LoadedRun, heads: Sequence[HeadRef] | None = None) -> list[HeadRef]:
    """Return the requested heads (None: all), each once.

    Raises RequestError for a head that does not exist, and for a model without attention heads.
    """
    existing_heads, name = all_heads(loaded_run.model), loaded_run.record.name
    if not existing_heads:
        raise RequestError(f"{name} has no attention heads: there is none to ablate")
    missing_heads = [head for head in heads or () if head not in existing_heads]
    if missing_heads:
        raise RequestError(
            f"{', '.join(map(str, missing_heads))}: {name} has heads from {existing_heads[0]} to "
            f"{existing_heads[-1]}"
        )
    return existing_heads if heads is None else list(dict.fromkeys(heads))


def layer_names(loaded_run: LoadedRun) -> list[str]:
    """Return the name of each attention layer in reports: the path of its module."""
    return [layer.path for layer in loaded_run.model.attention_layers()]


def evaluate_requested_metric(
    loaded_run: LoadedRun, split: str, metric: str | None
) -> tuple[str, dict[str, float]]:
    """Return the name of the requested metric (None: the dataset's main one) and all metrics.

    The metrics are those of a split. Raises RequestError for an unknown split or metric.
    """
    value_by_metric = loaded_run.evaluate(split)
    metric = metric or loaded_run.dataset.headline
    if metric not in value_by_metric:
        raise RequestError(f"there is no metric {metric!r}; there are {', '.join(value_by_metric)}")
    return metric, value_by_metric


def mean_patterns_of_method(loaded_run: LoadedRun, split: str, method: str) -> MeanPatterns | None:
    """Return the mean patterns over a split for the method "mean"; None for "zero"."""
    require_choice("method", method, METHODS)
    if method == "zero":
        return None
    return mean_patterns(loaded_run.subject, loaded_run.dataset.splits[split])


def require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise RequestError for a value that is not among the choices."""
    if value not in choices:
        raise RequestError(f"{name} {value}: expected one of {', '.join(choices)}")
