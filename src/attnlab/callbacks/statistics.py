"""What is measured of every head on a whole batch."""

from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor

from attnlab.callbacks.clock import Clock
from attnlab.callbacks.keeper import Keeper, Row
from attnlab.ranges import Count, ranged
from attnlab.runs.heads import TABLE, row
from attnlab.training import Diverged

Measured = Mapping[str, Mapping[str, Float[Tensor, " head"]]]


@ranged
class Statistics(Keeper):
    """Measures the heads on the first sequences of validation (`evidence.heads.head_statistics`).

    Always the same ones, so that steps and seeds can be compared: as many as a batch of training
    has, unless `num_examples` says otherwise. `pairs` compares each two heads of a layer too.
    """

    table = TABLE

    def __init__(
        self,
        batch_size: int,
        measure: Callable[[int, bool], Measured],
        *,
        num_examples: Count | None = None,
        pairs: bool = False,
    ) -> None:
        self.measure, self.pairs = measure, pairs
        self.num_examples = num_examples or batch_size

    def due(self, clock: Clock, step: int) -> bool:
        return clock.measures(step)

    def rows(self, step: int) -> list[Row]:
        found = self.measure(self.num_examples, self.pairs)
        for layer, measures in found.items():
            if not measures["confidence"].isfinite().all():
                raise Diverged(step, f"the attention of {layer} after step {step} is no number")
        return [
            row(step, layer, name, values.tolist())
            for layer, measures in found.items()
            for name, values in measures.items()
        ]
