"""Training steps on a GPU that is not there: every operation knows its device, none is computed.

torch lets a Python program stand for a device's backend, and fake tensors have shapes and devices
alone. So where an operation brings tensors of two devices together, or makes the host ask for a
value, this shows on any machine. `python -m tests.bench.fake_gpu` prints, for each arm, the faults
found as [operation, place], or the reason why it was refused; before, what it takes for a fault.
"""

import json
import logging
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attnlab.config import compose, search_path
from attnlab.errors import ConfigError
from attnlab.experiment import Experiment
from tests.choices import choices
from tests.model.build import part

DEVICE = "imagined"
ASKS = ("item", "_local_scalar_dense", "nonzero", "masked_select", "unique", "bincount")
"""Operations whose result, or its size, the host must know; an index by truth values is another."""
SMALL = (
    *("model.d_model=16", "model.num_layers=1", "evidence=none"),
    *(f"dataset.num_{split}=64" for split in ("train", "validation", "test")),
)
# Longer than two windows of attention and two chunks of a recurrence.
RECALL = ("dataset=mqar", "dataset.length=100", "dataset.num_pairs=4")


ARRANGING = ("autoregressive", "masked", "seq2seq", "classification")


def arms() -> Mapping[str, Sequence[str]]:
    """Give overrides for every mixer, position, network, block, metric and objective of conf/."""
    made: dict[str, Sequence[str]] = {}
    for group in ("mixer", "position", "block", "ffn"):
        for name in choices(f"model/{group}"):
            made[f"{group}={name}"] = [*RECALL, f"model/{group}={name}"]
    for name in choices("model/position"):
        words = ["model/mixer=sliding_window", f"model/position={name}"]
        made[f"sliding_window, position={name}"] = [*RECALL, *words]
    for name in choices("model/ffn"):
        if part("ffn", name).func.routes_across_tokens:
            made[f"masked, ffn={name}"] = [*RECALL, "objective=masked", f"model/ffn={name}"]
    for name in choices("metric"):
        made[f"metric={name}"] = [*RECALL, f"metric={name}"]
    for name in choices("objective"):
        dataset = "reversal" if name == "seq2seq" else "pronoun"
        # The other families as one stack of either kind, and as two.
        families = ("lstm", "lstm_attention") if name in ARRANGING else ()
        for family in ("multihead", *families):
            words = [f"dataset={dataset}", f"objective={name}", f"variant={family}"]
            made[f"{family}, objective={name}"] = words
    return made


class Faults(TorchDispatchMode):
    """Notes what would make the host wait, or could not be done, and where it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[tuple[str, str]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition("::")[2]
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        # A number in a tensor of no axes is handed over with the call, unless it is all there is.
        before = {x.device.type for x in given if x.ndim or len(given) == 1}
        truths = name.startswith("index") and any(
            isinstance(x, Tensor) and x.dtype is torch.bool for x in tree_leaves(args[1:2])
        )
        if truths or name.partition(".")[0] in ASKS:
            self.found.add((name, _place()))
        result = func(*args, **(kwargs or {}))
        after = {x.device.type for x in tree_leaves(result) if isinstance(x, Tensor)}
        if before and after and len(before | after) > 1:
            self.found.add((name, _place()))
        return result


def _place() -> str:
    """Give the line of attnlab that is being run; the backward pass has none."""
    frames = [f for f in traceback.extract_stack() if "/attnlab/" in f.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "backward"


def faults(words: Sequence[str]) -> list[tuple[str, str]]:
    """Take a step of training, but for the optimizer's own part."""
    with search_path() as own:
        experiment = Experiment(compose([*words, *SMALL], own))
    drawn = experiment.dataset.splits["train"].batch(np.arange(4))
    drawn = drawn._replace(noise_key=torch.arange(4))
    # The library's grouped product has no shape but in bfloat16.
    torch.set_default_dtype(torch.bfloat16 if "ffn=" in words[-1] else torch.float32)
    with FakeTensorMode():
        with torch.device(DEVICE):
            model = experiment.config.build_model(experiment.objective)
        batch = drawn._make(
            part if part is None else torch.empty(part.shape, dtype=part.dtype, device=DEVICE)
            for part in drawn
        )
        with Faults() as seen:
            asked = experiment.objective.training_batch(batch)
            logits, losses = model(*asked.model_inputs)
            loss = experiment.objective.train_loss(logits, asked.targets)
            for metric in experiment.metrics.values():
                metric(logits, asked.targets)
            sum(losses.values(), loss).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    return sorted(seen.found)


def imagine() -> None:
    """Let torch know the device; for the life of the process."""

    class Backend(backend_registration._DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16]

    backend_registration._setup_privateuseone_for_python_backend(DEVICE, backend_module=Backend())


def noticed() -> list[str]:
    """Name the operations that `Faults` takes for a question of the host, of some that it hears."""
    with FakeTensorMode():
        x = torch.empty(3, 3, device=DEVICE)
        with Faults() as seen:
            torch.ones(3).to(x)
            torch.ones(()).to(x)
            for ask in (lambda: float(x.sum()), lambda: x.nonzero(), lambda: x[x > 0]):
                with suppress(DataDependentOutputException, DynamicOutputShapeException):
                    ask()
            clean = len(seen.found)
            (x * 2.0).masked_fill(x > 0, 1.0).cumsum(0).add(torch.tensor(1.0))
            assert len(seen.found) == clean
    return sorted({name for name, _ in seen.found})


def arms_faults() -> dict[str, Any]:
    """Give the faults of each arm, or why it was refused."""
    found: dict[str, Any] = {}
    for arm, words in arms().items():
        try:
            found[arm] = faults(words)
        except ConfigError as refusal:
            found[arm] = str(refusal)
        except NotImplementedError as fault:
            # A constant that is made on the host and then moved: no imagined device can take it.
            found[arm] = [("a constant", str(fault).split("\n")[0])]
    return found


if __name__ == "__main__":
    logging.disable(logging.ERROR)
    imagine()
    json.dump({"noticed": noticed(), "arms": arms_faults()}, sys.stdout)
