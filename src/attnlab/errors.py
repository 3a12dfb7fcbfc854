"""The errors that are the user's to mend: one clear message, exit code 2, nothing written."""

from collections.abc import Sequence


class RequestError(ValueError):
    """The request was wrong: what was given, what was expected, what to do."""


class RecordError(RequestError):
    """A record cannot be used: which file, what is wrong, what to do."""


class RecordWarning(UserWarning):
    """A record was used, and something of it is not what a reader would expect."""


class ConfigError(RequestError):
    """The config does not fit the code; `faults` holds one line for each fault.

    It is impossible where each word is right by itself, and what they ask for cannot work.
    """

    def __init__(self, faults: Sequence[str], *, is_impossible: bool = False) -> None:
        self.faults, self.is_impossible = list(faults), is_impossible
        super().__init__("\n  ".join(["the config does not fit the code:", *self.faults]))


class Diverged(RuntimeError):
    """What the model gives is no number any more, or far above where it began."""

    def __init__(self, step: int, problem: str) -> None:
        super().__init__(
            f"{problem}; "
            "try a smaller optimizer.lr, more schedule.warmup_steps or optimizer.gradient_clip"
        )
        self.step = step
