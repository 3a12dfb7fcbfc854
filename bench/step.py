"""A training step of attnlab and of its peers, all taking turns in one process."""

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.config import compose, search_path
from attnlab.dataset.base import Dataset, random_stream
from attnlab.dataset.loader import Loader
from attnlab.experiment import Experiment
from attnlab.fit import fit
from attnlab.model.base import Model
from attnlab.optimizer.adamw import AdamW
from attnlab.run_record.attempt import Attempt
from attnlab.split import Split, Windows
from bench.peers import MEDIUM, NUM_TOKENS, PEERS, TINY, Shape

BARE, TRAINED = "attnlab, bare loop", "attnlab, as `train` runs it"
PRECISIONS = {"fp32": "32-true", "bf16 autocast": "bf16-mixed", "bf16 throughout": "bf16-true"}
"""Lightning's name for each kind of step."""


@dataclass(frozen=True)
class Cell:
    """One shape in one precision: `rounds` turns of `chunk` steps for each arm, and one before."""

    shape: Shape
    precision: str
    chunk: int
    rounds: int


CELLS = {
    f"{size}, {name}": Cell(shape, precision, chunk, rounds)
    for size, shape, chunk, rounds in (("tiny", TINY, 10, 9), ("medium", MEDIUM, 1, 11))
    for name, precision in PRECISIONS.items()
}

Times = Mapping[str, list[float]]
"""Seconds that each arm took for its chunk, round by round."""


def table(cells: Mapping[str, Cell]) -> Iterator[str]:
    """Measure cells, and give the lines of a Markdown table for each."""
    for name, cell in cells.items():
        times, shape = measure(cell), cell.shape
        ratios = against_best(times)
        yield from ("", f"### {name[0].upper()}{name[1:]}", "")
        yield (
            f"{shape.num_layers} layers, d={shape.d_model}, {shape.num_heads} heads, "
            f"{shape.batch} x {shape.length} tokens; {cell.rounds} rounds of {cell.chunk} steps."
        )
        yield from ("", "| arm | ms a step | best peer / arm |", "|---|---|---|")
        for arm in (TRAINED, BARE, *PEERS):
            step = 1000 * statistics.median(times[arm]) / cell.chunk
            yield f"| {arm} | {step:.1f} | {ratios[arm]:.3f} |"


def measure(cell: Cell) -> Times:
    """Time all arms of a cell in turn."""
    torch.manual_seed(0)
    trained = experiment(cell)
    loops = {BARE: loop(Answers(experiment(cell).model), cell, trained.dataset)}
    for name, make in PEERS.items():
        loops[name] = loop(make(cell.shape), cell, trained.dataset)
    turns = Turns(loops, cell)
    with tempfile.TemporaryDirectory() as directory:
        attempt = Attempt.claim(Path(directory, "run"), {"bench": "step"})
        fit(trained, attempt, None, callbacks=[turns])
    return turns.times


def against_best(times: Times) -> dict[str, float]:
    """Give the median over rounds of best peer / arm; for the best peer, the next best stands in.

    The best is the peer with the lowest median, not each round's luckiest.
    """
    order = sorted((n for n in times if n in PEERS), key=lambda n: statistics.median(times[n]))

    def ratio(name: str) -> float:
        best = next(peer for peer in order if peer != name)
        pairs = zip(times[best], times[name], strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)

    return {name: ratio(name) for name in times}


class Turns(pl.Callback):
    """Lets the loops run a chunk of steps before each of attnlab's; the first round warms up."""

    def __init__(self, loops: Mapping[str, Callable[[], None]], cell: Cell) -> None:
        self.loops, self.cell = loops, cell
        self.times: dict[str, list[float]] = defaultdict(list)
        self.began = 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        number, place = divmod(trainer.global_step, self.cell.chunk)
        if place:
            return
        if number > 1:
            self.times[TRAINED].append(time.perf_counter() - self.began)
        # The step that is left closes the last round, and the validation after it is not timed.
        if number > self.cell.rounds:
            return
        names, first = list(self.loops), number % len(self.loops)
        for name in names[first:] + names[:first]:
            began = time.perf_counter()
            for _ in range(self.cell.chunk):
                self.loops[name]()
            if number > 0:
                self.times[name].append(time.perf_counter() - began)
        self.began = time.perf_counter()


class Noise(Dataset):
    """Random tokens; each position is asked for the next one."""

    def __init__(self, length: int) -> None:
        self.max_length, self.tokens = length, [str(token) for token in range(NUM_TOKENS)]

    def build_split(self, split: str, earlier: Mapping[str, Split]) -> Windows:
        size = 256 if split == "train" else 1
        drawn = random_stream(0, split, 0).integers(NUM_TOKENS, size=size + self.max_length)
        return Windows(drawn.astype(np.uint8), self.max_length, 1)


class Answers(nn.Module):
    """attnlab's model as the peers are: logits alone."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """Give logits at every position."""
        return self.model(inputs)[0]


def experiment(cell: Cell) -> Experiment:
    """Make attnlab's part: the defaults but for shape and data; no patterns are kept."""
    shape = cell.shape
    words = (
        *("dataset=pydocs", f"dataset.length={shape.length}", f"batch_size={shape.batch}"),
        *("variant=multihead", f"model.mixer.num_heads={shape.num_heads}"),
        *(f"model.num_layers={shape.num_layers}", f"model.d_model={shape.d_model}"),
        *("callbacks.recorder=null", f"trainer.precision={cell.precision}"),
        f"trainer.max_steps={cell.chunk * (cell.rounds + 1) + 1}",
        "trainer.val_check_interval=${trainer.max_steps}",
    )
    with search_path() as own:
        made = Experiment(compose(words, own))
    made.dataset = Noise(shape.length)
    return made


def loop(model: nn.Module, cell: Cell, dataset: Dataset) -> Callable[[], None]:
    """Make the step of a bare loop: the same batches, loss, clipping and optimizer for all."""
    if cell.precision == "bf16-true":
        model = model.bfloat16()
    mixed = cell.precision == "bf16-mixed"
    optimizer = AdamW().build(model)
    batches = iter(Loader(dataset.splits["train"], cell.shape.batch, 0))

    def step() -> None:
        batch = next(batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            logits = model(batch.inputs)
            loss = F.cross_entropy(logits.flatten(0, 1).float(), batch.targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step
