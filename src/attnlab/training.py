"""How a model is trained: the settings of the trainer, and the one LightningModule."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pytorch_lightning as pl
import torch
from torch import Tensor

from attnlab.errors import Diverged
from attnlab.metric.base import Metric, tally, total
from attnlab.model.base import Model
from attnlab.objective.base import Objective
from attnlab.optimizer.base import Optimizer
from attnlab.precision import MatmulPrecision, Precision
from attnlab.ranges import Count, Threads, ranged
from attnlab.schedule.base import Schedule
from attnlab.split import Batch


@dataclass(frozen=True)
class Window:
    """The micro-batches of a step whose gradients are added up."""

    size: int
    """How many there are."""
    targets: Callable[[int], int]
    """Counts the targets that all of a step have together; steps are counted from 0."""


class Training(pl.LightningModule):
    """Trains a model on an objective, and keeps what each step measured on the device.

    `drain` moves it all to the host at once: a value read at every step would stop a GPU each time.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        metrics: Mapping[str, Metric],
        optimizer: Optimizer,
        schedule: Schedule,
        max_steps: int,
        is_logged: Callable[[int], bool],
        window: Window | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective, self.metrics, self.is_logged = objective, metrics, is_logged
        self.optimizer, self.schedule, self.max_steps = optimizer, schedule, max_steps
        self.window = window
        self.measured: list[tuple[int, dict[str, Tensor]]] = []
        self.first_loss: float | None = None
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        model_batch = self.objective.training_batch(batch)
        logits, extra = self.model(*model_batch.model_inputs)
        task, reported = self._losses(logits, model_batch.targets)
        once = reported.new_ones(())
        self._add("loss", reported.detach(), once)
        if self.is_logged(self.global_step + 1):
            # What a layer adds is the mean over a micro-batch by nature, as its paper has it.
            for name, loss in extra.items():
                self._add(name, loss.detach(), once)
            with torch.no_grad():
                for name, metric in self.metrics.items():
                    self._add(name, *tally(metric, logits, model_batch.targets))
        return task + sum(extra.values())

    def _losses(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Compute what is minimised, and what is reported; their mean over a step is its loss.

        Lightning divides by the micro-batches of a step. So that their gradients add up to that of
        the mean over all targets of the step, each is the sum over its own targets, divided by
        their mean number in a micro-batch.
        """
        reduction, scale = "mean", 1.0
        if self.window is not None:
            reduction, scale = "sum", self.window.size / self.window.targets(self.global_step)
        task = self.objective.train_loss(logits, targets, reduction) * scale
        if not self.objective.smooths:
            return task, task
        with torch.no_grad():
            return task, self.objective.loss(logits, targets, reduction) * scale

    def _add(self, name: str, sums: Tensor, count: Tensor) -> None:
        """Add what a micro-batch measured to what the step has so far, on the device."""
        before = self._sums.get(name)
        self._sums[name] = (
            (sums, count) if before is None else (before[0] + sums, before[1] + count)
        )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient, and close the step: this comes once, after its last micro-batch."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        # Lightning leaves the gradients scaled for an optimizer that unscales them in its own step,
        # as the fused one does, and refuses to clip them; the scaler remembers that it is done.
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)
        bound = self.optimizer.gradient_clip
        norm = torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), float("inf") if bound is None else bound
        )
        step, sums = self.global_step + 1, self._sums
        self._sums = {}
        values = {
            name: total(self.metrics[name], *pair) if name in self.metrics else pair[0] / pair[1]
            for name, pair in sums.items()
        }
        if self.is_logged(step):
            values["grad_norm"] = norm
        self.measured.append((step, values))

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer.build(self.model)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.schedule.scale(step, self.max_steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["first_loss"] = self.first_loss

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.first_loss = checkpoint["first_loss"]

    def drain(self) -> list[dict[str, int | float]]:
        """Take the rows of the logged steps since the last call: each step's own.

        Raises Diverged if a step's loss, logged or not, is no number or above ten times the first.
        """
        steps, self.measured = self.measured, []
        if not steps:
            return []
        numbers = iter(
            torch.stack([v.double() for _, values in steps for v in values.values()]).tolist()
        )
        rows = []
        for step, values in steps:
            row = {name: next(numbers) for name in values}
            loss = row["loss"]
            self.first_loss = loss if self.first_loss is None else self.first_loss
            # Written so that NaN, which compares false with everything, is caught too.
            if not loss <= 10 * max(self.first_loss, 1.0):
                began = f"it began at {self.first_loss:.4g}"
                raise Diverged(step, f"the loss at step {step} is {loss:.4g} ({began})")
            if self.is_logged(step):
                rows.append({"step": step, **row, "lr": self._lr(step)})
        return rows

    def _lr(self, step: int) -> float:
        return self.optimizer.lr * self.schedule.scale(step - 1, self.max_steps)


Accelerator = Literal["auto", "cpu", "gpu"]


@ranged
@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where and how long training runs.

    `max_steps` and `val_check_interval` count optimizer steps. Each takes `accumulate_grad_batches`
    batches, and weighs all their targets alike, as one large batch would; only the balance loss and
    the capacity of experts hang on each batch by itself. `threads` is for a CPU: null takes all
    cores. `precision` is Lightning's ("32-true", "bf16-mixed", ...), `matmul_precision` torch's for
    float32 products.
    """

    max_steps: Count = 1000
    val_check_interval: Count = 100
    accelerator: Accelerator = "auto"
    precision: Precision = "32-true"
    matmul_precision: MatmulPrecision = "highest"
    threads: Threads | None = None
    accumulate_grad_batches: Count = 1

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                value = getattr(self, name)
                raise ValueError(f"{name}={value!r} must be one of {', '.join(choices)}")
        if self.accelerator == "gpu" and not torch.cuda.is_available():
            raise ValueError("accelerator='gpu', but torch sees none here; use auto or cpu")


CHOICES = {
    "accelerator": get_args(Accelerator),
    "precision": get_args(Precision),
    "matmul_precision": get_args(MatmulPrecision),
}
