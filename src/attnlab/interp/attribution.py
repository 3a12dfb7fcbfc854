"""Attribution for any model: gradient times input, and the mixing of layers without attention."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from attnlab.interp.observe import isolated_evaluation
from attnlab.layers import MixingLayer
from attnlab.mixer.base import Bidirectional, Mixer, reversed_indices
from attnlab.model.base import Model
from attnlab.split import Batch
from attnlab.tap import Mixing, edit, edit_each

TOKENS = 4096
"""Tokens of one forward pass, in copies of one sequence."""


def influence(
    model: Model, batch: Batch
) -> tuple[Float[Tensor, "batch label output"], Float[Tensor, "batch seq"]]:
    """Compute the logits, and the share of each token in the last answer by |gradient x input|.

    The gradient of the likeliest output's logit by a token's embedding vector, times that vector,
    summed over its dimensions (Shrikumar et al. 2016; Denil et al. 2014, sec. 4). Shares are of
    absolute values and sum to 1; if all gradients are 0, so are the shares. They show the effect of
    a small change, not that of leaving a token out.
    """
    return _label_influence(model, batch, -1)


def influence_matrix(model: Model, batch: Batch) -> Float[Tensor, "query key"]:
    """Compute the `influence` of each token of one sequence on the answer at each position.

    Row q is the influence on an answer read from position q. Every position has a row, whether or
    not the batch has a label there, so the axes are those of an attention pattern. With an encoder,
    the rows are the positions of the prefix. For a causal model, later tokens are exactly 0.

    Raises ValueError for a batch of several sequences.
    """
    _require_single(batch)
    answering_sequence = batch.inputs if batch.prefix is None else batch.prefix
    rows = []
    with isolated_evaluation(model):
        for positions in _split_positions(answering_sequence, batch.num_tokens):
            copies = Batch._make(
                None if tensor is None else repeat(tensor, "1 ... -> q ...", q=len(positions))
                for tensor in batch
            )
            if batch.prefix is None:
                single_label = copies._replace(at=rearrange(positions, "q -> q 1"))
                rows.append(_label_influence(model, single_label, 0)[1])
            else:
                rows.append(_label_influence(model, copies, positions)[1])
    matrix = torch.cat(rows)
    # The Fourier transform of a long convolution leaves rounding errors at later tokens.
    return matrix.tril() if model.causal and batch.prefix is None else matrix


def mixing_matrices(
    model: Model, batch: Batch, *, traced: bool = True
) -> dict[MixingLayer, Float[Tensor, "head query key"]]:
    """Compute the mixing matrix of each layer without attention, in the order of the pass.

    The layers are those of `Model.mixing_layers`. For a mixer that is linear in its values, it is
    the exact signed matrix, in the positions of the sequence even if the mixer reads backwards. For
    any other mixer, it is a trace with one head: the part of each input vector in each output
    vector y along the direction of y, which is gradient x input of y . y with the second y held
    fixed. If the mixer is linear in its inputs, row q of the trace sums to |y_q|^2. Keys that are
    padding get 0. Traces cost a pass for each position; `traced=False` leaves them out.

    Raises ValueError for a batch of several sequences, and RuntimeError if a hook was not called:
    a compiled model does not see hooks added after its compilation, so pass the eager one.
    """
    _require_single(batch)
    layers = [layer for layer in model.mixing_layers() if traced or layer.is_linear]
    if not layers:
        return {}
    recorded: dict[MixingLayer, Any] = {}
    taps_of_linear = {layer: _mixing_tap(model, layer) for layer in layers if layer.is_linear}
    bidirectional = [module for module in model.modules() if isinstance(module, Bidirectional)]
    inputs_of_bidirectional: dict[nn.Module, Any] = {}
    with isolated_evaluation(model):
        with torch.no_grad(), ExitStack() as hooks:
            hooks.enter_context(edit_each(taps_of_linear, recorded.__setitem__))
            for layer in layers:
                if not layer.is_linear:
                    hooks.enter_context(
                        _record_inputs(model.get_submodule(layer.path), layer, recorded)
                    )
            for module in bidirectional:
                hooks.enter_context(_record_inputs(module, module, inputs_of_bidirectional))
            model(*batch.model_inputs)
        if silent_sources := [layer.source for layer in layers if layer not in recorded]:
            raise RuntimeError(f"{', '.join(silent_sources)} heard nothing; give the eager model")
        matrices = {}
        for layer in recorded:
            if not layer.is_linear:
                mixer = model.get_submodule(layer.path)
                assert isinstance(mixer, Mixer)
                matrices[layer] = _trace_matrix(mixer, *recorded[layer])
                continue
            matrices[layer] = recorded[layer][0].float()
            for module in bidirectional:
                # The matrix of the backward mixer is in the reversed order in which it reads.
                if taps_of_linear[layer] in set(module.backwards.modules()):
                    (reversal,) = reversed_indices(*inputs_of_bidirectional[module])
                    matrices[layer] = matrices[layer][:, reversal][:, :, reversal]
    return matrices


def shares(matrix: Float[Tensor, "*head query key"]) -> Float[Tensor, "*head query key"]:
    """Return |entry| over the sum of its row; a row of zeros stays 0.

    This makes the matrices of different mixers comparable with attention patterns.
    """
    sizes = matrix.abs()
    return sizes / sizes.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(sizes.dtype).tiny)


def _label_influence(
    model: Model, batch: Batch, label: int | Int[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch label output"], Float[Tensor, "batch seq"]]:
    """Compute the logits, and each token's share of |gradient x input| at one label a sequence."""
    embedded: list[Tensor] = []

    def replace_by_leaf(_name: str, value: Tensor) -> Tensor:
        embedded.append(value.detach().requires_grad_())
        return embedded[0]

    with _differentiable():
        with edit(model, "embedded", replace_by_leaf):
            logits, _ = model(*batch.model_inputs)
        top_logit_sum = logits[torch.arange(len(logits)), label].amax(dim=-1).sum()
        (gradient,) = torch.autograd.grad(top_logit_sum, embedded[0])
    products = reduce((gradient * embedded[0].detach()).float(), "b s d -> b s", "sum")
    return logits.detach(), shares(products)


