"""The steps at which a run validates, writes rows, records, saves and tests."""

import math
from collections.abc import Collection, Sequence
from typing import ClassVar

from attnlab.ranges import Count, CountOrZero, FewCount, ranged


@ranged
class Cadence:
    """Says what is due after an optimizer step; the only place that decides it.

    Rows come first, so that a broken model is neither validated nor saved; then validation and
    patterns; the checkpoint last: what it covers is on the disk before it, so that a kill between
    the two loses nothing. Steps
    count from 1; the last step does everything. `patterns_per_decade` steps, evenly spaced by their
    logarithm, record patterns between 1 and 10, 10 and 100, ...; step 0 does so too. In their place
    a list `patterns_at` names the steps. `statistics_every` steps, the heads are measured on a
    whole batch; null never does. `evidence_every` steps, the run's evidence is measured as it is at
    the end, which may take as long as tens of steps: null, the default, leaves it to the end.
    `test_every` draws the curve of the test split. By neither of the two is anything chosen.
    """

    not_in_identity: ClassVar = (
        *("patterns_per_decade", "patterns_at", "statistics_every", "evidence_every"),
    )
    """Knobs that set when the model is measured, which does not change training."""

    def __init__(
        self,
        max_steps: int,
        val_check_interval: int,
        *,
        log_every: Count = 10,
        checkpoint_every: Count | None = None,
        patterns_per_decade: FewCount = 4,
        patterns_at: Sequence[CountOrZero] | None = None,
        statistics_every: Count | None = 100,
        evidence_every: Count | None = None,
        test_every: Count | None = None,
    ) -> None:
        self.max_steps, self.test_every = max_steps, test_every
        self.statistics_every, self.evidence_every = statistics_every, evidence_every
        if patterns_at is None:
            exponents = range(1 + math.ceil(patterns_per_decade * math.log10(max_steps)))
            spaced_steps = (round(10 ** (i / patterns_per_decade)) for i in exponents)
            self.recorded = {0, max_steps, *spaced_steps}
        else:
            self.recorded = _check_steps(patterns_at, max_steps)
        self.validate_every, self.log_every = val_check_interval, log_every
        self.checkpoint_every = checkpoint_every or val_check_interval

    def require_splits(self, names: Collection[str]) -> None:
        """Raise ValueError where it would evaluate a split that the data do not have."""
        if self.test_every and "test" not in names:
            raise ValueError("test_every: the dataset has no test split; use null")

    def logs(self, step: int) -> bool:
        """Whether a row of training values belongs to this step."""
        return step % self.log_every == 0 or step in (1, self.max_steps)

    def validates(self, step: int) -> bool:
        """Whether the model is evaluated on the validation split after this step."""
        return step % self.validate_every == 0 or step == self.max_steps

    def tests(self, step: int) -> bool:
        """Whether the curve of the test split has a point after this step."""
        interval = self.test_every
        return interval is not None and (step % interval == 0 or step == self.max_steps)

    def records(self, step: int) -> bool:
        """Whether patterns are recorded after this step (0: before the first)."""
        return step in self.recorded

    def measures(self, step: int) -> bool:
        """Whether the heads are measured on a whole batch after this step (0: before the first)."""
        interval = self.statistics_every
        return interval is not None and (step % interval == 0 or step == self.max_steps)

    def measures_evidence(self, step: int) -> bool:
        """Whether the evidence is measured after this step (0: before the first)."""
        interval = self.evidence_every
        return interval is not None and (step % interval == 0 or step == self.max_steps)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint follows this step."""
        return step % self.checkpoint_every == 0 or step == self.max_steps

    def writes(self, step: int) -> bool:
        """Whether the rows so far go to the record: every tenth row, and before all else."""
        other_events = (
            *(self.validates, self.tests, self.records, self.measures, self.measures_evidence),
            self.saves,
        )
        return step % (10 * self.log_every) == 0 or any(is_due(step) for is_due in other_events)


def _check_steps(steps: Sequence[int], max_steps: int) -> set[int]:
    steps_outside = [step for step in steps if not 0 <= step <= max_steps]
    if steps_outside:
        raise ValueError(
            f"patterns_at={list(steps)}: steps go from 0 to max_steps={max_steps}, and "
            f"{', '.join(map(str, steps_outside))} does not lie there"
        )
    return set(steps)
