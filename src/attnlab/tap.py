"""Named places in a model where a value can be read or replaced."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TypeVar

from torch import Tensor, nn

Name = TypeVar("Name", bound=Hashable)


class Tap(nn.Module):
    """Passes a tensor through unchanged, under a name that `record` and `edit` can reach."""

    @property
    def heard(self) -> bool:
        """Whether anyone listens; if not, a caller may skip computing the tensor."""
        return bool(self._forward_hooks)

    def forward(self, value: Tensor) -> Tensor:
        return value


class Gauge(Tap):
    """A tap for a mean (a scalar or a vector) that evaluation records by itself.

    `count` says over how many things it is the mean: batches of a split are put together by it.
    """

    def forward(self, value: Tensor, count: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return value


class Mixing(Tap):
    """A tap for the matrix by which a mixer that is linear in its values mixes them.

    (batch, head, query, key), signed. A model's layers with such a tap are found by it.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads


@contextmanager
def record_gauges(model: nn.Module) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Collect what passes every gauge, as `{name: (mean, count)}`."""
    readings: dict[str, tuple[Tensor, Tensor]] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def read(_gauge: nn.Module, inputs: tuple[Tensor, ...], value: Tensor) -> None:
            readings[name] = value.detach(), inputs[1].detach()

        return read

    gauges = {name: tap for name, tap in taps(model).items() if isinstance(tap, Gauge)}
    handles = [gauge.register_forward_hook(hook(name)) for name, gauge in gauges.items()]
    try:
        yield readings
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def record(model: nn.Module, names: str = "*") -> Iterator[dict[str, Tensor]]:
    """Collect what passes every tap whose qualified name matches `names`, as `{name: tensor}`.

    Raises RuntimeError if nothing was heard: a compiled model does not see hooks added after its
    compilation, so record on the eager module.
    """
    heard: dict[str, Tensor] = {}
    with edit(model, names, lambda name, value: heard.__setitem__(name, value.detach())):
        yield heard
    if not heard:
        raise RuntimeError(f"the taps {names!r} heard nothing; run the eager model inside `record`")


@contextmanager
def edit(
    model: nn.Module, names: str, change: Callable[[str, Tensor], Tensor | None]
) -> Iterator[None]:
    """Let `change(name, value)` replace what passes matching taps; None leaves it as it is.

    Raises LookupError if no tap matches.
    """
    matching = taps(model, names)
    if not matching:
        raise LookupError(f"no tap matches {names!r}")
    with edit_each(matching, change):
        yield


@contextmanager
def edit_each(
    taps: Mapping[Name, Tap], change: Callable[[Name, Tensor], Tensor | None]
) -> Iterator[None]:
    """Let `change(name, value)` replace what passes some taps; None leaves it as it is."""

    def hook(name: Name) -> Callable[[nn.Module, object, Tensor], Tensor | None]:
        return lambda _module, _inputs, value: change(name, value)

    handles = [tap.register_forward_hook(hook(name)) for name, tap in taps.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def taps(model: nn.Module, names: str = "*") -> dict[str, Tap]:
    """Find the taps whose qualified name matches, from the bottom of the model to its top."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Tap) and fnmatchcase(name, names)
    }
