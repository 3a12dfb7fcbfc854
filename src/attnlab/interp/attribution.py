"""Attribution for any model: gradient times input, and the mixing of layers without attention."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
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


def logits_and_influence(
    model: Model, batch: Batch
) -> tuple[Float[Tensor, "batch label output"], Float[Tensor, "batch seq"]]:
    """Compute the logits, and the share of each token in the last answer by |gradient x input|.

    The gradient of the likeliest output's logit by a token's embedding vector, times that vector,
    summed over its dimensions (Shrikumar et al. 2016; Denil et al. 2014, sec. 4). Shares are of
    absolute values and sum to 1; if all gradients are 0, so are the shares. They show the effect of
    a small change, not that of leaving a token out.
    """
    return _logits_and_label_influence(model, batch, -1)


def influence_matrix(model: Model, batch: Batch) -> Float[Tensor, "query key"]:
    """Compute the `influence` of each token of one sequence on the answer at each position.

    Row q is the influence on an answer read from position q. Every position has a row, whether or
    not the batch has a label there, so the axes are those of an attention pattern. With an encoder,
    the rows are the positions of the prefix. For a causal model, later tokens are exactly 0.

    Raises ValueError for a batch of several sequences.
    """
    _require_single_sequence(batch)
    answering_tokens = batch.inputs if batch.prefix is None else batch.prefix
    influence_rows = []
    with isolated_evaluation(model):
        for positions in _split_positions(answering_tokens, batch.num_tokens):
            copied_batch = Batch._make(
                None if tensor is None else repeat(tensor, "1 ... -> q ...", q=len(positions))
                for tensor in batch
            )
            if batch.prefix is None:
                single_label_batch = copied_batch._replace(at=rearrange(positions, "q -> q 1"))
                _, shares = _logits_and_label_influence(model, single_label_batch, 0)
            else:
                _, shares = _logits_and_label_influence(model, copied_batch, positions)
            influence_rows.append(shares)
    matrix = torch.cat(influence_rows)
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
    _require_single_sequence(batch)
    layers = [layer for layer in model.mixing_layers() if traced or layer.is_linear]
    if not layers:
        return {}
    with isolated_evaluation(model):
        recording = _record_mixing(model, batch, layers)
        return {
            layer: _matrix_in_sequence_order(model, layer, recording)
            if layer.is_linear
            else _trace_matrix(_mixer_module(model, layer), *recording.mixer_arguments[layer])
            for layer in recording.layers_in_order
        }


@dataclass
class _MixingRecording:
    """What the layers without attention passed on in one forward pass over one sequence."""

    layers_in_order: dict[MixingLayer, None] = field(default_factory=dict)
    """The layers as keys, in the order of the pass."""
    tap_matrices: dict[MixingLayer, Float[Tensor, "1 head query key"]] = field(default_factory=dict)
    """The matrix at the tap of each linear layer, in the order in which its mixer reads."""
    mixer_arguments: dict[MixingLayer, tuple[Any, ...]] = field(default_factory=dict)
    """The call arguments of the mixer of each other layer."""
    bidirectional_arguments: dict[Bidirectional, tuple[Any, ...]] = field(default_factory=dict)
    """The call arguments of each bidirectional mixer."""


def _record_mixing(model: Model, batch: Batch, layers: Sequence[MixingLayer]) -> _MixingRecording:
    """Run the model and record matrices and call arguments. Raises RuntimeError if a hook fails."""
    recording = _MixingRecording()

    def record_matrix(layer: MixingLayer, matrix: Tensor) -> None:
        recording.layers_in_order[layer] = None
        recording.tap_matrices[layer] = matrix

    def record_arguments(layer: MixingLayer, arguments: tuple[Any, ...]) -> None:
        recording.layers_in_order[layer] = None
        recording.mixer_arguments[layer] = arguments

    linear_taps = {layer: _mixing_tap(model, layer) for layer in layers if layer.is_linear}
    with torch.no_grad(), ExitStack() as hooks:
        hooks.enter_context(edit_each(linear_taps, record_matrix))
        for layer in layers:
            if not layer.is_linear:
                mixer = model.get_submodule(layer.path)
                hooks.enter_context(_add_call_hook(mixer, partial(record_arguments, layer)))
        for module in model.modules():
            if isinstance(module, Bidirectional):
                record = partial(recording.bidirectional_arguments.__setitem__, module)
                hooks.enter_context(_add_call_hook(module, record))
        model(*batch.model_inputs)
    if silent_sources := [
        layer.source for layer in layers if layer not in recording.layers_in_order
    ]:
        raise RuntimeError(f"{', '.join(silent_sources)} heard nothing; give the eager model")
    return recording


def _matrix_in_sequence_order(
    model: Model, layer: MixingLayer, recording: _MixingRecording
) -> Float[Tensor, "head query key"]:
    """Return the recorded matrix of a linear layer in the positions of the sequence."""
    (tap_matrix,) = recording.tap_matrices[layer]
    matrix = tap_matrix.float()
    for module, arguments in recording.bidirectional_arguments.items():
        # The matrix of the backward mixer is in the reversed order in which it reads.
        if _mixing_tap(model, layer) in set(module.backwards.modules()):
            (reversal,) = reversed_indices(*arguments)
            matrix = matrix[:, reversal][:, :, reversal]
    return matrix


def row_shares(matrix: Float[Tensor, "*head query key"]) -> Float[Tensor, "*head query key"]:
    """Return |entry| over the sum of its row; a row of zeros stays 0.

    This makes the matrices of different mixers comparable with attention patterns.
    """
    sizes = matrix.abs()
    return sizes / sizes.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(sizes.dtype).tiny)


def _logits_and_label_influence(
    model: Model, batch: Batch, label_index: int | Int[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch label output"], Float[Tensor, "batch seq"]]:
    """Compute the logits, and each token's share of |gradient x input| at one label a sequence."""
    embedding_leaves: list[Tensor] = []

    def replace_by_leaf(_tap_name: str, embedding: Tensor) -> Tensor:
        embedding_leaves.append(embedding.detach().requires_grad_())
        return embedding_leaves[0]

    with _enable_gradients():
        with edit(model, "embedded", replace_by_leaf):
            logits, _ = model(*batch.model_inputs)
        top_logit_sum = logits[torch.arange(len(logits)), label_index].amax(dim=-1).sum()
        leaf = embedding_leaves[0]
        (gradient,) = torch.autograd.grad(top_logit_sum, leaf)
    products = reduce((gradient * leaf.detach()).float(), "b s d -> b s", "sum")
    return logits.detach(), row_shares(products)


