"""A logger for Weights & Biases."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
from jaxtyping import UInt8

from attnlab.errors import RequestError
from attnlab.logger.base import FLOPS, TOKENS, LoggedRun, Logger, require_package

LONGEST_TAG = 64
"""The length of a tag that wandb accepts."""
ANSWER_SECONDS = 5.0
"""How long its server may take to answer."""


class Wandb(Logger):
    """Writes a run below wandb/; offline, `wandb sync DIRECTORY` uploads it whenever you like.

    Only `mode=online` needs an account and a network. A null `entity` is the account's own, a null
    `group` the name of the sweep, and null `tags` are variant and dataset. `include` says what goes
    beside the numbers, pictures and the page: as an `artifact` the tables of patterns and heads,
    from where they lie, and `system_metrics`, the machine and its load while a run trains.
    """

    tool = "wandb"

    def __init__(
        self,
        *,
        project: str = "attnlab",
        mode: Literal["offline", "online"] = "offline",
        entity: str | None = None,
        group: str | None = None,
        job_type: str = "train",
        tags: Sequence[str] | None = None,
        notes: str | None = None,
        include: Sequence[Literal["artifact", "system_metrics"]] = ("artifact", "system_metrics"),
    ) -> None:
        require_package("wandb", "wandb")
        if isinstance(tags, str):
            raise ValueError(f"tags={tags!r}: expected a list, as in [{tags}]")
        for tag in tags or ():
            if not 1 <= len(tag) <= LONGEST_TAG:
                raise ValueError(f"tags: {tag!r} must have 1 to {LONGEST_TAG} characters")
        self.project, self.entity = project, entity
        self.mode: Literal["offline", "online"] = mode
        self.group, self.job_type, self.tags, self.notes = group, job_type, tags, notes
        self.include = include
        self._step = 0

    @property
    def is_online(self) -> bool:
        return self.mode == "online"

    @property
    def destination(self) -> str:
        return self.project if self.entity is None else f"{self.entity}/{self.project}"

    def start(self, directory: Path, run: LoggedRun) -> None:
        import wandb

        # Of a run that is sent later, the load of this machine would say nothing.
        has_system_metrics = run.is_live and "system_metrics" in self.include
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_code=True,
            disable_git=True,
            save_code=False,
            symlink=False,
            # Without facts about the machine, wandb measures no load.
            x_disable_machine_info=not has_system_metrics,
            x_disable_stats=not has_system_metrics,
            x_save_requirements=False,
            # Seconds of log that a kill can lose, and for which a lost network can delay the end.
            x_transaction_log_flush_interval=1.0,
            finish_timeout=60.0,
        )
        # `init` alone would prompt for an account in a terminal; set up silently, it raises.
        wandb.setup(settings)
        default_tags = [run.choices[name] for name in ("variant", "dataset") if name in run.choices]
        # Lightning's logger would reuse a run of this process, count calls instead of steps, and
        # never finish.
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,
            dir=directory,
            name=run.name,
            id=run.run_id,
            group=run.sweep if self.group is None else self.group,
            job_type=self.job_type,
            tags=list(default_tags if self.tags is None else self.tags),
            notes=self.notes,
            config=run.config,
            reinit="create_new",
            settings=settings,
        )
        self._step, self._axes = 0, run.axes
        # So a chart offers them as x-axes; the step stays the default.
        self._run.define_metric(TOKENS)
        self._run.define_metric(FLOPS)

    def log_scalars(self, step: int, values: Mapping[str, int | float]) -> None:
        self._log(step, values)

    def log_picture(self, step: int, name: str, pixels: UInt8[np.ndarray, "height width"]) -> None:
        import wandb

        # It would store a float map in [0, 1] as an all-black picture.
        self._log(step, {name: wandb.Image(pixels)})

    def log_page(self, step: int, name: str, html: Callable[[], str]) -> None:
        import wandb

        # By default it would add a style sheet from the network.
        self._log(step, {name: wandb.Html(html(), inject=False, data_is_not_path=True)})

    def log_summary(self, values: Mapping[str, int | float | str]) -> None:
        self._run.summary.update(dict(values))

    def log_files(self, pack_files: Callable[[], Mapping[str, Path]]) -> None:
        import wandb

        paths = pack_files() if "artifact" in self.include else {}
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
        self._run.log({**self._axes(step), **values}, step=step)


def require_server() -> None:
    """Raise RequestError at once if there is no account here, or if its server does not answer."""
    import wandb

    base_url = wandb.setup(wandb.Settings(silent=True)).settings.base_url
    advice = "leave --mode online out, and `wandb sync` uploads the copies later"
    if not wandb.login(verify=False, prompt=False):
        raise RequestError(f"wandb has no API key here; `wandb login` stores one, or {advice}")
    try:
        with urlopen(base_url, timeout=ANSWER_SECONDS):
            pass
    except HTTPError:
        # It answered, and that is enough.
        return
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise RequestError(f"{base_url} does not answer ({reason}); {advice}") from error


def upload_runs(directory: Path, destination: str) -> None:
    """Upload the runs in a wandb directory by wandb's own program, to [ENTITY/]PROJECT.

    A run has its id from its record, so a second upload does not double it. Raises OSError with
    what the program says.
    """
    run_paths = sorted(map(str, directory.glob("*run-*")))
    entity, _, project = destination.rpartition("/")
    options = ["--project", project, *(["--entity", entity] if entity else [])]
    process = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", *options, *run_paths],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        output_lines = [
            line for line in f"{process.stdout}{process.stderr}".splitlines() if line.strip()
        ]
        raise OSError(f"wandb sync: {output_lines[-1] if output_lines else process.returncode}")
