"""Whether an answer hangs on where heads look: the looks of one input, set into its twin.

run = attnlab.load("pronoun-multihead")
twins = run.dataset.twins()             # of `pronoun`: A, and B with the other noun's adjective
for head in every_head(run.model):
    print(head, patch(run.subject, twins, [head]).effect)  # 0: as A; 1: as B
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnlab.interp.attention import (
    chosen_layers,
    edit_attention,
    record_patterns,
    require_heads,
)
from attnlab.interp.subject import Subject
from attnlab.layers import AttentionLayer, HeadRef
from attnlab.model.base import Model
from attnlab.split import IGNORE, Batch, Split


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
    subject: Subject,
    twins: tuple[Split, Split],
    chosen: Iterable[HeadRef],
    *,
    query_at: Callable[[Batch], Int[Tensor, " batch"]] | None = None,
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
    model, heads, parts = subject.model, list(chosen), []
    if len(twins[0]) != len(twins[1]):
        raise ValueError(f"{len(twins[0])} and {len(twins[1])} sequences cannot be pairs")
    with subject.observed():
        for (examples, one), (_, other) in zip(*map(subject.questions, twins), strict=True):
            _require_twins(one, other)
            rows = None if query_at is None else query_at(examples)
            before = _difference(model, one, one, other)
            with record_patterns(model) as source:
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
    chosen: Iterable[HeadRef],
    source: Mapping[AttentionLayer, Tensor],
    query_at: Int[Tensor, " batch"] | None = None,
) -> Iterator[None]:
    """Give chosen heads the patterns of another run, as `record_patterns` heard them.

    With `query_at`, only the row of one query of each sequence.
    """
    by_layer: dict[int, list[int]] = {}
    for head in chosen:
        by_layer.setdefault(head.layer, []).append(head.head)
    if not by_layer:
        yield
        return

    def change(layer: AttentionLayer, pattern: Tensor) -> Tensor | None:
        heads, theirs, changed = by_layer[layer.index], source[layer], pattern.clone()
        if theirs.shape != pattern.shape:
            raise ValueError(
                f"{layer.name}: a pattern of {tuple(theirs.shape)} has no place in one of "
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

    with edit_attention(model, "pattern", chosen_layers(model, by_layer), change):
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
