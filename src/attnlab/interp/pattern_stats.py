"""Statistics of the rows of attention patterns: one number for each query.

Every function takes rows of any queries of a sequence, so a long sequence can be read in parts.
`query_at` are the positions of those queries; keys are at 0, 1, ... A row sums to 1 and has no
weight on padding. Numbers are float32.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

Pattern = Float[Tensor, "batch head query key"]
Values = Float[Tensor, "batch head query"]


LOWEST = -100.0
"""Stands for log 0, so that 0 log 0 is 0; below the logarithm of any normal float32 above 0."""
SINKS = 4
"""The number of first tokens that form a sink (Xiao et al. 2024)."""


@dataclass(frozen=True, eq=False)
class PatternRows:
    """Rows of a layer's patterns, all or part of them, with their positions and tokens.

    `query_at` and `tokens` are None where queries and keys are of two sequences.
    """

    pattern: Float[Tensor, "batch head query key"]
    counted: Bool[Tensor, "batch query"]
    """False where a query is padding."""
    valid: Bool[Tensor, "batch key"]
    query_at: Int[Tensor, " query"] | None = None
    tokens: Int[Tensor, "batch key"] | None = None
    causal: bool = False
    window: int | None = None
    documents: Int[Tensor, "batch key"] | None = None
    """The number of each key's document, where no query sees those of others."""

    def split_queries(self, size: int) -> Iterator["PatternRows"]:
        """Yield the rows of `size` queries at a time."""
        for start in range(0, self.pattern.shape[2], size):
            queries = slice(start, start + size)
            yield replace(
                self,
                pattern=self.pattern[:, :, queries],
                counted=self.counted[:, queries],
                query_at=None if self.query_at is None else self.query_at[queries],
            )


class RowMeasure(NamedTuple):
    """A number for each query, and the queries for which it is defined."""

    values: Float[Tensor, "batch head query"]
    counted: Bool[Tensor, "batch query"]


def measure_rows(rows: PatternRows) -> dict[str, RowMeasure]:
    """Compute the measures of each row.

    Always `entropy` (nats), `normalised_entropy`, `effective_keys` and `confidence`. Within one
    sequence also `distance` (tokens), the shares of the `previous`, `current`, `next` and `first`
    token, and `sink`, the share of the first four tokens for queries after them. With tokens also
    the scores `duplicate_token`, `induction` and `prefix_matching`, the last over queries with a
    key that follows an earlier occurrence of their token.
    """
    pattern, counted, query_positions = rows.pattern, rows.counted, rows.query_at
    nats = entropy(pattern)
    num_visible = count_visible_keys(
        *(query_positions, rows.valid, pattern.shape[2], rows.causal, rows.window, rows.documents)
    )
    measures = {
        "entropy": RowMeasure(nats, counted),
        "normalised_entropy": RowMeasure(
            normalised_entropy(nats, num_visible), counted & (num_visible > 1)
        ),
        "effective_keys": RowMeasure(effective_keys(nats), counted),
        "confidence": RowMeasure(confidence(pattern), counted),
    }
    if query_positions is None:
        return measures
    measures["distance"] = RowMeasure(mean_distance(pattern, query_positions), counted)
    for name, offset in (("previous", -1), ("current", 0), ("next", 1)):
        measures[name] = RowMeasure(weight_at_offset(pattern, query_positions, offset), counted)
    measures["first"] = RowMeasure(weight_on_first_keys(pattern), counted)
    measures["sink"] = RowMeasure(
        weight_on_first_keys(pattern, SINKS), counted & (query_positions >= SINKS)
    )
    if rows.tokens is None:
        return measures
    is_successor = successor_keys(rows.tokens, query_positions)
    successor_mass = weight_on_keys(pattern, is_successor)
    measures["duplicate_token"] = RowMeasure(
        weight_on_keys(pattern, duplicate_keys(rows.tokens, query_positions)), counted
    )
    measures["induction"] = RowMeasure(successor_mass, counted)
    measures["prefix_matching"] = RowMeasure(successor_mass, counted & is_successor.any(dim=-1))
    return measures


