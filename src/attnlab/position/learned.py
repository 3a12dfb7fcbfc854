"""Learned positions."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from attnlab.position.base import Position
from attnlab.ranges import NotNegative, ranged


@ranged
class Learned(Position):
    """Adds a trained vector for each position (Gehring et al. 2017, sec. 3.1).

    Initialisation:
        table.weight | N(0, std)
    """

    signal = "embed"

    def __init__(self, d_model: int, max_length: int, *, std: NotNegative = 0.08) -> None:
        super().__init__(d_model, max_length)
        self.std = std
        self.table = nn.Embedding(max_length, d_model)
        nn.init.normal_(self.table.weight, std=std)

    def embed(
        self, x: Float[Tensor, "batch seq d_model"], at: Int[Tensor, " seq"]
    ) -> Float[Tensor, "batch seq d_model"]:
        try:
            return x + self.table(at)
        except IndexError as error:
            raise ValueError(
                f"there are vectors for max_length={self.table.num_embeddings} positions, and the "
                f"last one asked for is {int(at.max())}, counted from 0"
            ) from error
