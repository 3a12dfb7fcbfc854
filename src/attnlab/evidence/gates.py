"""Statistics of the gates of each LSTM on the reported split."""

from attnlab.evidence.base import Evidence
from attnlab.interp.lstm_gates import gate_statistics
from attnlab.interp.subject import Subject
from attnlab.ranges import Count, ranged
from attnlab.run_record.finding import Finding


@ranged
class LSTMGates(Evidence):
    """Measures the gates of each LSTM on the first examples of the reported split.

    `layerN/forget` is the mean forget gate, `layerN/time` the median over units of their
    characteristic time in tokens, `layerN/GATE_left` and `GATE_right` the shares of saturated gates
    (`gate_statistics` defines them). N is the number of the LSTM layer (`attnlab.layers`); a
    backward direction is `layerN_backwards`. A model without an LSTM has no numbers.
    """

    def __init__(
        self, subject: Subject, *, num_examples: Count = 512, batch_size: Count = 64
    ) -> None:
        super().__init__(subject)
        self.num_examples, self.batch_size = num_examples, batch_size

    def measure(self) -> Finding:
        if not self.subject.model.lstm_layers():
            return self.finding({})
        dataset = self.subject.dataset
        statistics = gate_statistics(
            *(self.subject, dataset.splits[dataset.report_split]),
            num_examples=self.num_examples,
            batch_size=self.batch_size,
        )
        scalars = {}
        for layer, by_statistic in statistics.items():
            for statistic, values in by_statistic.items():
                summary = values.median() if statistic == "time" else values.mean()
                scalars[f"{layer.name}/{statistic}"] = float(summary)
        return self.finding(scalars)
