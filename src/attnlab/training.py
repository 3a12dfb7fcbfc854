"""How a model is trained: the settings of the trainer, and the one LightningModule."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pytorch_lightning as pl
import torch
from torch import Tensor

from attnlab.errors import Diverged, RequestError
from attnlab.metric.base import Metric, finish_metric, tally
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
    count_targets: Callable[[int], int]
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
        self.step_values: list[tuple[int, dict[str, Tensor]]] = []
        self.first_loss: float | None = None
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a micro-batch, and keep what it measured."""
        model_batch = self.objective.training_batch(batch)
        logits, extra_losses = self.model(*model_batch.model_inputs)
        minimised_loss, reported_loss = self._losses(logits, model_batch.targets)
        one_count = reported_loss.new_ones(())
        self._add_to_step("loss", reported_loss.detach(), one_count)
        if self.is_logged(self.global_step + 1):
            # What a layer adds is the mean over a micro-batch by nature, as its paper has it.
            for name, loss in extra_losses.items():
                self._add_to_step(name, loss.detach(), one_count)
            with torch.no_grad():
                for name, metric in self.metrics.items():
                    self._add_to_step(name, *tally(metric, logits, model_batch.targets))
        return minimised_loss + sum(extra_losses.values())

    def _losses(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Compute what is minimised, and what is reported; their mean over a step is its loss.

        Lightning divides by the micro-batches of a step. So that their gradients add up to that of
        the mean over all targets of the step, each is the sum over its own targets, divided by
        their mean number in a micro-batch.
        """
        reduction, loss_factor = "mean", 1.0
        if self.window is not None:
            num_targets = self.window.count_targets(self.global_step)
            reduction, loss_factor = "sum", self.window.size / num_targets
        minimised_loss = self.objective.train_loss(logits, targets, reduction) * loss_factor
        if not self.objective.smooths:
            return minimised_loss, minimised_loss
        with torch.no_grad():
            return minimised_loss, self.objective.loss(logits, targets, reduction) * loss_factor

    def _add_to_step(self, name: str, sums: Tensor, count: Tensor) -> None:
        """Add what a micro-batch measured to what the step has so far, on the device."""
        if name in self._sums:
            previous_sums, previous_count = self._sums[name]
            sums, count = previous_sums + sums, previous_count + count
        self._sums[name] = (sums, count)

    def _step_value(self, name: str, sums: Tensor, count: Tensor) -> Tensor:
        """Return a metric of a step from its sums; the mean of a loss."""
        metric = self.metrics.get(name)
        return sums / count if metric is None else finish_metric(metric, sums, count)

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
        max_norm = self.optimizer.gradient_clip
        grad_norm = torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), float("inf") if max_norm is None else max_norm
        )
        step, sums_by_name = self.global_step + 1, self._sums
        self._sums = {}
        values = {name: self._step_value(name, *pair) for name, pair in sums_by_name.items()}
        if self.is_logged(step):
            values["grad_norm"] = grad_norm
        self.step_values.append((step, values))

    def log(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Refuse a value that a callback logs: nothing of Lightning's would keep it.

        Raises RequestError; `log_dict` comes here too.
        """
        raise RequestError(
            f"pl_module.log({name!r}) writes nowhere: the run has no logger of Lightning; return "
            "the value from a recorder (docs/extend/recorder.md), whose rows the record keeps"
        )

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
        drained_steps, self.step_values = self.step_values, []
        if not drained_steps:
            return []
        numbers = iter(
            torch.stack(
                [v.double() for _, values in drained_steps for v in values.values()]
            ).tolist()
        )
        rows = []
        for step, values in drained_steps:
            row = {name: next(numbers) for name in values}
            loss = row["loss"]
            self.first_loss = loss if self.first_loss is None else self.first_loss
            # Written so that NaN, which compares false with everything, is caught too.
            if not loss <= 10 * max(self.first_loss, 1.0):
                first_loss_text = f"it began at {self.first_loss:.4g}"
                raise Diverged(step, f"the loss at step {step} is {loss:.4g} ({first_loss_text})")
            if self.is_logged(step):
                rows.append({"step": step, **row, "lr": self._lr_at(step)})
        return rows

    def _lr_at(self, step: int) -> float:
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
