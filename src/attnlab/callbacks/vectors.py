"""What is kept of the embedding vectors while they are trained."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from attnlab.callbacks.clock import Clock
from attnlab.callbacks.keeper import Keeper, Row
from attnlab.ranges import Count, ranged
from attnlab.runs.vectors import TABLE, row
from attnlab.training import Diverged


@ranged
class Vectors(Keeper):
    """Keeps the vectors of the first `num_tokens` of the vocabulary, where patterns are kept too.

    `attnlab embed RUN --course FILE` draws their way.
    """

    table = TABLE

    def __init__(
        self, read: Callable[[], Float[Tensor, "token d_model"]], *, num_tokens: Count = 128
    ) -> None:
        self.read, self.num_tokens = read, num_tokens

    def due(self, clock: Clock, step: int) -> bool:
        return clock.records(step)

    def rows(self, step: int) -> list[Row]:
        vectors = self.read()[: self.num_tokens].detach().float().cpu()
        if not vectors.isfinite().all():
            raise Diverged(step, f"the embedding vectors after step {step} are no numbers")
        return [row(step, vectors.numpy())]
