"""The interface of initialisations: what is done to a model that was just built."""

from torch import nn


class Init:
    """Leaves the model as its parts build it; their docstrings say how."""

    def __call__(self, model: nn.Module) -> None:
        """Set the parameters in place, from the global random state."""
