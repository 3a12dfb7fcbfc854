"""The interface of every optimizer."""

from abc import ABC, abstractmethod

import torch
from torch import nn


class Optimizer(ABC):
    """Builds the optimizer of a model's parameters, from keyword-only knobs of its own.

    Your own optimizer is a class that states its knobs, and passes two of them on:

        class SGD(Optimizer):
            def __init__(self, *, lr: Positive = 0.1, gradient_clip: Positive | None = None):
                super().__init__(lr, gradient_clip)

            def build(self, model: nn.Module) -> torch.optim.Optimizer:
                return torch.optim.SGD(model.parameters(), lr=self.lr)
    """

    def __init__(self, lr: float, gradient_clip: float | None) -> None:
        self.lr = lr
        """The learning rate at its peak, which the schedule scales."""
        self.gradient_clip = gradient_clip
        """The largest global norm of the gradient (Pascanu et al. 2013); None does not clip."""

    @abstractmethod
    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Build the optimizer of a model's parameters, at the learning rate `lr`."""
