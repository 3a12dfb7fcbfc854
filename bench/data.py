"""Data against what eats them: drawing, fetching, and parting a text into tokens."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attnlab.config import compose, conf_dir, search_path
from attnlab.corpus import source, store
from attnlab.dataset.base import BLOCK, Task, random_stream
from attnlab.dataset.mqar import MQAR
from attnlab.dataset.text import Text
from attnlab.errors import ConfigError
from attnlab.experiment import Experiment
from attnlab.measure import take_turns
from attnlab.split import Examples
from attnlab.tokenizer.base import Tokenizer
from attnlab.tokenizer.bpe import BPE
from attnlab.tokenizer.bytes import Bytes
from bench.loop_mqar import loop_mqar
from bench.ratio import Times, ratio

ROUNDS = 7
BATCH = 64
MEGABYTE = 10**6
TEXT = 100 * MEGABYTE
SMALL = ("model.d_model=64", "model.num_layers=2", "trainer.accelerator=cpu", "evidence=none")


def tables(rounds: int = ROUNDS, text: int = TEXT) -> Iterator[str]:
    """Give the lines of all tables."""
    yield from drawing(rounds)
    yield from fetching(rounds)
    yield from parting(text)


def drawing(rounds: int = ROUNDS, names: list[str] | None = None) -> Iterator[str]:
    """Compare each task with the training step that eats its examples, both on one thread."""
    yield from ("", "### Drawing examples", "")
    yield (
        "A batch of 64 examples as the dataset's YAML states it, and a step of training on it (2 "
        f"layers, d=64, the default variant; one thread); {rounds} rounds. Goal: 5 at least."
    )
    yield from ("", "| task | draw, us an example | step / draw |", "|---|---|---|")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in names or sorted(path.stem for path in Path(conf_dir(), "dataset").glob("*.yaml")):
        made = _experiment(name)
        if made is None:
            continue
        times = take_turns({"draw": _draw(made.dataset), "step": _step(made)}, rounds)
        draw = np.median(times["draw"]) / BLOCK * 1e6
        yield f"| {name} | {draw:.1f} | {ratio(times, 'step', 'draw') * BLOCK / BATCH:.0f} |"
    torch.set_num_threads(threads)
    yield from ("", "MQAR against a loop of `np.random.choice` over examples, V=8192:", "")
    yield from ("| length, pairs | loop / attnlab |", "|---|---|")
    for length, pairs in ((64, 4), (512, 64)):
        task = MQAR(vocab_size=8192, length=length, num_pairs=pairs)
        works: dict[str, Callable[[], Any]] = {
            "loop": partial(loop_mqar, 8192, length, pairs, BLOCK, 0),
            "attnlab": _draw(task),
        }
        yield f"| {length}, {pairs} | {ratio(take_turns(works, rounds), 'loop', 'attnlab'):.0f} |"


def fetching(rounds: int = ROUNDS) -> Iterator[str]:
    """Compare a training batch with rows of a tensor in memory."""
    yield from ("", "### Fetching batches", "")
    yield (
        "A shuffled batch of 64, inputs and targets, against indexing two tensors of int64 with "
        f"the same rows; {rounds} rounds. Goal: 2 at most."
    )
    yield from ("", "| split | us a batch | of a tensor |", "|---|---|---|")
    for name, times in fetches(rounds).items():
        us = np.median(times["attnlab"]) * 1e6
        yield f"| {name} | {us:.0f} | {ratio(times, 'attnlab', 'tensor'):.2f} |"


def fetches(rounds: int) -> dict[str, Times]:
    """Time both for examples in memory and for windows of a text that lies in a file."""
    found = {}
    task = MQAR()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "text.txt")
        path.write_bytes(_text(MEGABYTE))
        os.environ["ATTNLAB_CACHE"] = directory
        text = Text(path=str(path), tokenizer=Bytes(), length=64)
        for name, data in (("examples (mqar)", task), ("windows of a file (text)", text)):
            split = data.splits["train"]
            whole = split[: min(len(split), 200_000)]
            inputs, targets = whole.inputs.contiguous(), whole.targets.contiguous()
            rows = np.random.Generator(np.random.Philox(0)).permutation(len(inputs))[:BATCH]
            index = torch.from_numpy(rows)
            works: dict[str, Callable[[], Any]] = {
                "attnlab": partial(split.batch, rows),
                "tensor": lambda i=index, x=inputs, y=targets: (x[i], y[i]),
            }
            found[name] = take_turns(works, rounds)
        del os.environ["ATTNLAB_CACHE"]
    return found


def parting(size: int = TEXT) -> Iterator[str]:
    """Part a text into tokens once, as `train` does for a new file."""
    yield from ("", "### Parting a text into tokens", "")
    yield (
        f"A file of {size // MEGABYTE} MB, English as Python's documentation has it; once. Goals: "
        "3 s for bytes, the library's own speed for BPE."
    )
    yield from ("", "| tokenizer | s | MB/s |", "|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "text.txt")
        path.write_bytes(_text(size))
        os.environ["ATTNLAB_CACHE"] = directory
        bpe = BPE(vocab_size=4096)
        bpe.vocabulary([_text(MEGABYTE)])
        works = {
            "bytes, from the file to the cache": partial(_stored, path, Bytes()),
            "bpe, from the file to numbers": partial(_encoded, path, bpe),
            "tokenizers alone, texts of 8,192 characters": partial(_library, bpe, path),
        }
        for name, work in works.items():
            began = time.perf_counter()
            work()
            seconds = time.perf_counter() - began
            yield f"| {name} | {seconds:.2f} | {size / MEGABYTE / seconds:.0f} |"
        del os.environ["ATTNLAB_CACHE"]


def _experiment(name: str) -> Experiment | None:
    with search_path() as own:
        try:
            made = Experiment(compose([f"dataset={name}", *SMALL], own))
        except ConfigError as error:
            if "dataset.path" not in str(error):
                raise
            return None  # It reads files.
    return made if isinstance(made.dataset, Task) else None


def _draw(task: Any) -> Callable[[], Any]:
    blocks = count()
    return lambda: task.draw_examples(random_stream(0, "train", next(blocks)), BLOCK, "train")


def _step(made: Experiment) -> Callable[[], None]:
    task, objective, model = made.dataset, made.objective, made.model
    assert isinstance(task, Task)
    rows = task.draw_examples(random_stream(0, "train", 0), BATCH, "train")
    asked = objective.training_batch(Examples(*rows)[:])
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def run() -> None:
        logits, losses = model(*asked.model_inputs)
        (objective.train_loss(logits, asked.targets) + sum(losses.values())).backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def _text(size: int) -> bytes:
    from attnlab.dataset.pydocs import PyDocs

    once = "\n\n".join(PyDocs().documents).encode()
    return (once * (size // len(once) + 1))[:size]


def _stored(path: Path, tokenizer: Tokenizer) -> None:
    text = source.File(path)
    store.load_or_tokenise({store.WHOLE: text}, text.sha256(), tokenizer)


def _encoded(path: Path, bpe: BPE) -> int:
    return sum(map(len, bpe.encode(source.File(path).pieces(), [""] * 4096)))


def _library(bpe: BPE, path: Path) -> None:
    text, model = path.read_text(), bpe._made()
    for start in range(0, len(text), 1 << 18):
        part = text[start : start + (1 << 18)]
        model.encode_batch_fast([part[at : at + 8192] for at in range(0, len(part), 8192)])
