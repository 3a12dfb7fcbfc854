"""Activation patching of attention: the patterns of one input, set into its twin.

run = attnlab.load("pronoun-multihead")
pairs = run.dataset.contrast_pairs()    # of `pronoun`: A, and B with the other noun's adjective
for head in all_heads(run.model):
    print(head, patch(run.subject, pairs, [head]).normalised_effect)  # 0: as A; 1: as B
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnlab.interp.attention_taps import (
    edit_attention,
    head_indices,
    record_patterns,
    select_layers,
)
from attnlab.interp.subject import Subject
from attnlab.layers import AttentionLayer, HeadRef
from attnlab.model.base import Model
from attnlab.split import IGNORE, Batch, Split


class Patched(NamedTuple):
    """Logit differences of twins: the logit of A's answer minus that of B's, for each label."""

    original: Float[Tensor, " label"]
    """With input A."""
    counterpart: Float[Tensor, " label"]
    """With input B."""
    patched: Float[Tensor, " label"]
    """With input A, where the patched heads have their patterns on B."""

    @property
    def normalised_effect(self) -> float:
        """How far the mean difference moved from that of A (0) to that of B (1).

        It may lie outside. It is a ratio of means, since a single pair with nearly equal answers
        could dominate a mean of ratios. Raises ValueError where A and B have the same mean
        difference, so that the ratio is undefined.
        """
        total_change = (self.counterpart - self.original).mean()
        if total_change == 0:
            raise ValueError("the model answers both twins alike; there is no effect to share out")
        return float((self.patched - self.original).mean() / total_change)


def patch(
    subject: Subject,
    pairs: tuple[Split, Split],
    patched_heads: Iterable[HeadRef],
    *,
    query_at: Callable[[Batch], Int[Tensor, " batch"]] | None = None,
) -> Patched:
    """Run each A with the patterns that some heads have on its twin B.

    Attention is the mediator that is swapped, as by Vig et al. (2020); the outcome is the logit
    difference of Wang et al. (2022). Values are those of A, and the other heads are free to react
    to what the swap changes below them. Swapping scores would have the same effect, since patterns
    are their softmax.

    Twins must have the same length and label positions, and differ in an answer; labels that do not
    differ are left out. With `query_at`, only the row of one query of each sequence is swapped:
    `lambda batch: batch.at[:, 0]` is "it" in `pronoun`. Raises ValueError for inputs that are no
    contrast pairs, LookupError for a layer that the model lacks, IndexError for a head that it
    lacks.
    """
    model, heads, differences_by_batch = subject.model, list(patched_heads), []
    if len(pairs[0]) != len(pairs[1]):
        raise ValueError(f"{len(pairs[0])} and {len(pairs[1])} sequences cannot be pairs")
    with subject.observed():
        for (examples, batch), (_, twin_batch) in zip(
            *map(subject.paired_batches, pairs), strict=True
        ):
            _require_contrast_pair(batch, twin_batch)
            query_positions = None if query_at is None else query_at(examples)
            original_difference = _logit_difference(model, batch, batch, twin_batch)
            with record_patterns(model) as twin_patterns:
                twin_difference = _logit_difference(model, twin_batch, batch, twin_batch)
            with patch_patterns(model, heads, twin_patterns, query_positions):
                patched_difference = _logit_difference(model, batch, batch, twin_batch)
            differences_by_batch.append(
                torch.stack([original_difference, twin_difference, patched_difference]).cpu()
            )
    differences = (
        torch.cat(differences_by_batch, dim=1) if differences_by_batch else torch.empty(3, 0)
    )
    if not differences.shape[1]:
        raise ValueError("these twins have no answer in which they differ")
    return Patched(*differences)


@contextmanager
def patch_patterns(
    model: Model,
    patched_heads: Iterable[HeadRef],
    source_patterns: Mapping[AttentionLayer, Tensor],
    query_at: Int[Tensor, " batch"] | None = None,
) -> Iterator[None]:
    """Replace the patterns of some heads by those of another pass, from `record_patterns`.

    With `query_at`, only the row of one query of each sequence.
    """
    heads_by_layer: dict[int, list[int]] = {}
    for head in patched_heads:
        heads_by_layer.setdefault(head.layer, []).append(head.head)
    if not heads_by_layer:
        yield
        return

    def replace_pattern(layer: AttentionLayer, pattern: Tensor) -> Tensor | None:
        heads, source_pattern = heads_by_layer[layer.index], source_patterns[layer]
        patched_pattern = pattern.clone()
        if source_pattern.shape != pattern.shape:
            raise ValueError(
                f"{layer.name}: a pattern of {tuple(source_pattern.shape)} has no place in one of "
                f"{tuple(pattern.shape)}"
            )
        head_indices(pattern, heads)
        if query_at is None:
            patched_pattern[:, heads] = source_pattern[:, heads].to(pattern)
            return patched_pattern
        sequence_index = torch.arange(len(pattern), device=pattern.device)[:, None]
        head_index = torch.tensor(heads, device=pattern.device)
        edited_rows = (sequence_index, head_index, query_at.to(sequence_index)[:, None])
        patched_pattern[edited_rows] = source_pattern[edited_rows].to(pattern)
        return patched_pattern

    with edit_attention(model, "pattern", select_layers(model, heads_by_layer), replace_pattern):
        yield


def _require_contrast_pair(batch: Batch, twin_batch: Batch) -> None:
    """Raise ValueError for batches that differ in lengths, padding or label positions."""
    for field_name in ("at", "valid", "prefix_valid"):
        field, twin_field = getattr(batch, field_name), getattr(twin_batch, field_name)
        if (field is None) != (twin_field is None) or (
            field is not None and not torch.equal(field, twin_field)
        ):
            raise ValueError(f"these sequences are no twins: they differ in `{field_name}`")
    if (
        batch.inputs.shape != twin_batch.inputs.shape
        or batch.targets.shape != twin_batch.targets.shape
    ):
        raise ValueError("these sequences are no twins: they differ in length or in their labels")


def _logit_difference(
    model: Model, input_batch: Batch, batch: Batch, twin_batch: Batch
) -> Float[Tensor, " label"]:
    """Return the logit of the batch's answer minus that of the twin's, where the two differ."""
    logits, _ = model(*input_batch.model_inputs)
    differs = (
        (batch.targets != twin_batch.targets)
        & (batch.targets != IGNORE)
        & (twin_batch.targets != IGNORE)
    )
    differing_logits = logits[differs].double()
    answer_logits, twin_answer_logits = (
        differing_logits.gather(1, labelled_batch.targets[differs][:, None])[:, 0]
        for labelled_batch in (batch, twin_batch)
    )
    return answer_logits - twin_answer_logits
