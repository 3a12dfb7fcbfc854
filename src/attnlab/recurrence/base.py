"""What the recurrences share: precision, mixing matrices, chunks, and optional kernels."""

from collections.abc import Callable, Sequence
from functools import cache, wraps
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar, cast

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from attnlab.padding import add_padding
from attnlab.tap import Mixing

CHUNK = 32
"""Number of positions in a chunk."""

Recur = TypeVar("Recur", bound=Callable[..., Any])


def exact(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return `x` in at least float32: lower precision loses too much in sums over a sequence."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def exactly(recur: Recur) -> Recur:
    """Wrap a recurrence so that it computes in at least float32, under autocast too."""

    @wraps(recur)
    def run(*args: Any) -> Any:
        exact_args = [exact(x) if isinstance(x, Tensor) else x for x in args]
        with torch.autocast(args[0].device.type, enabled=False):
            return recur(*exact_args)

    return cast(Recur, run)


def mix(
    mixing: Mixing,
    recur: Callable[[Tensor], Tensor],
    value: Float[Tensor, "batch head seq d_value"],
    valid: Bool[Tensor, "batch seq"] | None,
) -> Float[Tensor, "batch head seq d_value"]:
    """Return the output of `recur`, which is linear in the values, through its matrix if recorded.

    While `mixing` has a listener, the matrix is computed as `recur` of the identity, and passes the
    tap as (batch, head, query, key), signed; what the tap returns mixes the values. In the tap,
    padded keys have weight 0; the weights of padding on padding are added after it.
    """
    if not mixing.has_listeners:
        return recur(value)
    batch, num_heads, seq, _ = value.shape
    identity = torch.eye(seq, dtype=exact(value).dtype, device=value.device)
    matrix = recur(repeat(identity, "q k -> b h q k", b=batch, h=num_heads))
    if valid is None:
        return _weigh_values(mixing(matrix), value)
    # What the mask takes away is added behind the tap. So a reader sees no weight on padding, and
    # the output is the one without a reader, at the positions of padding too.
    visible = matrix.masked_fill(~rearrange(valid, "b k -> b 1 1 k"), 0.0)
    return _weigh_values(mixing(visible) + (matrix - visible), value)


@exactly
def _weigh_values(matrix: Tensor, value: Tensor) -> Tensor:
    return matrix @ value


def split(x: Float[Tensor, "batch head seq *width"]) -> Float[Tensor, "batch head _ _ *width"]:
    """Split a sequence into chunks; zeros fill the last one."""
    # A key or value of 0 writes nothing, and a log-decay of 0 fades nothing, so the state after the
    # last chunk is that after the last position; generation goes on from it.
    missing = -x.shape[2] % CHUNK
    if missing:
        x = F.pad(x, (0, 0) * (x.ndim - 3) + (0, missing))
    return rearrange(x, "b h (n c) ... -> b h n c ...", c=CHUNK)


def add_chunk_padding(seq: int, flops: Callable[[int], int]) -> None:
    """Count the FLOPs of the last chunk's padding; `flops` returns those of a chunk by length."""
    missing = -seq % CHUNK
    if missing:
        add_padding(flops(CHUNK) - flops(CHUNK - missing))


def join(
    chunks: Float[Tensor, "batch head chunk within width"], seq: int
) -> Float[Tensor, "batch head _ width"]:
    """Concatenate the chunks to a sequence of `seq` positions, without the padding of the last."""
    return rearrange(chunks, "b h n c d -> b h (n c) d")[:, :, :seq]


def remaining(
    cumulated: Float[Tensor, "batch head chunk within"],
) -> Float[Tensor, "batch head chunk within within"]:
    """Return the share that a later position (row) still has of what an earlier (column) wrote.

    `cumulated` has the sums of log-decays since the start of the chunk. Future columns are masked
    before the exp, so that no exponent is positive.
    """
    later, earlier = cumulated[..., :, None], cumulated[..., None, :]
    future = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=cumulated.device).triu(1)
    return (later - earlier).masked_fill(future, -torch.inf).exp()


def carry(
    written: Float[Tensor, "batch head chunk d_key d_value"],
    share: Float[Tensor, "#batch head chunk #d_key 1"] | None,
    state: Float[Tensor, "batch head d_key d_value"] | None,
) -> tuple[
    Float[Tensor, "batch head chunk d_key d_value"], Float[Tensor, "batch head d_key d_value"]
]:
    """Return the state before each chunk, and after the last: state = share * state + written."""
    state = torch.zeros_like(written[:, :, 0]) if state is None else state
    states_before = []
    chunk_shares: Sequence[Tensor | None] = (
        [None] * written.shape[2] if share is None else share.unbind(2)
    )
    for chunk_written, chunk_share in zip(written.unbind(dim=2), chunk_shares, strict=True):
        states_before.append(state)
        state = (
            chunk_written + state
            if chunk_share is None
            else torch.addcmul(chunk_written, chunk_share, state)
        )
    return torch.stack(states_before, dim=2), state


def kernel(name: str, query: Tensor) -> Callable[..., tuple[Tensor, Tensor]] | None:
    """Return a chunked kernel of the flash-linear-attention package (`fla`); None if none applies.

    One applies on CUDA in bfloat16, whose products are accumulated in float32: under autocast, or
    where the mixer keeps the low precision of its inputs. In float32 there is none: the package
    rounds its products, and its delta rules raise. In float16 there is none either: the normaliser
    of linear attention would overflow after some thousand tokens.
    """
    dtype = _kernel_dtype(query)
    if dtype is None or not _is_installed():
        return None
    chunked = getattr(import_module(f"fla.ops.{name}"), f"chunk_{name}")

    def run(
        query: Tensor, key: Tensor, value: Tensor, state: Tensor | None, **gates: Tensor
    ) -> tuple[Tensor, Tensor]:
        low_parts = {"q": query.to(dtype), "k": key.to(dtype), "v": value.to(dtype)}
        parts = low_parts | {gate: exact(x) for gate, x in gates.items()}
        out, last = chunked(
            **{part: _sequence_first(x, value) for part, x in parts.items()},
            scale=1.0,
            initial_state=None if state is None else exact(state),
            output_final_state=True,
        )
        return exact(rearrange(out, "b s h d -> b h s d")), exact(last)

    return run


def _sequence_first(x: Tensor, value: Tensor) -> Tensor:
    """Repeat what heads or sequences share, in the axes of the package: (batch, seq, head, ...)."""
    repeated = x.expand(*value.shape[:2], *x.shape[2:])
    return rearrange(repeated, "b h s ... -> b s h ...").contiguous()


def _kernel_dtype(x: Tensor) -> torch.dtype | None:
    """Return the precision in which a kernel can compute with `x`; None if it cannot."""
    if not x.is_cuda:
        return None
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    return dtype if dtype is torch.bfloat16 else None


@cache
def _is_installed() -> bool:
    return find_spec("fla") is not None
