"""What the gates of LSTM layers do, made from the library's weights and what passes its cells."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.interp.observe import device_of, moved, undisturbed
from attnlab.interp.sequences import worked_on
from attnlab.interp.subject import Subject
from attnlab.mixer.base import mirrored, take
from attnlab.model.base import Model
from attnlab.split import Batch, Split

SHUT, OPEN = 0.1, 0.9
"""A gate below the one is left-saturated, above the other right-saturated."""
GATES = ("input", "forget", "output")
WAYS = ("forwards", "backwards")


@dataclass(frozen=True, eq=False)
class Gates:
    """The gates (0 to 1) and cells of one LSTM, at the sequence's own positions.

    One that reads backwards has at a position what it made there, having read all that follows.
    """

    input: Float[Tensor, "batch seq d_model"]
    forget: Float[Tensor, "batch seq d_model"]
    output: Float[Tensor, "batch seq d_model"]
    cell: Float[Tensor, "batch seq d_model"]
    valid: Bool[Tensor, "batch seq"]
    """False at padding, whose gates mean nothing."""

    @property
    def hidden(self) -> Float[Tensor, "batch seq d_model"]:
        """What the cells give: o tanh(c)."""
        return self.output * self.cell.tanh()


def gate_statistics(
    subject: Subject,
    batches: Split | Iterable[Batch],
    *,
    batch_size: int | None = None,
    num_examples: int | None = None,
) -> dict[str, dict[str, Float[Tensor, " unit"]]]:
    """Summarise the gates of each unit over a split, or over batches: {path: {statistic: (unit,)}}.

    Of the input, forget and output gate, `GATE_left` and `GATE_right` are the shares of positions
    at which it is below 0.1 and above 0.9 (Karpathy et al. 2015, sec. 4.2). `forget` is the mean f
    of the forget gate, and `time` is 1 / (1 - f): the tokens after which a cell has forgotten all
    but 1 / e, for a gate that hardly moves (Tallec & Ollivier 2018, sec. 2). Padding is left out.
    Raises LookupError for a model without an LSTM, ValueError for no batches.
    """
    sums: dict[str, dict[str, Tensor]] = {}
    counts: dict[str, int] = {}
    for asked in subject.ask(batches, batch_size=batch_size, num_examples=num_examples):
        for path, found in gates(subject.model, asked).items():
            tally = sums.setdefault(path, {})
            counts[path] = counts.get(path, 0) + int(found.valid.sum())
            for name in GATES:
                gate = getattr(found, name)[found.valid]
                for what, one in (
                    (f"{name}_left", gate < SHUT),
                    (f"{name}_right", gate > OPEN),
                    (name, gate),
                ):
                    total = reduce(one.double(), "position unit -> unit", "sum").cpu()
                    tally[what] = tally.get(what, 0) + total
    if not sums:
        raise ValueError("no batches were given, so there are no gates to summarise")
    return {path: _means(tally, counts[path]) for path, tally in sums.items()}


def gates(model: Model, asked: Batch) -> dict[str, Gates]:
    """Make the gates and cells of every LSTM for what a model is asked: {path of the cells: Gates}.

    The library's fused cells give their states h alone. At each position the gates are maps of the
    input and of h before it, which are both seen, so nothing is run a second time but c = f c + i g
    (Hochreiter & Schmidhuber 1997; with the forget gate of Gers et al. 2000). Paths stand in the
    order of a pass. Raises LookupError for a model without an LSTM.
    """
    layers = lstm_layers(model)
    if not layers:
        raise LookupError(f"this {type(model).__name__} has no LSTM, so there are no gates")
    found: dict[str, Gates] = {}
    asked = moved(asked, device_of(model))

    def hear(path: str) -> Any:
        def hook(layer: nn.LSTM, given: tuple[Any, ...], made: tuple[Any, ...]) -> None:
            _, valid = worked_on(model, path, asked)
            x, *state = given
            hidden = made[0]
            parts = _recomputed(layer, x, hidden, state[0] if state else None)
            if layers[path].is_reversed:
                mirror = mirrored(hidden, valid)
                parts = [take(part, mirror) for part in parts]
            i, f, o, cell = parts
            found[path] = Gates(i, f, o, cell, valid)

        return hook

    with undisturbed(model), torch.no_grad(), ExitStack() as listening:
        for path, layer in layers.items():
            listening.callback(layer.cells.register_forward_hook(hear(path)).remove)
        model(*asked.given)
    return found


def _recomputed(
    layer: nn.LSTM,
    x: Float[Tensor, "batch seq width"],
    hidden: Float[Tensor, "batch seq d_model"],
    state: Any,
) -> list[Float[Tensor, "batch seq d_model"]]:
    """Give input, forget and output gate and the cell, in the order in which the layer reads."""
    with torch.autocast(x.device.type, enabled=False):
        exact = torch.promote_types(layer.all_weights[0][0].dtype, torch.float32)
        of_input, of_state, *biases = (weights.to(exact) for weights in layer.all_weights[0])
        x, hidden = x.to(exact), hidden.to(exact)
        if state is None:
            first = cell = torch.zeros_like(hidden[:, 0])
        else:
            first, cell = (rearrange(part, "1 b d -> b d").to(exact) for part in state)
        before = torch.cat((rearrange(first, "b d -> b 1 d"), hidden[:, :-1]), dim=1)
        mapped = F.linear(x, of_input, biases[0]) + F.linear(before, of_state, biases[1])
        # In the library's order (torch.nn.LSTM, "Variables").
        i, f, g, o = mapped.chunk(4, dim=-1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        cells = []
        for at in range(x.shape[1]):
            cell = f[:, at] * cell + i[:, at] * g[:, at]
            cells.append(cell)
    return [i, f, o, torch.stack(cells, dim=1)]


def _means(sums: dict[str, Tensor], count: int) -> dict[str, Float[Tensor, " unit"]]:
    means = {what: total / count for what, total in sums.items() if what not in ("input", "output")}
    shut = (1 - means["forget"]).clamp(min=torch.finfo(torch.float64).eps)
    return {**means, "time": 1 / shut}


@dataclass(frozen=True)
class LSTMLayer:
    """The cells of one direction of an LSTM layer."""

    cells: nn.LSTM
    layer: str
    """The path of the layer, which its two directions share."""
    is_reversed: bool
    """Whether it reads its sequence backwards."""


def lstm_layers(model: Model) -> dict[str, LSTMLayer]:
    """Find the LSTM layers by the paths of their cells; each has its batch first."""
    directions: dict[nn.Module, tuple[str, bool]] = {}
    for path, module in model.named_modules():
        ways = {name: child for name, child in module.named_children() if name in WAYS}
        for name, child in ways.items():
            directions |= dict.fromkeys(child.modules(), (path, name == WAYS[1]))
    return {
        path: LSTMLayer(module, *directions.get(module, (path, False)))
        for path, module in model.named_modules()
        if isinstance(module, nn.LSTM)
    }
