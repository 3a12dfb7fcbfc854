"""attnlab's LSTM against torch's own layer with an embedding and a head."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.config import compose, search_path
from attnlab.measure import take_turns
from attnlab.model.base import DECODER
from attnlab.recurrence.cells import Cells
from bench.moe import LEAST, PRECISIONS, ROUNDS, SIZES
from bench.peers import NUM_TOKENS, Shape
from bench.ratio import Times, table
from bench.step import Answers

OURS, BARE = "attnlab, lstm", "torch.nn.LSTM"


class Bare(nn.Module):
    """Tokens in, logits out, and all layers in one module between.

    It is `torch.nn.LSTM`, except on a CPU where that refuses bfloat16: there it falls back as ours.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.d_model
        self.tokens, self.head = nn.Embedding(NUM_TOKENS, width), nn.Linear(width, NUM_TOKENS)
        self.lstm = Cells(width, width, shape.num_layers, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        """Give logits at every position."""
        return self.head(self.lstm(self.tokens(inputs))[0])


def arms(shape: Shape) -> Mapping[str, nn.Module]:
    """Make both."""
    words = ("variant=lstm", f"model.num_layers={shape.num_layers}")
    with search_path() as own:
        config = compose([*words, f"model.d_model={shape.d_model}"], own)
    ours = config.build("model", NUM_TOKENS, NUM_TOKENS, shape.length, DECODER)
    return {OURS: Answers(ours), BARE: Bare(shape)}


def work(
    model: nn.Module, inputs: Tensor, targets: Tensor, dtype: torch.dtype
) -> Callable[[], None]:
    """Make a forward and backward pass with its loss."""

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            loss = F.cross_entropy(model(inputs).flatten(0, 1).float(), targets.flatten())
        loss.backward()
        model.zero_grad()

    return run


def measure(shape: Shape, dtype: torch.dtype, rounds: int, least: float) -> Times:
    """Time both on the same tokens."""
    torch.manual_seed(0)
    inputs, targets = (torch.randint(NUM_TOKENS, (shape.batch, shape.length)) for _ in range(2))
    works = {name: work(model, inputs, targets, dtype) for name, model in arms(shape).items()}
    return take_turns(works, rounds, least_seconds=least)


def tables(
    sizes: Mapping[str, Shape] = SIZES, rounds: int = ROUNDS, least: float = LEAST
) -> Iterator[str]:
    """Give the lines of a table for each size and precision."""
    for size, shape in sizes.items():
        for name, dtype in PRECISIONS.items():
            said = (
                f"Forward, loss and backward, {shape.num_layers} layers, d={shape.d_model}, "
                f"{shape.batch} x {shape.length} tokens; {rounds} rounds. Goal: 1.05 at most."
            )
            times = measure(shape, dtype, rounds, least)
            yield from table(f"{size}, {name}", said, times, {"of torch.nn.LSTM": BARE})
