"""LSTM gates, recomputed from the weights of `torch.nn.LSTM` and its inputs and states."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.interp.observe import to_device
from attnlab.interp.sequences import processed_tokens
from attnlab.interp.subject import Subject
from attnlab.layers import LSTMLayer
from attnlab.mixer.base import reversed_indices, take_positions
from attnlab.split import Batch, Split

SHUT, OPEN = 0.1, 0.9
"""A gate below `SHUT` is left-saturated, one above `OPEN` right-saturated."""
GATES = ("input", "forget", "output")


@dataclass(frozen=True, eq=False)
class Gates:
    """The gates (0 to 1) and cells of one LSTM, at the sequence's own positions.

    A backward LSTM has at a position its gates there, after reading all that follows.
    """

    input: Float[Tensor, "batch seq d_model"]
    forget: Float[Tensor, "batch seq d_model"]
    output: Float[Tensor, "batch seq d_model"]
    cell: Float[Tensor, "batch seq d_model"]
    valid: Bool[Tensor, "batch seq"]
    """False at padding, whose gates have no meaning."""

    @property
    def hidden(self) -> Float[Tensor, "batch seq d_model"]:
        """The hidden state of the cells: o tanh(c)."""
        return self.output * self.cell.tanh()


def gate_statistics(
    subject: Subject,
    batches: Split | Iterable[Batch],
    *,
    batch_size: int | None = None,
    num_examples: int | None = None,
) -> dict[LSTMLayer, dict[str, Float[Tensor, " unit"]]]:
    """Compute statistics of each unit's gates over a split or batches, in every LSTM.

    For the input, forget and output gate, `GATE_left` and `GATE_right` are the shares of positions
    at which it is below 0.1 and above 0.9 (Karpathy et al. 2015, sec. 4.2). `forget` is the mean f
    of the forget gate, and `time` is 1 / (1 - f): the tokens after which a cell has forgotten all
    but 1 / e, for a nearly constant gate (Tallec & Ollivier 2018, sec. 2). Padding is left out.
    Raises LookupError for a model without an LSTM, ValueError for no batches.
    """
    sums: dict[LSTMLayer, dict[str, Tensor]] = {}
    counts: dict[LSTMLayer, int] = {}
    for batch in subject.batches(batches, batch_size=batch_size, num_examples=num_examples):
        for layer, layer_gates in compute_gates(subject, batch).items():
            layer_sums = sums.setdefault(layer, {})
            counts[layer] = counts.get(layer, 0) + int(layer_gates.valid.sum())
            for gate_name in GATES:
                gate = getattr(layer_gates, gate_name)[layer_gates.valid]
                for statistic, unit_values in (
                    (f"{gate_name}_left", gate < SHUT),
                    (f"{gate_name}_right", gate > OPEN),
                    (gate_name, gate),
                ):
                    unit_sums = reduce(unit_values.double(), "position unit -> unit", "sum").cpu()
                    layer_sums[statistic] = layer_sums.get(statistic, 0) + unit_sums
    if not sums:
        raise ValueError("no batches were given, so there are no gates to summarise")
    return {
        layer: _summarise_layer(layer_sums, counts[layer]) for layer, layer_sums in sums.items()
    }


def compute_gates(subject: Subject, batch: Batch) -> dict[LSTMLayer, Gates]:
    """Compute the gates and cells of every LSTM on a batch of the model.

    The library's fused cells return their hidden states h alone. At each position the gates are
    maps of the input and of the previous h, both of which a hook sees, so only c = f c + i g is
    run a second time (Hochreiter & Schmidhuber 1997; with the forget gate of Gers et al. 2000).
    Raises LookupError for a model without an LSTM.
    """
    model = subject.model
    layers = model.lstm_layers()
    if not layers:
        raise LookupError(f"this {type(model).__name__} has no LSTM, so there are no gates")
    gates_by_layer: dict[LSTMLayer, Gates] = {}
    batch = to_device(batch, subject.device)

    def build_hook(layer: LSTMLayer) -> Any:
        def hook(lstm: nn.LSTM, arguments: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
            _, valid = processed_tokens(model, layer.path, batch)
            x, *state = arguments
            hidden = outputs[0]
            activations = _recompute_layer_gates(lstm, x, hidden, state[0] if state else None)
            if layer.is_reversed:
                reversal = reversed_indices(hidden, valid)
                activations = [take_positions(activation, reversal) for activation in activations]
            input_gate, forget_gate, output_gate, cell = activations
            gates_by_layer[layer] = Gates(input_gate, forget_gate, output_gate, cell, valid)

        return hook

    with subject.observed(), ExitStack() as hooks:
        for layer in layers:
            handle = model.get_submodule(layer.path).register_forward_hook(build_hook(layer))
            hooks.callback(handle.remove)
        model(*batch.model_inputs)
    return {layer: gates_by_layer[layer] for layer in layers}


def _recompute_layer_gates(
    lstm: nn.LSTM,
    x: Float[Tensor, "batch seq width"],
    hidden: Float[Tensor, "batch seq d_model"],
    initial_state: Any,
) -> list[Float[Tensor, "batch seq d_model"]]:
    """Compute input, forget and output gate and the cell, in the layer's reading order."""
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.promote_types(lstm.all_weights[0][0].dtype, torch.float32)
        input_weight, state_weight, *biases = (weights.to(dtype) for weights in lstm.all_weights[0])
        x, hidden = x.to(dtype), hidden.to(dtype)
        if initial_state is None:
            first_hidden = cell = torch.zeros_like(hidden[:, 0])
        else:
            first_hidden, cell = (
                rearrange(tensor, "1 b d -> b d").to(dtype) for tensor in initial_state
            )
        previous_hidden = torch.cat(
            (rearrange(first_hidden, "b d -> b 1 d"), hidden[:, :-1]), dim=1
        )
        from_input = F.linear(x, input_weight, biases[0])
        from_state = F.linear(previous_hidden, state_weight, biases[1])
        # In the library's order (torch.nn.LSTM, "Variables").
        i, f, g, o = (from_input + from_state).chunk(4, dim=-1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        cells = []
        for position in range(x.shape[1]):
            cell = f[:, position] * cell + i[:, position] * g[:, position]
            cells.append(cell)
    return [i, f, o, torch.stack(cells, dim=1)]


def _summarise_layer(
    sum_by_statistic: dict[str, Tensor], num_positions: int
) -> dict[str, Float[Tensor, " unit"]]:
    """Return the means over positions, and the characteristic time by the mean forget gate."""
    mean_by_statistic = {
        statistic: total / num_positions
        for statistic, total in sum_by_statistic.items()
        if statistic not in ("input", "output")
    }
    mean_leak = (1 - mean_by_statistic["forget"]).clamp(min=torch.finfo(torch.float64).eps)
    return {**mean_by_statistic, "time": 1 / mean_leak}
