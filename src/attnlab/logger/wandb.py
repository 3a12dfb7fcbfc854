"""A logger for Weights & Biases."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from attnlab.logger.base import Logger, require


class Wandb(Logger):
    """Writes a run below wandb/; offline, `wandb sync DIRECTORY` uploads it whenever you like.

    Only `mode=online` needs an account and a network. A null `entity` is the account's own. Where
    `artifact`, the tables of patterns and heads go up too, from where they lie.
    """

    def __init__(
        self,
        *,
        project: str = "attnlab",
        mode: Literal["offline", "online"] = "offline",
        entity: str | None = None,
        artifact: bool = True,
    ) -> None:
        require("wandb", "wandb")
        self.project, self.entity, self.artifact = project, entity, artifact
        self.mode: Literal["offline", "online"] = mode
        self._step = 0

    def start(self, directory: Path, name: str, config: Mapping[str, Any]) -> None:
        import wandb

        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_code=True,
            disable_git=True,
            save_code=False,
            symlink=False,
            x_disable_machine_info=True,
            x_disable_stats=True,
            x_save_requirements=False,
            # Seconds of log that a kill can lose, and for which a lost network can delay the end.
            x_transaction_log_flush_interval=1.0,
            finish_timeout=60.0,
        )
        # `init` alone would prompt for an account in a terminal; set up silently, it raises.
        wandb.setup(settings)
        # Lightning's logger would reuse a run of this process, count calls instead of steps, and
        # never finish.
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,
            dir=directory,
            name=name,
            id=f"{name}-{directory.name}",
            config=dict(config),
            reinit="create_new",
            settings=settings,
        )

    def scalars(self, step: int, values: Mapping[str, int | float]) -> None:
        self._log(step, values)

    def picture(self, step: int, name: str, pixels: UInt8[np.ndarray, "height width"]) -> None:
        import wandb

        # It would store a float map in [0, 1] as an all-black picture.
        self._log(step, {name: wandb.Image(pixels)})

    def page(self, step: int, name: str, html: Callable[[], str]) -> None:
        import wandb

        # By default it would add a style sheet from the network.
        self._log(step, {name: wandb.Html(html(), inject=False, data_is_not_path=True)})

    def files(self, packed: Callable[[], Mapping[str, Path]]) -> None:
        import wandb

        paths = packed() if self.artifact else {}
        if not paths:
            return
        artifact = wandb.Artifact(f"{self._run.name}-patterns", type="patterns")
        for name, path in paths.items():
            # The record is never rewritten, so the artifact needs no copy.
            artifact.add_file(str(path.absolute()), name, skip_cache=True, policy="immutable")
        self._run.log_artifact(artifact)

    def end(self, status: str) -> None:
        self._run.finish(exit_code=0 if status == "finished" else 1)

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        # wandb silently drops values for a step before its last.
        assert step >= self._step, f"step {step} comes after step {self._step}"
        self._step = step
        self._run.log(dict(values), step=step)
