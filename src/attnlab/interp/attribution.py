"""What the answer hangs on, for any model: gradient times input; and what each layer mixes."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from attnlab.interp.observe import undisturbed
from attnlab.layers import MixingLayer
from attnlab.mixer.base import BothWays, Mixer, mirrored
from attnlab.model.base import Model
from attnlab.split import Batch
from attnlab.tap import Mixing, edit, edit_each

TOKENS = 4096
"""Tokens that are passed through at once, in copies of one sequence."""


def influence(
    model: Model, asked: Batch
) -> tuple[Float[Tensor, "batch label output"], Float[Tensor, "batch seq"]]:
    """Give the logits, and the share of each token in the last answer: |gradient x input|.

    The gradient is that of the likeliest output's logit by a token's embedding vector, times that
    vector, summed over its dimensions (Shrikumar et al. 2016; Denil et al. 2014, sec. 4). Shares
    are of absolute values and sum to 1; where no token has any, all are 0. They show what a small
    change would do, not what leaving a token out does.
    """
    return _influence(model, asked, -1)


def influence_matrix(model: Model, asked: Batch) -> Float[Tensor, "query key"]:
    """Give the `influence` of each token of one sequence on the answer at each position.

    Row q is what it is for a model that is asked at q. Every position has its row, whether or not
    the batch asks there, so that the axes are those of an attention pattern; with an encoder the
    rows are the positions of the prefix. A causal model's future is exactly 0.

    Raises ValueError for a batch of several sequences.
    """
    _require_one(asked)
    answering = asked.inputs if asked.prefix is None else asked.prefix
    rows = []
    with undisturbed(model):
        for some in _places(answering, asked.num_tokens):
            copies = Batch._make(
                None if part is None else repeat(part, "1 ... -> q ...", q=len(some))
                for part in asked
            )
            if asked.prefix is None:
                alone = copies._replace(at=rearrange(some, "q -> q 1"))
                rows.append(_influence(model, alone, 0)[1])
            else:
                rows.append(_influence(model, copies, some)[1])
    matrix = torch.cat(rows)
    # The Fourier transform of a long convolution leaves rounding errors there.
    return matrix.tril() if model.causal and asked.prefix is None else matrix


def mixing(
    model: Model, asked: Batch, *, traced: bool = True
) -> dict[MixingLayer, Float[Tensor, "head query key"]]:
    """Return who mixes whom in one sequence, of each layer without attention, in order of a pass.

    The layers are those of `Model.mixing_layers`. A mixer that is linear in its values shows its
    exact signed matrix, in the sequence's own positions also where it reads backwards. The trace of
    another one has one head: the part of each input vector in each output vector y along its own
    direction, gradient x input of y . y with the second y held fixed. Of a map that is linear in
    its inputs, row q adds up to |y_q|^2. Keys that are padding get 0. Traces cost a pass for each
    position; `traced=False` leaves them out.

    Raises ValueError for a batch of several sequences, and RuntimeError if a layer was not heard:
    a compiled model does not see hooks added after its compilation, so give the eager one.
    """
    _require_one(asked)
    layers = [layer for layer in model.mixing_layers() if traced or layer.is_linear]
    heard: dict[MixingLayer, Any] = {}
    linear = {layer: _mixing_tap(model, layer) for layer in layers if layer.is_linear}
    both_ways = [module for module in model.modules() if isinstance(module, BothWays)]
    mirrors: dict[nn.Module, Any] = {}
    with undisturbed(model):
        with torch.no_grad(), ExitStack() as hooks:
            hooks.enter_context(edit_each(linear, heard.__setitem__))
            for layer in layers:
                if not layer.is_linear:
                    hooks.enter_context(_inputs(model.get_submodule(layer.path), layer, heard))
            for module in both_ways:
                hooks.enter_context(_inputs(module, module, mirrors))
            model(*asked.given)
        if unheard := [layer.source for layer in layers if layer not in heard]:
            raise RuntimeError(f"{', '.join(unheard)} heard nothing; give the eager model")
        matrices = {}
        for layer in heard:
            if not layer.is_linear:
                mixer = model.get_submodule(layer.path)
                assert isinstance(mixer, Mixer)
                matrices[layer] = _traced(mixer, *heard[layer])
                continue
            matrices[layer] = heard[layer][0].float()
            for module in both_ways:
                # The tap of the second mixer passes a matrix in the order in which it reads.
                if linear[layer] in set(module.backwards.modules()):
                    (mirror,) = mirrored(*mirrors[module])
                    matrices[layer] = matrices[layer][:, mirror][:, :, mirror]
    return matrices


def shares(matrix: Float[Tensor, "*head query key"]) -> Float[Tensor, "*head query key"]:
    """Divide the sizes of a matrix's entries by the sum of their row; a row of zeros stays 0.

    So matrices of different mixers stand beside attention patterns.
    """
    sizes = matrix.abs()
    return sizes / sizes.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(sizes.dtype).tiny)


def _influence(
    model: Model, asked: Batch, label: int | Int[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch label output"], Float[Tensor, "batch seq"]]:
    """Give the influence on one of each sequence's answers."""
    vectors: list[Tensor] = []

    def watch(_name: str, value: Tensor) -> Tensor:
        vectors.append(value.detach().requires_grad_())
        return vectors[0]

    with _differentiable():
        with edit(model, "embedded", watch):
            logits, _ = model(*asked.given)
        best = logits[torch.arange(len(logits)), label].amax(dim=-1).sum()
        (gradient,) = torch.autograd.grad(best, vectors[0])
    products = reduce((gradient * vectors[0].detach()).float(), "b s d -> b s", "sum")
    return logits.detach(), shares(products)