def entropy(pattern: Pattern) -> Values:
    """Return -sum_k p_k log p_k, in nats (Clark et al. 2019, sec. 3.3; Ghader & Monz 2017).

    0 if one key has all weight, log n if n keys have equal weight.
    """
    return torch.special.entr(pattern.float()).sum(dim=-1)


def normalised_entropy(nats: Values, num_visible: Int[Tensor, "batch query"]) -> Values:
    """Return the entropy (nats) over the log of the number of visible keys, 0 to 1 (Pielou 1966).

    0 where one key or none is visible, which means nothing: leave such queries out of a mean.
    """
    largest_entropy = rearrange(num_visible.clamp(min=2).float().log(), "b q -> b 1 q")
    return nats / largest_entropy


def effective_keys(nats: Values) -> Values:
    """Return exp(entropy), the number of equally weighted keys with this entropy (Hill 1973)."""
    return nats.exp()


def confidence(pattern: Pattern) -> Values:
    """Return the largest weight, 0 to 1 (Voita et al. 2019, who leave out the last token)."""
    return pattern.float().amax(dim=-1)


def mean_distance(pattern: Pattern, query_at: Int[Tensor, " query"]) -> Values:
    """Return the mean distance to the keys, sum_k p_k |query - key|, in tokens.

    As Vig & Belinkov (2019), who divide by the sum of the weights, which is 1 for each query.
    """
    key_positions = torch.arange(pattern.shape[-1], device=pattern.device)
    distances = (query_at[:, None] - key_positions).abs().float()
    return (pattern.float() * distances).sum(dim=-1)


def weight_at_offset(pattern: Pattern, query_at: Int[Tensor, " query"], offset: int) -> Values:
    """Return the weight of the key `offset` positions after the query; 0 if there is no such key.

    -1 is the previous token, 0 the current and 1 the next one (Clark et al. 2019, sec. 3.1). Its
    mean for -1 over all queries, the first included, is TransformerLens' score of a previous-token
    head (`head_detector`, measure "mul").
    """
    key_positions = query_at + offset
    exists = (key_positions >= 0) & (key_positions < pattern.shape[-1])
    queries = torch.arange(len(key_positions), device=key_positions.device)
    weights = pattern[:, :, queries, key_positions.clamp(0, pattern.shape[-1] - 1)].float()
    return weights.masked_fill(~exists, 0)


def weight_on_first_keys(pattern: Pattern, count: int = 1) -> Values:
    """Return the weight of the first `count` keys, 0 to 1.

    For one key, Gu et al. (2025) call the key a sink if the mean over all queries is above .3. Xiao
    et al. (2024) keep a sink of four keys; the measure means nothing for queries among them.
    """
    return pattern[..., :count].float().sum(dim=-1)


def weight_on_keys(pattern: Pattern, keys: Bool[Tensor, "batch query key"]) -> Values:
    """Return the total weight on `keys`, 0 to 1."""
    return (pattern.float() * rearrange(keys, "b q k -> b 1 q k")).sum(dim=-1)


def duplicate_keys(
    tokens: Int[Tensor, "batch key"], query_at: Int[Tensor, " query"]
) -> Bool[Tensor, "batch query key"]:
    """Return which keys are earlier occurrences of the query's own token.

    The mean of `weight_on_keys` over all queries is TransformerLens' score of a duplicate-token
    head (`head_detector`, measure "mul"; Wang et al. 2023, sec. 3).
    """
    key_positions = torch.arange(tokens.shape[1], device=tokens.device)
    same_token = tokens[:, query_at, None] == rearrange(tokens, "b k -> b 1 k")
    return same_token & (key_positions < query_at[:, None])


