"""How long a run has trained, over all of its attempts."""

from time import perf_counter


class Stopwatch:
    """Counts the seconds of an attempt, and adds those of the attempts that it was resumed from.

    A checkpoint holds the seconds up to its step, so what an attempt did after its last checkpoint
    does not count, just as its rows do not.
    """

    def __init__(self) -> None:
        self._start = perf_counter()
        self.seconds_before: float | None = 0.0
        """Up to the checkpoint that the attempt began from; None if that does not state it."""

    @property
    def seconds(self) -> float:
        """The seconds so far; of this attempt alone where those before are not known."""
        return (self.seconds_before or 0.0) + perf_counter() - self._start

    def state_dict(self) -> dict[str, float | None]:
        """Return the state that a resumed run needs."""
        return {"seconds": None if self.seconds_before is None else self.seconds}

    def load_state_dict(self, state: dict[str, float | None] | None) -> None:
        """Go on from a checkpoint's state, which is None in checkpoints of older versions."""
        self.seconds_before = None if state is None else state["seconds"]
