"""The errors that are the user's to mend: one clear message, exit code 2, nothing written."""

from collections.abc import Sequence


class RequestError(ValueError):
    """The request was wrong: what was given, what was expected, what to do."""


class ConfigError(RequestError):
    """The config does not fit the code; `faults` holds one line for each fault."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        super().__init__("\n  ".join(["the config does not fit the code:", *self.faults]))
