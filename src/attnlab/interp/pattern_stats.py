"""What a row of an attention pattern says about its head: one number for each query.

Every function takes the rows of any queries of a sequence, so that a long one can be read in parts.
`query_at` are the positions of those queries; keys stand at 0, 1, ... A row sums to 1 and has no
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
"""A logarithm that stands for that of 0, so that 0 times it is 0; float32 has none so low else."""
SINKS = 4
"""First tokens that a sink is made of (Xiao et al. 2024)."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a layer's patterns, whole or in part, and what stands where.

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

    def parts(self, size: int) -> Iterator["Rows"]:
        """Give the rows in parts of so many queries."""
        for start in range(0, self.pattern.shape[2], size):
            some = slice(start, start + size)
            yield replace(
                self,
                pattern=self.pattern[:, :, some],
                counted=self.counted[:, some],
                query_at=None if self.query_at is None else self.query_at[some],
            )


class Measured(NamedTuple):
    """A number for each query, and for which queries it means something."""

    values: Float[Tensor, "batch head query"]
    counted: Bool[Tensor, "batch query"]


def measure(rows: Rows) -> dict[str, Measured]:
    """Measure each row.

    Always `entropy` (nats), `normalised_entropy`, `effective_keys` and `confidence`. Within one
    sequence also `distance` (tokens), the shares of the `previous`, `current`, `next` and `first`
    token, and `sink`, that of the first four from queries behind them. With tokens the scores
    `duplicate_token`, `induction` and `prefix_matching`, the last over queries whose token stood
    there before.
    """
    pattern, counted, at = rows.pattern, rows.counted, rows.query_at
    nats = entropy(pattern)
    seen = visible(at, rows.valid, pattern.shape[2], rows.causal, rows.window)
    found = {
        "entropy": Measured(nats, counted),
        "normalised_entropy": Measured(normalised_entropy(nats, seen), counted & (seen > 1)),
        "effective_keys": Measured(effective_keys(nats), counted),
        "confidence": Measured(confidence(pattern), counted),
    }
    if at is None:
        return found
    found["distance"] = Measured(distance(pattern, at), counted)
    for name, offset in (("previous", -1), ("current", 0), ("next", 1)):
        found[name] = Measured(share_at(pattern, at, offset), counted)
    found["first"] = Measured(first(pattern), counted)
    found["sink"] = Measured(first(pattern, SINKS), counted & (at >= SINKS))
    if rows.tokens is None:
        return found
    after = successors(rows.tokens, at)
    follows = mass(pattern, after)
    found["duplicate_token"] = Measured(mass(pattern, duplicates(rows.tokens, at)), counted)
    found["induction"] = Measured(follows, counted)
    found["prefix_matching"] = Measured(follows, counted & after.any(dim=-1))
    return found


def entropy(pattern: Pattern) -> Values:
    """Give -sum_k p_k log p_k, in nats (Clark et al. 2019, sec. 3.3; Ghader & Monz 2017).

    0 where one key has all, log n where n keys have the same.
    """
    return torch.special.entr(pattern.float()).sum(dim=-1)


def normalised_entropy(entropy: Values, visible: Int[Tensor, "batch query"]) -> Values:
    """Give the entropy (nats) over the log of the visible keys, 0 to 1 (Pielou 1966).

    0 where one key or none is visible, which is no finding: leave such queries out of a mean.
    """
    most = rearrange(visible.clamp(min=2).float().log(), "b q -> b 1 q")
    return entropy / most


def effective_keys(entropy: Values) -> Values:
    """Give exp(entropy), the number of keys that would have it if all had the same (Hill 1973)."""
    return entropy.exp()


def confidence(pattern: Pattern) -> Values:
    """Give the largest weight, 0 to 1 (Voita et al. 2019, who leave out the last token)."""
    return pattern.float().amax(dim=-1)


def distance(pattern: Pattern, query_at: Int[Tensor, " query"]) -> Values:
    """Give the mean distance to the keys, sum_k p_k |query - key|, in tokens.

    As Vig & Belinkov (2019) have it; they divide by the sum of the weights, which is 1 a query.
    """
    key_at = torch.arange(pattern.shape[-1], device=pattern.device)
    apart = (query_at[:, None] - key_at).abs().float()
    return (pattern.float() * apart).sum(dim=-1)


def share_at(pattern: Pattern, query_at: Int[Tensor, " query"], offset: int) -> Values:
    """Give the weight of the key that stands `offset` after the query; 0 where there is none.

    -1 is the previous token, 0 the current and 1 the next one (Clark et al. 2019, sec. 3.1). Its
    mean for -1 over all queries, the first included, is TransformerLens' score of a previous-token
    head (`head_detector`, measure "mul").
    """
    at = query_at + offset
    there = (at >= 0) & (at < pattern.shape[-1])
    rows = torch.arange(len(at), device=at.device)
    found = pattern[:, :, rows, at.clamp(0, pattern.shape[-1] - 1)].float()
    return found.masked_fill(~there, 0)


