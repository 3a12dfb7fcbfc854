"""What is recorded of who looks at whom."""

from collections.abc import Callable, Sequence
from functools import cached_property

import torch

from attnlab.evidence.look import Seen
from attnlab.objective.base import Objective
from attnlab.runs.patterns import INFLUENCE, Pattern
from attnlab.split import IGNORE, Batch


class Recorder:
    """Sees `texts` of one's own and the dataset's first `num_probes` sequences, as rows to keep.

    A longer sequence is cut to its first `max_tokens`.
    """

    def __init__(
        self,
        objective: Objective,
        look: Callable[[Batch], Seen],
        *,
        num_probes: int = 8,
        max_tokens: int = 256,
        texts: Sequence[str] = [],
    ) -> None:
        if num_probes < 0 or max_tokens < 1:
            raise ValueError(
                f"num_probes={num_probes} must be at least 0 and max_tokens={max_tokens} 1"
            )
        self.objective, self.look = objective, look
        self.num_probes, self.max_tokens = num_probes, max_tokens
        self.read = {text: objective.read(text) for text in texts}

    @cached_property
    def probes(self) -> dict[str, Batch]:
        """What is looked at, by name."""
        own = self.objective.dataset.probes(self.num_probes)
        found = {**self.read, **own}
        return {name: first(probe, self.max_tokens) for name, probe in found.items()}

    def record(self, step: int) -> list[Pattern]:
        """See every probe now."""
        return [
            pattern
            for name, probe in self.probes.items()
            for pattern in patterns(self.look(probe), self.objective.inputs, step, name)
        ]


def patterns(seen: Seen, vocabulary: Sequence[str], step: int, probe: str) -> list[Pattern]:
    """Put what a pass showed into the form of the record: each layer's heads, then influence."""
    tokens = [vocabulary[int(token)] for token in seen.inputs]
    whole, asked = list(range(len(tokens))), seen.asked_at
    shown = [(source, whole, weights.cpu().numpy()) for source, weights in seen.patterns.items()]
    shown.append((INFLUENCE, [asked], seen.influence[None, None].cpu().numpy()))
    return [
        Pattern(step, probe, source, tokens, queries, asked, weights)
        for source, queries, weights in shown
    ]


def first(probe: Batch, count: int) -> Batch:
    """Keep the first tokens of a batch of one, and the labels among them, if there are any."""
    inputs, targets, at, valid = probe[:4]
    if inputs.shape[1] <= count:
        return probe
    if at is None:
        targets = targets[:, :count]
    else:
        kept = at[0] < count
        targets, at = targets[:, kept], at[:, kept]
        if not kept.any():
            targets = torch.full_like(probe.targets[:, :1], IGNORE)
            at = torch.full_like(targets, count - 1)
    return Batch(inputs[:, :count], targets, at, None if valid is None else valid[:, :count])
