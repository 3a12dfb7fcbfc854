"""The recorder of measures of every head on whole batches."""

from attnlab.callbacks.base import Recorder, Row
from attnlab.callbacks.cadence import Cadence
from attnlab.errors import Diverged
from attnlab.interp.head_stats import head_statistics
from attnlab.interp.subject import Subject
from attnlab.ranges import Count, ranged
from attnlab.run_record.head_scores import TABLE, measure_row


@ranged
class HeadRecorder(Recorder):
    """Measures the heads on the first sequences of validation (`interp.head_stats`).

    Always the same ones, so that steps and seeds can be compared: as many as a batch of training
    has, unless `num_examples` says otherwise. `pairs` compares each two heads of a layer too.
    """

    table = TABLE

    def __init__(
        self, subject: Subject, *, num_examples: Count | None = None, pairs: bool = False
    ) -> None:
        super().__init__(subject)
        self.num_examples, self.pairs = num_examples or subject.batch_size, pairs

    def is_due(self, cadence: Cadence, step: int) -> bool:
        return cadence.measures(step)

    def rows(self, step: int) -> list[Row]:
        if not self.subject.model.attention_layers():
            return []
        statistics = head_statistics(
            *(self.subject, self.subject.dataset.splits["validation"]),
            batch_size=self.subject.batch_size,
            num_examples=self.num_examples,
            compare_heads=self.pairs,
        )
        for layer, measures in statistics.items():
            if not measures["confidence"].isfinite().all():
                raise Diverged(
                    step, f"the attention of {layer.path} after step {step} is no number"
                )
        return [
            measure_row(step, layer, name, values.tolist())
            for layer, measures in statistics.items()
            for name, values in measures.items()
        ]
