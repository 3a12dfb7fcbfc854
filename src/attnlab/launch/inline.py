"""Runs in this process, one after the other."""

from collections.abc import Sequence

from attnlab.config import Config
from attnlab.launch.launcher import Launcher, Outcomes, Pass, run_to_outcome
from attnlab.ranges import ranged


@ranged
class Inline(Launcher):
    """Does one run after the other in this process."""

    def outcomes(
        self, configs: Sequence[Config], indices: Sequence[int], this_pass: Pass
    ) -> Outcomes:
        for index in indices:
            yield (
                index,
                run_to_outcome(configs[index], this_pass, this_pass.sweep_progress.place(index)),
            )
