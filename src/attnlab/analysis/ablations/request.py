"""What every ablation is asked: of which heads, by which method, and in which metric."""

from collections.abc import Sequence

from attnlab.errors import RequestError
from attnlab.interp.attention import every_head
from attnlab.interp.interventions import Means, mean_patterns
from attnlab.layers import HeadRef
from attnlab.loaded_run import LoadedRun

METHODS = ("zero", "mean")
"""A head passes nothing on, or has its mean pattern over the split."""


def require_heads(loaded_run: LoadedRun, heads: Sequence[HeadRef] | None = None) -> list[HeadRef]:
    """Return the heads that are meant (None: all), each once.

    Raises RequestError for one that is not there, and for a model that has none.
    """
    existing, name = every_head(loaded_run.model), loaded_run.record.name
    if not existing:
        raise RequestError(f"{name} has no attention heads: there is none to ablate")
    if missing := [head for head in heads or () if head not in existing]:
        raise RequestError(
            f"{', '.join(map(str, missing))}: {name} has heads from {existing[0]} to {existing[-1]}"
        )
    return existing if heads is None else list(dict.fromkeys(heads))


def layer_names(loaded_run: LoadedRun) -> list[str]:
    """Return what each attention layer is called in the answers: the path of its module."""
    return [layer.path for layer in loaded_run.model.attention_layers()]


def chosen_metric(
    loaded_run: LoadedRun, split: str, metric: str | None
) -> tuple[str, dict[str, float]]:
    """Return the metric that is meant (None: the main one of the data), and all on a split.

    Raises RequestError for a split or a metric that is not there.
    """
    values, metric = loaded_run.evaluate(split), metric or loaded_run.dataset.headline
    if metric not in values:
        raise RequestError(f"there is no metric {metric!r}; there are {', '.join(values)}")
    return metric, values


def reference_means(loaded_run: LoadedRun, split: str, method: str) -> Means | None:
    """Return the mean patterns over a split, where the method asks for them."""
    require_choice("method", method, METHODS)
    if method == "zero":
        return None
    return mean_patterns(loaded_run.subject, loaded_run.dataset.splits[split])


def require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise RequestError for a value that is none of the choices."""
    if value not in choices:
        raise RequestError(f"{name} {value}: expected one of {', '.join(choices)}")
