"""The recorder of embedding vectors during training."""

from attnlab.callbacks.base import Recorder, Row
from attnlab.callbacks.cadence import Cadence
from attnlab.errors import Diverged
from attnlab.interp.subject import Subject
from attnlab.ranges import Count, ranged
from attnlab.run_record.vectors import TABLE, vectors_row


@ranged
class VectorRecorder(Recorder):
    """Keeps the vectors of the first `num_tokens` of the vocabulary, where patterns are kept too.

    `attnlab embed RUN --history FILE` draws their way. A model without a vector for each token has
    none.
    """

    table = TABLE

    def __init__(self, subject: Subject, *, num_tokens: Count = 128) -> None:
        super().__init__(subject)
        self.num_tokens = num_tokens

    def is_due(self, cadence: Cadence, step: int) -> bool:
        return cadence.records(step)

    def rows(self, step: int) -> list[Row]:
        vectors = self.subject.model.token_vectors
        if vectors is None:
            return []
        vectors = vectors[: self.num_tokens].detach().float().cpu()
        if not vectors.isfinite().all():
            raise Diverged(step, f"the embedding vectors after step {step} are no numbers")
        names = self.subject.objective.inputs[: len(vectors)]
        return [vectors_row(step, vectors.numpy(), names)]
