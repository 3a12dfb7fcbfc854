"""The strongest previous-token, duplicate-token, induction and sink heads of a model."""

from collections.abc import Mapping

from attnlab.evidence.base import Evidence
from attnlab.interp.head_stats import SCORES, head_statistics
from attnlab.interp.subject import Subject
from attnlab.layers import HeadRef
from attnlab.ranges import Count, ranged
from attnlab.run_record.finding import Finding, NamedHead


@ranged
class StrongestHeads(Evidence):
    """Names the head with most of each kind, on the first examples of the reported split.

    For each of SCORES (`attnlab.interp.pattern_stats.measure_rows` defines them): the largest mean
    over queries of all heads, 0 to 1, and its head. A score without any counted query is left out.
    A model without attention has no scores.
    """

    bounds = dict.fromkeys(SCORES, (0, 1))

    def __init__(
        self, subject: Subject, *, num_examples: Count = 512, batch_size: Count = 64
    ) -> None:
        super().__init__(subject)
        self.num_examples, self.batch_size = num_examples, batch_size

    def measure(self) -> Finding:
        if not self.subject.model.attention_layers():
            return self.finding({})
        dataset = self.subject.dataset
        statistics = head_statistics(
            *(self.subject, dataset.splits[dataset.report_split]),
            batch_size=self.batch_size,
            num_examples=self.num_examples,
            compare_heads=False,
        )
        scalars, heads = {}, {}
        for name in SCORES:
            score_by_head = {
                head: float(score)
                for layer, measures in statistics.items()
                for head, score in zip(layer.heads, measures.get(name, ()), strict=False)
                if not score.isnan()
            }
            if score_by_head:
                best_head = max(score_by_head, key=score_by_head.__getitem__)
                scalars[name] = score_by_head[best_head]
                heads[name] = NamedHead(best_head, name.replace("_", " "), scalars[name])
        return self.finding(scalars, heads)

    @classmethod
    def finding_from_old_record(cls, scalars: Mapping[str, float]) -> Finding:
        heads = {
            name: NamedHead(
                _head_from_scalars(scalars, name), name.replace("_", " "), scalars[name]
            )
            for name in SCORES
            if f"{name}_layer" in scalars
        }
        return cls.finding({name: scalars[name] for name in heads}, heads)


def _head_from_scalars(scalars: Mapping[str, float], name: str) -> HeadRef:
    return HeadRef(int(scalars[f"{name}_layer"]), int(scalars[f"{name}_head"]))