def _mixing_tap(model: Model, layer: MixingLayer) -> Mixing:
    tap = model.get_submodule(layer.source)
    assert isinstance(tap, Mixing)
    return tap


def _record_inputs(module: nn.Module, key: Any, recorded: dict[Any, Any]) -> RemovableHandle:
    """Record the arguments that a module is called with in `recorded[key]`."""
    return module.register_forward_pre_hook(
        lambda _, arguments: recorded.__setitem__(key, arguments)
    )


def _trace_matrix(
    mixer: Mixer,
    x: Float[Tensor, "1 seq d_model"],
    valid: Bool[Tensor, "1 seq"] | None = None,
) -> Float[Tensor, "1 seq seq"]:
    """Compute the part of each input in each output, along the direction of the output."""
    rows = []
    for positions in _split_positions(x, x.shape[1]):
        copies = repeat(x.detach(), "1 s d -> q s d", q=len(positions)).requires_grad_()
        copies_valid = None if valid is None else repeat(valid, "1 s -> q s", q=len(positions))
        with _differentiable():
            y = mixer(copies, copies_valid)[torch.arange(len(positions)), positions]
            (gradient,) = torch.autograd.grad((y * y.detach()).sum(), copies)
        rows.append(reduce((gradient * copies.detach()).float(), "q s d -> q s", "sum"))
    matrix = torch.cat(rows)
    matrix = matrix.tril() if mixer.causal else matrix
    return rearrange(matrix if valid is None else matrix * valid, "q k -> 1 q k")


def _split_positions(
    sequence: Shaped[Tensor, "1 seq *width"], tokens_per_copy: int
) -> tuple[Int[Tensor, " place"], ...]:
    """Split positions into chunks, so that a chunk's copies have at most TOKENS tokens.

    Each position has a copy of `tokens_per_copy` tokens to itself.
    """
    positions = torch.arange(sequence.shape[1], device=sequence.device)
    return positions.split(max(1, TOKENS // tokens_per_copy))


@contextmanager
def _differentiable() -> Iterator[None]:
    # cuDNN's LSTM has no backward pass in evaluation mode.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        yield


def _require_single(batch: Batch) -> None:
    if len(batch.inputs) != 1:
        raise ValueError(f"{len(batch.inputs)} sequences; give one, as a batch of one")
