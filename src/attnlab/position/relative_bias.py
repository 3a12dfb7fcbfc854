"""Learned biases for distances."""

import math

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnlab.position.base import Position
from attnlab.ranges import Count, Width, ranged


@ranged
class RelativeBias(Position):
    """Adds a learned number for each distance and head (T5: Raffel et al. 2020, sec. 2.1).

    Distances fall into `num_buckets`: half of them hold one distance each, the other half grow
    logarithmically up to `max_distance` tokens, and all that is farther shares the last one. Where
    a token sees both ways, each way has one half of the buckets. All layers share one table, made
    for the first attention that asks.

    Initialisation, as in transformers' T5:
        table | N(0, 1/sqrt(d_model))
    """

    signal = "bias"
    undecayed = ("table",)

    def __init__(
        self, d_model: int, max_length: int, *, num_buckets: Width = 32, max_distance: Count = 128
    ) -> None:
        super().__init__(d_model, max_length)
        if num_buckets < 4 or num_buckets % 4:
            raise ValueError(
                f"num_buckets={num_buckets} must be a multiple of 4: two ways, each with near and "
                "far distances"
            )
        if max_distance <= num_buckets // 2:
            raise ValueError(
                f"max_distance={max_distance} must exceed num_buckets / 2 = {num_buckets // 2}, "
                "the distances with a bucket of their own"
            )
        self.d_model, self.num_buckets, self.max_distance = d_model, num_buckets, max_distance
        self.register_parameter("table", None)

    def prepare_heads(self, num_heads: int, d_rotated: int) -> None:
        if self.table is None:
            table = torch.empty(self.num_buckets, num_heads)
            self.table = nn.Parameter(nn.init.normal_(table, std=self.d_model**-0.5))
        elif self.table.shape[1] != num_heads:
            raise ValueError(
                f"all layers share the biases of {self.table.shape[1]} heads, but a layer has "
                f"num_heads={num_heads}; give every layer the same number"
            )

    def bias(
        self,
        num_heads: int,
        query_at: Int[Tensor, " query"],
        key_at: Int[Tensor, " key"],
        causal: bool,
    ) -> Float[Tensor, "head query key"]:
        if self.table is None or self.table.shape[1] != num_heads:
            raise ValueError(
                f"no biases for {num_heads} heads; call prepare_heads({num_heads}, d_head) first"
            )
        distance = key_at - rearrange(query_at, "q -> q 1")
        return rearrange(self.table[self._bucket(distance, causal)], "q k h -> h q k")

    def _bucket(self, distance: Int[Tensor, "query key"], causal: bool) -> Int[Tensor, "query key"]:
        """Return the row of the table for each distance from a query to a key, in tokens."""
        num_directions = 1 if causal else 2
        num_buckets = self.num_buckets // num_directions
        num_near = num_buckets // 2
        length = (-distance).clamp(min=0) if causal else distance.abs()
        # In float32 and in this order, so that bucket borders equal those of T5's trained tables.
        growth = (length.clamp(min=1).float() / num_near).log() / math.log(
            self.max_distance / num_near
        )
        far_bucket = (num_near + (growth * (num_buckets - num_near)).long()).clamp(
            max=num_buckets - 1
        )
        bucket = torch.where(length < num_near, length, far_bucket)
        return bucket if causal else bucket + num_buckets * (distance > 0)