def _mixing_tap(model: Model, layer: MixingLayer) -> Mixing:
    tap = model.get_submodule(layer.source)
    assert isinstance(tap, Mixing)
    return tap


def _add_call_hook(
    module: nn.Module, receive_arguments: Callable[[tuple[Any, ...]], None]
) -> RemovableHandle:
    """Register a hook that passes on the arguments with which a module is called."""
    return module.register_forward_pre_hook(lambda _, arguments: receive_arguments(arguments))


def _mixer_module(model: Model, layer: MixingLayer) -> Mixer:
    mixer = model.get_submodule(layer.path)
    assert isinstance(mixer, Mixer)
    return mixer


def _trace_matrix(
    mixer: Mixer,
    x: Float[Tensor, "1 seq d_model"],
    valid: Bool[Tensor, "1 seq"] | None = None,
) -> Float[Tensor, "1 seq seq"]:
    """Compute the part of each input in each output, along the direction of the output."""
    trace_rows = []
    for positions in _split_positions(x, x.shape[1]):
        copies = repeat(x.detach(), "1 s d -> q s d", q=len(positions)).requires_grad_()
        copies_valid = None if valid is None else repeat(valid, "1 s -> q s", q=len(positions))
        with _enable_gradients():
            y = mixer(copies, copies_valid)[torch.arange(len(positions)), positions]
            (gradient,) = torch.autograd.grad((y * y.detach()).sum(), copies)
        trace_rows.append(reduce((gradient * copies.detach()).float(), "q s d -> q s", "sum"))
    matrix = torch.cat(trace_rows)
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
def _enable_gradients() -> Iterator[None]:
    # cuDNN's LSTM has no backward pass in evaluation mode.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        yield


def _require_single_sequence(batch: Batch) -> None:
    if len(batch.inputs) != 1:
        raise ValueError(f"{len(batch.inputs)} sequences; give one, as a batch of one")
