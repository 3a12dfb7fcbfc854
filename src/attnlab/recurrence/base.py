"""What the recurrences share: precision, the matrix they are, chunks, and optional kernels."""

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
"""Positions that are worked on at once."""

Recur = TypeVar("Recur", bound=Callable[..., Any])


def exact(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Give at least float32: sums over a whole sequence do not fit in less."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def exactly(recur: Recur) -> Recur:
    """Let a recurrence work in at least float32, under autocast too."""

    @wraps(recur)
    def run(*args: Any) -> Any:
        given = [exact(x) if isinstance(x, Tensor) else x for x in args]
        with torch.autocast(args[0].device.type, enabled=False):
            return recur(*given)

    return cast(Recur, run)


def mix(
    mixing: Mixing,
    recur: Callable[[Tensor], Tensor],
    value: Float[Tensor, "batch head seq d_value"],
    valid: Bool[Tensor, "batch seq"] | None,
) -> Float[Tensor, "batch head seq d_value"]:
    """Run a recurrence that is linear in the values; where `mixing` is heard, as the matrix it is.

    What then passes the tap is (batch, head, query, key), signed, and what comes out of it mixes
    the values. It is what the recurrence makes of the identity in their place. Keys that are
    padding get 0; the little that padding itself reads of padding goes by the tap.
    """
    if not mixing.heard:
        return recur(value)
    batch, num_heads, seq, _ = value.shape
    identity = torch.eye(seq, dtype=exact(value).dtype, device=value.device)
    matrix = recur(repeat(identity, "q k -> b h q k", b=batch, h=num_heads))
    if valid is None:
        return _weighed(mixing(matrix), value)
    shown = matrix.masked_fill(~rearrange(valid, "b k -> b 1 1 k"), 0.0)
    return _weighed(mixing(shown) + (matrix - shown), value)


@exactly
def _weighed(matrix: Tensor, value: Tensor) -> Tensor:
    return matrix @ value


def split(x: Float[Tensor, "batch head seq *width"]) -> Float[Tensor, "batch head _ _ *width"]:
    """Cut a sequence into chunks; zeros fill the last one."""
    missing = -x.shape[2] % CHUNK
    if missing:
        x = F.pad(x, (0, 0) * (x.ndim - 3) + (0, missing))
    return rearrange(x, "b h (n c) ... -> b h n c ...", c=CHUNK)


def add_chunk_padding(seq: int, flops: Callable[[int], int]) -> None:
    """Count the padding of the last chunk; `flops` gives the FLOPs of a chunk of some positions."""
    missing = -seq % CHUNK
    if missing:
        add_padding(flops(CHUNK) - flops(CHUNK - missing))


def join(
    chunks: Float[Tensor, "batch head chunk within width"], seq: int
) -> Float[Tensor, "batch head _ width"]:
    """Put the chunks together again, without what filled the last one."""
    return rearrange(chunks, "b h n c d -> b h (n c) d")[:, :, :seq]


def remaining(
    cumulated: Float[Tensor, "batch head chunk within"],
) -> Float[Tensor, "batch head chunk within within"]:
    """Give what is left at a later position (row) of what was written at an earlier (column).

    From the sums of the log-decays since the chunk began; the future is masked before the exp,
    which therefore sees no positive number.
    """
    later, earlier = cumulated[..., :, None], cumulated[..., None, :]
    future = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=cumulated.device).triu(1)
    return (later - earlier).masked_fill(future, -torch.inf).exp()


def carry(
    written: Float[Tensor, "batch head chunk d_key d_value"],
    kept: Float[Tensor, "#batch head chunk #d_key 1"] | None,
    state: Float[Tensor, "batch head d_key d_value"] | None,
) -> tuple[
    Float[Tensor, "batch head chunk d_key d_value"], Float[Tensor, "batch head d_key d_value"]
]:
    """Give the state before each chunk and after the last: what is kept, and what is written."""
    state = torch.zeros_like(written[:, :, 0]) if state is None else state
    before = []
    shares: Sequence[Tensor | None] = [None] * written.shape[2] if kept is None else kept.unbind(2)
    for new, share in zip(written.unbind(dim=2), shares, strict=True):
        before.append(state)
        state = new + state if share is None else torch.addcmul(new, share, state)
    return torch.stack(before, dim=2), state


def kernel(name: str, query: Tensor) -> Callable[..., tuple[Tensor, Tensor]] | None:
    """Find a chunked kernel of the flash-linear-attention package (`fla`), where one can serve.

    That is on CUDA in bfloat16, products in which accumulate in float32: under autocast, or where
    the mixer keeps the low precision of its inputs. In float32 the plain form stays: there the
    package rounds its products, and its delta rules refuse. So it does in float16, in which the
    sum that linear attention divides by would overflow after some thousand tokens.
    """
    low = _low(query)
    if low is None or not _installed():
        return None
    chunked = getattr(import_module(f"fla.ops.{name}"), f"chunk_{name}")

    def run(
        query: Tensor, key: Tensor, value: Tensor, state: Tensor | None, **gates: Tensor
    ) -> tuple[Tensor, Tensor]:
        low_parts = {"q": query.to(low), "k": key.to(low), "v": value.to(low)}
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
    """Repeat what heads or sequences share, and lay it out as the package wants it."""
    whole = x.expand(*value.shape[:2], *x.shape[2:])
    return rearrange(whole, "b h s ... -> b s h ...").contiguous()


def _low(x: Tensor) -> torch.dtype | None:
    """Name the precision in which a kernel can take the products of `x` on its GPU."""
    if not x.is_cuda:
        return None
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    return dtype if dtype is torch.bfloat16 else None


@cache
def _installed() -> bool:
    return find_spec("fla") is not None
