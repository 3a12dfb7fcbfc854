"""Whether an answer hangs on where heads look: the looks of one input, set into its twin.

run = attnlab.load("pronoun-multihead")
twins = run.dataset.twins()             # of `pronoun`: A, and B with the other noun's adjective
for head in every_head(run.model):
    print(head, patch(run.model, run.objective, twins, [head]).effect)  # 0: as A; 1: as B
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnlab.evidence.base import device_of, moved, undisturbed
from attnlab.evidence.intervene import Head, named, require_heads
from attnlab.model.base import Model
from attnlab.objective.base import Objective
from attnlab.split import IGNORE, Batch, Split
from attnlab.tap import edit, record

BATCH = 256


class Patched(NamedTuple):
    """Logit differences of twins: the logit of A's answer less that of B's, label by label."""

    one: Float[Tensor, " label"]
    """With input A."""
    other: Float[Tensor, " label"]
    """With input B."""
    patched: Float[Tensor, " label"]
    """With input A, where the chosen heads look as with B."""

    @property
    def effect(self) -> float:
        """How far the mean difference went from that of A (0) to that of B (1).

        It may lie outside. The ratio is of means, for one pair that is answered nearly alike could
        make a mean of ratios anything. Raises ValueError where the mean difference of both is the
        same, so that there is no way to go.
        """
        way = (self.other - self.one).mean()
        if way == 0:
            raise ValueError("the model answers both twins alike; there is no effect to share out")
        return float((self.patched - self.one).mean() / way)


def patch(
    model: Model,
    objective: Objective,
    twins: tuple[Split, Split],
    chosen: Iterable[Head],
    *,
    query_at: Callable[[Batch], Int[Tensor, " batch"]] | None = None,
    precision: Callable[[], AbstractContextManager] = nullcontext,
) -> Patched:
    """Run each A with the patterns that chosen heads have on its twin B.

    Attention is the mediator that is swapped, as by Vig et al. (2020); what is told is the logit
    difference of Wang et al. (2022). Values are read of A, and the other heads are free to answer
    what the swap changes below them. Swapped scores would do the same: patterns are their
    softmax.

    Twins must have the same length, be asked at the same places, and differ in an answer; labels
    that do not differ are left out. With `query_at`, only the row of one query of each sequence is
    swapped: `lambda batch: batch.at[:, 0]` is "it" in `pronoun`. Raises ValueError for what are no
    twins, LookupError for a layer, IndexError for a head that is not there.
    """
    heads, parts = list(chosen), []
    if len(twins[0]) != len(twins[1]):
        raise ValueError(f"{len(twins[0])} and {len(twins[1])} sequences cannot be pairs")
    with undisturbed(model), torch.no_grad():
        for start in range(0, len(twins[0]), BATCH):
            pair = [moved(side[start : start + BATCH], device_of(model)) for side in twins]
            one, other = map(objective.ask, pair)
            _require_twins(one, other)
            rows = None if query_at is None else query_at(pair[0])
            with precision():
                before = _difference(model, one, one, other)
                with record(model, "*.pattern") as source:
                    after = _difference(model, other, one, other)
                with looking(model, heads, source, rows):
                    changed = _difference(model, one, one, other)
            parts.append(torch.stack([before, after, changed]).cpu())
    found = torch.cat(parts, dim=1) if parts else torch.empty(3, 0)
    if not found.shape[1]:
        raise ValueError("these twins have no answer in which they differ")
    return Patched(*found)


@contextmanager
def looking(
    model: Model,
    chosen: Iterable[Head],
    source: Mapping[str, Tensor],
    query_at: Int[Tensor, " batch"] | None = None,
) -> Iterator[None]:
    """Give chosen heads the patterns of another run, as `record` heard them.

    With `query_at`, only the row of one query of each sequence.
    """
    by_layer: dict[int, list[int]] = {}
    for layer, head in chosen:
        by_layer.setdefault(layer, []).append(head)
    if not by_layer:
        yield
        return
    names = named(model, by_layer, "pattern")

    def change(name: str, pattern: Tensor) -> Tensor | None:
        if name not in names:
            return None
        heads, theirs, changed = by_layer[names[name]], source[name], pattern.clone()
        if theirs.shape != pattern.shape:
            raise ValueError(
                f"{name}: a pattern of {tuple(theirs.shape)} has no place in one of "
                f"{tuple(pattern.shape)}"
            )
        require_heads(pattern, heads)
        if query_at is None:
            changed[:, heads] = theirs[:, heads].to(pattern)
            return changed
        batch = torch.arange(len(pattern), device=pattern.device)[:, None]
        at = (batch, torch.tensor(heads, device=pattern.device), query_at.to(batch)[:, None])
        changed[at] = theirs[at].to(pattern)
        return changed

    with edit(model, "*.pattern", change):
        yield


def _require_twins(one: Batch, other: Batch) -> None:
    for name in ("at", "valid", "prefix_valid"):
        a, b = getattr(one, name), getattr(other, name)
        if (a is None) != (b is None) or (a is not None and not torch.equal(a, b)):
            raise ValueError(f"these sequences are no twins: they differ in `{name}`")
    if one.inputs.shape != other.inputs.shape or one.targets.shape != other.targets.shape:
        raise ValueError("these sequences are no twins: they differ in length or in their labels")


def _difference(model: Model, asked: Batch, one: Batch, other: Batch) -> Float[Tensor, " label"]:
    """Take the logit of one twin's answer less that of the other's, where these differ."""
    logits, _ = model(*asked.given)
    differ = (one.targets != other.targets) & (one.targets != IGNORE) & (other.targets != IGNORE)
    theirs = logits[differ].double()
    right, wrong = (theirs.gather(1, side.targets[differ][:, None])[:, 0] for side in (one, other))
    return right - wrong