def successor_keys(
    tokens: Int[Tensor, "batch key"], query_at: Int[Tensor, " query"]
) -> Bool[Tensor, "batch query key"]:
    """Return which keys directly follow an earlier occurrence of the query's token (maybe itself).

    The mean of `weight_on_keys` over all queries is TransformerLens' score of an induction head
    (`head_detector`, measure "mul"). Over those that have such a key, on repeated random tokens, it
    is the prefix-matching score of Olsson et al. (2022).
    """
    return F.pad(duplicate_keys(tokens, query_at)[..., :-1], (1, 0))


def count_visible_keys(
    query_at: Int[Tensor, " query"] | None,
    valid: Bool[Tensor, "batch key"],
    num_queries: int,
    causal: bool,
    window: int | None = None,
    documents: Int[Tensor, "batch key"] | None = None,
) -> Int[Tensor, "batch query"]:
    """Count the keys that each query may attend to: no padding, no future, none beyond the window.

    A window counts as in `Attend`; with `documents`, keys of others than the query's are hidden.
    Queries without positions (None) read another sequence.
    """
    if query_at is None:
        return valid.sum(dim=1, keepdim=True).expand(-1, num_queries)
    offset = torch.arange(valid.shape[1], device=valid.device) - query_at[:, None]
    is_visible = offset <= 0 if causal else torch.ones_like(offset, dtype=torch.bool)
    if window is not None:
        is_visible &= offset.abs() < window
    is_visible = rearrange(valid, "b k -> b 1 k") & is_visible
    if documents is not None:
        query_documents = rearrange(documents[:, query_at], "b q -> b q 1")
        is_visible &= query_documents == rearrange(documents, "b k -> b 1 k")
    return is_visible.sum(dim=-1)


def jensen_shannon(p: Float[Tensor, "*#row key"], q: Float[Tensor, "*#row key"]) -> Tensor:
    """Return the divergence of rows p and q in nats: 0 if equal, log 2 if they share no key.

    KL(p || m) / 2 + KL(q || m) / 2 with m = (p + q) / 2 (Lin 1991, eq. 3.7). Its root over that of
    log 2 is a distance (Endres & Schindelin 2003), 0 to 1. Rows may be broadcast.
    """
    p, q = p.float(), q.float()
    total = p + q
    # For nearly equal rows, p log p - q log q would be nothing but rounding errors.
    relative_difference = (p - q) / total.clamp(min=torch.finfo(total.dtype).tiny)
    terms = sum(
        (1 + signed) * signed.log1p().clamp(min=LOWEST)
        for signed in (relative_difference, -relative_difference)
    )
    return (total * terms).sum(dim=-1).clamp(min=0) / 4


def pattern_drift(pattern: Pattern, later_pattern: Pattern) -> Values:
    """Return the Jensen-Shannon distance of each row between two checkpoints, 0 to 1.

    It is the root of the divergence in bits; a mean over queries is a mean of distances.
    """
    return (jensen_shannon(pattern, later_pattern) / math.log(2)).sqrt()


def head_divergence(
    pattern: Float[Tensor, "batch head query key"],
    other_pattern: Float[Tensor, "batch other query key"] | None = None,
) -> Float[Tensor, "batch head other query"]:
    """Return the Jensen-Shannon divergence (nats) of each head from each head of another layer.

    Without another layer, from the heads of its own (Clark et al. 2019, sec. 6). Small values mean
    redundancy.
    """
    num_heads = pattern.shape[1]
    if other_pattern is not None:
        divergence_by_head = [
            jensen_shannon(pattern[:, head, None], other_pattern) for head in range(num_heads)
        ]
        return torch.stack(divergence_by_head, dim=1)
    shape = (*pattern.shape[:2], *pattern.shape[1:3])
    divergences = torch.zeros(shape, dtype=torch.float32, device=pattern.device)
    for head in range(1, num_heads):
        lower_head_divergences = jensen_shannon(pattern[:, head, None], pattern[:, :head])
        divergences[:, head, :head] = divergences[:, :head, head] = lower_head_divergences
    return divergences
