"""How a model is trained: the settings of the trainer, and the one LightningModule."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from attnlab.metric.base import Metric, tally, total
from attnlab.model.base import Model
from attnlab.objective.base import Objective
from attnlab.optimizer.adamw import AdamW
from attnlab.schedule.base import Schedule
from attnlab.split import Batch


class Diverged(RuntimeError):
    """What the model gives is no number any more, or far above where it began."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(
            f"{what}; "
            "try a smaller optimizer.lr, more schedule.warmup_steps or optimizer.gradient_clip"
        )
        self.step = step


class Training(pl.LightningModule):
    """Trains a model on an objective, and keeps what each step measured on the device.

    `drain` moves it all to the host at once: a value read at every step would stop a GPU each time.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        metrics: Mapping[str, Metric],
        optimizer: AdamW,
        schedule: Schedule,
        max_steps: int,
        is_logged: Callable[[int], bool],
    ) -> None:
        super().__init__()
        self.model = model
        self.objective, self.metrics, self.is_logged = objective, metrics, is_logged
        self.optimizer, self.schedule, self.max_steps = optimizer, schedule, max_steps
        self.measured: list[tuple[int, dict[str, Tensor]]] = []
        self.first_loss: float | None = None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        asked = self.objective.ask(batch)
        logits, extra = self.model(*asked.given)
        task = self.objective.train_loss(logits, asked.targets)
        step = self.global_step + 1
        values = {"loss": task.detach()}
        if self.is_logged(step):
            values |= {name: loss.detach() for name, loss in extra.items()}
            with torch.no_grad():
                for name, metric in self.metrics.items():
                    values[name] = total(metric, *tally(metric, logits, asked.targets))
        self.measured.append((step, values))
        return task + sum(extra.values())

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        bound = self.optimizer.gradient_clip
        norm = torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), float("inf") if bound is None else bound
        )
        step, values = self.measured[-1]
        if self.is_logged(step):
            values["grad_norm"] = norm

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.model)
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
        measured, self.measured = self.measured, []
        if not measured:
            return []
        numbers = iter(
            torch.stack([v.double() for _, values in measured for v in values.values()]).tolist()
        )
        steps: dict[int, list[dict[str, float]]] = {}
        for step, values in measured:
            steps.setdefault(step, []).append({name: next(numbers) for name in values})
        rows = []
        for step, parts in steps.items():
            loss = sum(part["loss"] for part in parts) / len(parts)
            self.first_loss = loss if self.first_loss is None else self.first_loss
            # Written so that NaN, which compares false with everything, is caught too.
            if not loss <= 10 * max(self.first_loss, 1.0):
                began = f"it began at {self.first_loss:.4g}"
                raise Diverged(step, f"the loss at step {step} is {loss:.4g} ({began})")
            if self.is_logged(step):
                rows.append({"step": step, **_mean(parts), "lr": self._lr(step)})
        return rows

    def _lr(self, step: int) -> float:
        return self.optimizer.lr * self.schedule.scale(step - 1, self.max_steps)


def _mean(parts: list[dict[str, float]]) -> dict[str, float]:
    """Average over the accumulated batches of a step; the gradient's norm belongs to the last."""
    return {
        name: sum(part[name] for part in parts if name in part) / sum(name in p for p in parts)
        for name in parts[-1]
    }


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where and how long training runs.

    `max_steps` and `val_check_interval` count optimizer steps; each one takes
    `accumulate_grad_batches` batches. `threads` is for a CPU: null takes all cores. `precision` is
    Lightning's ("32-true", "bf16-mixed", ...), `matmul_precision` torch's for float32 products.
    """

    max_steps: int = 1000
    val_check_interval: int = 100
    accelerator: str = "auto"
    precision: str = "32-true"
    matmul_precision: str = "highest"
    threads: int | None = None
    accumulate_grad_batches: int = 1

    def __post_init__(self) -> None:
        for name in ("max_steps", "val_check_interval", "accumulate_grad_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads={self.threads} must be at least 1, or null for all cores")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                given = getattr(self, name)
                raise ValueError(f"{name}={given!r} must be one of {', '.join(choices)}")
        if self.accelerator == "gpu" and not torch.cuda.is_available():
            raise ValueError("accelerator='gpu', but torch sees none here; use auto or cpu")


CHOICES = {
    "accelerator": ("auto", "cpu", "gpu"),
    "precision": ("32-true", "bf16-mixed", "bf16-true", "16-mixed", "64-true"),
    "matmul_precision": ("highest", "high", "medium"),
}
