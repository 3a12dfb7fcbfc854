"""Whether a run stands still: its process exists, and its step does not go on."""

import time
from collections.abc import Callable
from pathlib import Path

from attnlab.run_record.holder import read_beat


class StandstillWatch:
    """Watches the beat of an attempt by the watcher's own clock.

    A step that does not go on counts, whether the beat's counter moves (the run computes and comes
    to nothing) or not (it is paused, or waits for ever).
    """

    def __init__(
        self, attempt_dir: Path, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._attempt_dir, self._seconds, self._clock = attempt_dir, seconds, clock
        self.step = -1
        """The last step that was seen; -1 before the first look."""
        self._since = clock()

    @property
    def stands_still(self) -> bool:
        """Look at the beat, and return whether its step is as old as the limit."""
        _, step = read_beat(self._attempt_dir)
        if step != self.step:
            self.step, self._since = step, self._clock()
        return self._clock() - self._since >= self._seconds
