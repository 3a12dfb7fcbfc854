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

from attnlab.dataset.base import Dataset
from attnlab.evidence.axes import worked_on
from attnlab.evidence.base import device_of, moved, numbered, undisturbed
from attnlab.mixer.base import mirrored, take
from attnlab.model.base import Model
from attnlab.objective.base import Objective
from attnlab.ranges import Count, ranged
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


@ranged
def lstm(
    model: Model,
    objective: Objective,
    dataset: Dataset,
    *,
    num_examples: Count = 512,
    batch_size: Count = 64,
) -> dict[str, float]:
    """Measure the gates of each LSTM on the first examples of the reported split.

    `layerN/forget` is the mean forget gate, `layerN/time` the median over units of their
    characteristic time in tokens, `layerN/GATE_left` and `GATE_right` the shares of saturated gates
    (`gate_statistics` defines all). Layers are those with an LSTM, in the order of a pass; what
    reads backwards stands under `layerN_backwards`. A model without an LSTM has none of it.
    """
    if not _cells(model):
        return {}
    found = gate_statistics(
        *(model, objective, dataset.splits[dataset.reported]),
        num_examples=num_examples,
        batch_size=batch_size,
    )
    layers: list[str] = []
    measured = {}
    for path, units in found.items():
        layer = ".".join(part for part in path.split(".") if part not in WAYS)
        layers += [] if layer in layers else [layer]
        name = f"layer{layers.index(layer)}{'_backwards' if _reversed(path) else ''}"
        for statistic, values in units.items():
            one = values.median() if statistic == "time" else values.mean()
            measured[f"{name}/{statistic}"] = float(one)
    return measured


def gate_statistics(
    model: Model,
    objective: Objective,
    batches: Split | Iterable[Batch],
    *,
    batch_size: int = 64,
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
    for batch in numbered(batches, batch_size, num_examples):
        asked = moved(objective.ask(batch), device_of(model))
        for path, found in gates(model, asked).items():
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
    cells = _cells(model)
    if not cells:
        raise LookupError(f"this {type(model).__name__} has no LSTM, so there are no gates")
    found: dict[str, Gates] = {}
    asked = moved(asked, device_of(model))

    def hear(path: str) -> Any:
        def hook(layer: nn.LSTM, given: tuple[Any, ...], made: tuple[Any, ...]) -> None:
            _, valid = worked_on(model, path, asked)
            x, *state = given
            hidden = made[0]
            parts = _recomputed(layer, x, hidden, state[0] if state else None)
            if _reversed(path):
                mirror = mirrored(hidden, valid)
                parts = [take(part, mirror) for part in parts]
            i, f, o, cell = parts
            found[path] = Gates(i, f, o, cell, valid)

        return hook

    with undisturbed(model), torch.no_grad(), ExitStack() as listening:
        for path, layer in cells.items():
            listening.callback(layer.register_forward_hook(hear(path)).remove)
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


def _cells(model: Model) -> dict[str, nn.LSTM]:
    """Find the LSTM layers; each is one layer in one direction, with the batch first."""
    return {path: m for path, m in model.named_modules() if isinstance(m, nn.LSTM)}


def _reversed(path: str) -> bool:
    return WAYS[1] in path.split(".")
