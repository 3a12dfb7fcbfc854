"""Expert load and routing of each layer of experts on the reported split."""

from attnlab.evidence.base import Evidence
from attnlab.interp.expert_routing import compute_routing
from attnlab.interp.subject import Subject
from attnlab.ranges import Count, ranged
from attnlab.run_record.finding import Finding


@ranged
class ExpertRouting(Evidence):
    """Measures how each layer of experts routes the first examples of the reported split.

    `layerN/load_max` and `load_min` are the largest and smallest share of assignments, `dead`
    counts experts without any, `drops` is what the layer's tap of that name says, `balance` the
    entropy of the load and `router_entropy` that of the router's probability, both over
    log(experts); `token_information` is `Information.normalised_information`. N is the number of
    the layer of experts (`attnlab.layers`). A model without experts has no numbers.
    """

    def __init__(
        self, subject: Subject, *, num_examples: Count = 512, batch_size: Count = 64
    ) -> None:
        super().__init__(subject)
        self.num_examples, self.batch_size = num_examples, batch_size

    def measure(self) -> Finding:
        if not self.subject.model.expert_layers():
            return self.finding({})
        dataset = self.subject.dataset
        by_layer = compute_routing(
            *(self.subject, dataset.splits[dataset.report_split]),
            num_examples=self.num_examples,
            batch_size=self.batch_size,
        )
        scalars = {}
        for layer, layer_routing in by_layer.items():
            measurements = {
                "load_max": float(layer_routing.load.max()),
                "load_min": float(layer_routing.load.min()),
                "dead": float(len(layer_routing.dead_experts)),
                "drops": layer_routing.drops,
                "balance": layer_routing.balance,
                "router_entropy": layer_routing.normalised_entropy,
                "token_information": layer_routing.token.normalised_information,
            }
            scalars |= {f"layer{layer.index}/{name}": value for name, value in measurements.items()}
        return self.finding(scalars)