def first(pattern: Pattern, count: int = 1) -> Values:
    """Give the weight of the first `count` keys, 0 to 1.

    Of one key, its mean over all queries is what Gu et al. (2025) call a sink above .3. Four keys
    are the sink that Xiao et al. (2024) keep; queries among them say nothing of it.
    """
    return pattern[..., :count].float().sum(dim=-1)


def mass(pattern: Pattern, keys: Bool[Tensor, "batch query key"]) -> Values:
    """Give the weight of the chosen keys together, 0 to 1."""
    return (pattern.float() * rearrange(keys, "b q k -> b 1 q k")).sum(dim=-1)


def duplicates(
    tokens: Int[Tensor, "batch key"], query_at: Int[Tensor, " query"]
) -> Bool[Tensor, "batch query key"]:
    """Say which keys hold the query's own token, and stand before it.

    The mean of `mass` on them over all queries is TransformerLens' score of a duplicate-token head
    (`head_detector`, measure "mul"; Wang et al. 2023, sec. 3).
    """
    key_at = torch.arange(tokens.shape[1], device=tokens.device)
    same = tokens[:, query_at, None] == rearrange(tokens, "b k -> b 1 k")
    return same & (key_at < query_at[:, None])


def successors(
    tokens: Int[Tensor, "batch key"], query_at: Int[Tensor, " query"]
) -> Bool[Tensor, "batch query key"]:
    """Say which keys follow an earlier occurrence of the query's token (its own place may be one).

    The mean of `mass` on them over all queries is TransformerLens' score of an induction head
    (`head_detector`, measure "mul"). Over those that have such a key, on repeated random tokens, it
    is the prefix-matching score of Olsson et al. (2022).
    """
    return F.pad(duplicates(tokens, query_at)[..., :-1], (1, 0))


def visible(
    query_at: Int[Tensor, " query"] | None,
    valid: Bool[Tensor, "batch key"],
    num_queries: int,
    causal: bool,
    window: int | None = None,
) -> Int[Tensor, "batch query"]:
    """Count the keys that each query may look at: no padding, no future, none beyond the window.

    A window counts as in `Attend`. Queries without positions (None) read another sequence.
    """
    if query_at is None:
        return valid.sum(dim=1, keepdim=True).expand(-1, num_queries)
    after = torch.arange(valid.shape[1], device=valid.device) - query_at[:, None]
    near = after <= 0 if causal else torch.ones_like(after, dtype=torch.bool)
    if window is not None:
        near &= after.abs() < window
    return (rearrange(valid, "b k -> b 1 k") & near).sum(dim=-1)


def jensen_shannon(one: Float[Tensor, "*#row key"], other: Float[Tensor, "*#row key"]) -> Tensor:
    """Give the divergence of rows, in nats: 0 if they are the same, log 2 if they never meet.

    KL(p || m) / 2 + KL(q || m) / 2 with m = (p + q) / 2 (Lin 1991, eq. 3.7). Its root over that of
    log 2 is a distance (Endres & Schindelin 2003), 0 to 1. Rows may be broadcast.
    """
    one, other = one.float(), other.float()
    both = one + other
    # Of nearly equal rows, p log p - q log q would leave but rounding.
    apart = (one - other) / both.clamp(min=torch.finfo(both.dtype).tiny)
    terms = sum((1 + part) * part.log1p().clamp(min=LOWEST) for part in (apart, -apart))
    return (both * terms).sum(dim=-1).clamp(min=0) / 4


def drift(before: Pattern, after: Pattern) -> Values:
    """Give the Jensen-Shannon distance of each row between two checkpoints, 0 to 1.

    The root of the divergence in bits; a mean over queries is that of the distances.
    """
    return (jensen_shannon(before, after) / math.log(2)).sqrt()


def between_heads(
    pattern: Float[Tensor, "batch head query key"],
    other: Float[Tensor, "batch other query key"] | None = None,
) -> Float[Tensor, "batch head other query"]:
    """Give the Jensen-Shannon divergence (nats) of each head from each of another layer.

    Without another layer, of its own (Clark et al. 2019, sec. 6). Small values mean redundancy.
    """
    num_heads = pattern.shape[1]
    if other is not None:
        rows = [jensen_shannon(pattern[:, head, None], other) for head in range(num_heads)]
        return torch.stack(rows, dim=1)
    shape = (*pattern.shape[:2], *pattern.shape[1:3])
    apart = torch.zeros(shape, dtype=torch.float32, device=pattern.device)
    for head in range(1, num_heads):
        below = jensen_shannon(pattern[:, head, None], pattern[:, :head])
        apart[:, head, :head] = apart[:, :head, head] = below
    return apart