def _mixing_tap(model: Model, layer: MixingLayer) -> Mixing:
    tap = model.get_submodule(layer.source)
    assert isinstance(tap, Mixing)
    return tap


def _inputs(module: nn.Module, key: Any, inputs: dict[Any, Any]) -> RemovableHandle:
    """Keep what a module is called with, under a key."""
    return module.register_forward_pre_hook(lambda _, given: inputs.__setitem__(key, given))


def _traced(
    mixer: Mixer,
    x: Float[Tensor, "1 seq d_model"],
    valid: Bool[Tensor, "1 seq"] | None = None,
) -> Float[Tensor, "1 seq seq"]:
    """Give the part of each input in each output, in the output's own direction."""
    rows = []
    for some in _places(x, x.shape[1]):
        each = repeat(x.detach(), "1 s d -> q s d", q=len(some)).requires_grad_()
        there = None if valid is None else repeat(valid, "1 s -> q s", q=len(some))
        with _differentiable():
            y = mixer(each, there)[torch.arange(len(some)), some]
            (gradient,) = torch.autograd.grad((y * y.detach()).sum(), each)
        rows.append(reduce((gradient * each.detach()).float(), "q s d -> q s", "sum"))
    matrix = torch.cat(rows)
    matrix = matrix.tril() if mixer.causal else matrix
    return rearrange(matrix if valid is None else matrix * valid, "q k -> 1 q k")


def _places(
    sequence: Shaped[Tensor, "1 seq *width"], tokens: int
) -> tuple[Int[Tensor, " place"], ...]:
    """Part the positions of a sequence, each of which has a copy of so many tokens to itself."""
    at = torch.arange(sequence.shape[1], device=sequence.device)
    return at.split(max(1, TOKENS // tokens))


@contextmanager
def _differentiable() -> Iterator[None]:
    # cuDNN's LSTM has no backward pass in evaluation mode.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        yield


def _require_one(asked: Batch) -> None:
    if len(asked.inputs) != 1:
        raise ValueError(f"{len(asked.inputs)} sequences; give one, as a batch of one")
