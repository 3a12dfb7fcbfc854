"""A mixture of experts against the dense network of its active FLOPs, and against Mixtral's."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from attnlab.config import compose, search_path
from attnlab.measure import take_turns
from bench.peers import MEDIUM, TINY, Shape
from bench.ratio import Times, table

SIZES = {"tiny": TINY, "medium": MEDIUM}
PRECISIONS = {"fp32": torch.float32, "bf16 autocast": torch.bfloat16}
ROUNDS = 21
LEAST = 0.1
"""Seconds of a turn at least."""

OURS, DENSE = "attnlab, moe", "attnlab, mlp"
MIXTRAL = ("Mixtral's block (transformers), eager", "Mixtral's block (transformers), grouped_mm")


class Mixtral(nn.Module):
    """Hugging Face's block, 2 of 8 gated experts, narrowed to the products of ours."""

    def __init__(self, d_model: int, experts: str) -> None:
        super().__init__()
        from transformers import MixtralConfig
        from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

        config = MixtralConfig(
            hidden_size=d_model,
            # Two experts of three matrices in place of two matrices of 4 x d_model.
            intermediate_size=8 * round(4 / 3 * d_model / 8),
            num_local_experts=8,
            num_experts_per_tok=2,
            experts_implementation=experts,  # pyright: ignore[reportCallIssue]
        )
        self.block = MixtralSparseMoeBlock(config)
        for weights in self.parameters():
            nn.init.uniform_(weights, -(d_model**-0.5), d_model**-0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Map (batch, seq, d_model) to the same; its balance is not in the block."""
        return self.block(x), {}


def arms(d_model: int) -> Mapping[str, nn.Module]:
    """Make all networks, of as many products for a token."""
    made: dict[str, nn.Module] = {}
    for choice in ("moe", "mixtral", "mlp", "swiglu"):
        with search_path() as own:
            ffn = compose([f"model/ffn={choice}"], own).build("model.ffn")
        made[f"attnlab, {choice}"] = ffn(d_model)
    for name in MIXTRAL:
        made[name] = Mixtral(d_model, name.rpartition(" ")[2])
    return made


def work(ffn: nn.Module, x: Tensor, upstream: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """Make a forward and backward pass; what the network adds to the loss is part of it."""

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            out, losses = ffn(x)
        torch.autograd.backward(
            [out, *losses.values()], [upstream.to(out.dtype), *(None for _ in losses)]
        )
        ffn.zero_grad()
        x.grad = None

    return run


def measure(shape: Shape, dtype: torch.dtype, rounds: int, least: float) -> Times:
    """Time all arms on the same tokens."""
    torch.manual_seed(0)
    x, upstream = (torch.randn(shape.batch, shape.length, shape.d_model) for _ in range(2))
    x.requires_grad_()
    works = {name: work(ffn, x, upstream, dtype) for name, ffn in arms(shape.d_model).items()}
    return take_turns(works, rounds, least_seconds=least)


def tables(
    sizes: Mapping[str, Shape] = SIZES, rounds: int = ROUNDS, least: float = LEAST
) -> Iterator[str]:
    """Give the lines of a table for each size and precision."""
    for size, shape in sizes.items():
        for name, dtype in PRECISIONS.items():
            said = (
                f"Forward and backward of the network alone, d={shape.d_model}, {shape.batch} x "
                f"{shape.length} tokens; {rounds} rounds. Goals for attnlab, moe: 1.3 of the dense "
                "one (mlp) at most, and no slower than Mixtral's block."
            )
            columns = {"of mlp": DENSE, "of moe": OURS}
            times = measure(shape, dtype, rounds, least)
            yield from table(f"{size}, {name}", said, times, columns)
