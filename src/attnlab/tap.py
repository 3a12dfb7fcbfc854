"""Taps: named modules of a model at which a value can be recorded or replaced."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TypeVar

from torch import Tensor, nn

Name = TypeVar("Name", bound=Hashable)


class Tap(nn.Module):
    """Passes a tensor through unchanged, under a name that `record` and `edit` can reach."""

    @property
    def has_listeners(self) -> bool:
        """Whether a hook is registered; if not, a caller may skip computing the tensor."""
        return bool(self._forward_hooks)

    def forward(self, value: Tensor) -> Tensor:
        return value


class Gauge(Tap):
    """A tap for a mean (a scalar or a vector) that every evaluation records.

    `count` is the number of items in the mean, by which the batches of a split are weighted.
    """

    def forward(self, value: Tensor, count: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return value


class Mixing(Tap):
    """A tap for the matrix by which a mixer that is linear in its values mixes them.

    (batch, head, query, key), signed. `Mixer.pattern_modules` offers it to evidence.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads


@contextmanager
def record_gauges(model: nn.Module) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Record the value of every gauge, as `{name: (mean, count)}`."""
    readings: dict[str, tuple[Tensor, Tensor]] = {}

    def build_hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def record_reading(_gauge: nn.Module, inputs: tuple[Tensor, ...], value: Tensor) -> None:
            readings[name] = value.detach(), inputs[1].detach()

        return record_reading

    gauges = {name: tap for name, tap in taps(model).items() if isinstance(tap, Gauge)}
    handles = [gauge.register_forward_hook(build_hook(name)) for name, gauge in gauges.items()]
    try:
        yield readings
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def record(model: nn.Module, names: str = "*") -> Iterator[dict[str, Tensor]]:
    """Record the value of every tap whose qualified name matches `names`, as `{name: tensor}`.

    Raises RuntimeError if no tap was called: a compiled model does not see hooks added after its
    compilation, so record on the eager module.
    """
    recorded: dict[str, Tensor] = {}
    with edit(model, names, lambda name, value: recorded.__setitem__(name, value.detach())):
        yield recorded
    if not recorded:
        raise RuntimeError(f"the taps {names!r} heard nothing; run the eager model inside `record`")


@contextmanager
def edit(
    model: nn.Module, names: str, change: Callable[[str, Tensor], Tensor | None]
) -> Iterator[None]:
    """Replace the values at matching taps by `change(name, value)`; None leaves a value.

    Raises LookupError if no tap matches.
    """
    matching_taps = taps(model, names)
    if not matching_taps:
        raise LookupError(f"no tap matches {names!r}")
    with edit_each(matching_taps, change):
        yield


@contextmanager
def edit_each(
    taps: Mapping[Name, Tap], change: Callable[[Name, Tensor], Tensor | None]
) -> Iterator[None]:
    """Replace the values at the given taps by `change(name, value)`; None leaves a value."""

    def build_hook(name: Name) -> Callable[[nn.Module, object, Tensor], Tensor | None]:
        return lambda _module, _inputs, value: change(name, value)

    handles = [tap.register_forward_hook(build_hook(name)) for name, tap in taps.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def taps(model: nn.Module, names: str = "*") -> dict[str, Tap]:
    """Return the taps whose qualified name matches, in the order of the model's modules."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Tap) and fnmatchcase(name, names)
    }
