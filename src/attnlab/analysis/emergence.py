"""Since which step of its training a run does what it was found to do at the end."""

from collections.abc import Mapping, Sequence

from attnlab.run_record.evidence_history import HeadAtStep, load_evidence
from attnlab.run_record.record import Record


def heads_since(record: Record) -> dict[str, dict[str, int | None]]:
    """Return since which step each evidence has named the head that it named last, by its name.

    The first measured step from which on it names this head with more than half of its last weight;
    None where that weight is 0. Empty for a run whose evidence was measured at the end alone.
    """
    return {
        evidence: {name: _head_since(heads) for name, heads in history.heads.items()}
        for evidence, history in load_evidence(record).items()
        if history.heads
    }


def _head_since(heads: Mapping[int, HeadAtStep]) -> int | None:
    """Return the step since when the last named head has more than half of its last weight."""
    last = heads[max(heads)]
    weights = {
        step: at_step.weight if at_step.head == last.head else 0.0
        for step, at_step in heads.items()
    }
    return step_of_half(weights)


def step_of_half(value_by_step: Mapping[int, float]) -> int | None:
    """Return the first step from which on a value stays above half of its last one, or None."""
    steps = sorted(value_by_step)
    values = [value_by_step[step] for step in steps]
    return emergence_step(steps, values, values[-1] / 2)


def emergence_step(steps: Sequence[int], scores: Sequence[float], threshold: float) -> int | None:
    """Return the first recorded step from which on a score stays above the threshold, or None.

    A score that falls back later has not emerged before. Steps ascend.
    """
    if len(steps) != len(scores) or list(steps) != sorted(steps):
        raise ValueError(f"{len(scores)} scores need as many steps, in order; got {list(steps)}")
    first_step = None
    for step, score in zip(reversed(steps), reversed(scores), strict=True):
        if not score > threshold:
            break
        first_step = step
    return first_step
