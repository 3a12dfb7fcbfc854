"""Facts about the machine and the code that made a run: unknown is null, and costs no run."""

import os
import platform
import re
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

CPUINFO = Path("/proc/cpuinfo")
"""Where Linux says what its processor is."""
STATUS = Path("/proc/self/status")
"""Where Linux says how much memory a process held at most, as VmHWM; gVisor leaves it out."""
PACKAGE = Path(__file__).resolve().parents[1]
PACKAGES = ("attnlab", "torch", "pytorch-lightning", "hydra-core", "numpy")
GIT_SECONDS = 10.0
"""How long git may take to look through a checkout."""

Fact = TypeVar("Fact")


def known(fact: Callable[[], Fact]) -> Fact | None:
    """Return a fact, or None where it cannot be had, in whatever way that fails."""
    try:
        return fact()
    except Exception:  # Whatever goes wrong here, the run is worth more than the fact.
        return None


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that decide a result."""
    version_by_package = {name: known(lambda name=name: version(name)) for name in PACKAGES}
    # The metadata of a wheel for CUDA does not say so; the module does, as in 2.13.0+cu130.
    version_by_package["torch"] = known(lambda: str(torch.__version__))
    return {"python": platform.python_version(), **version_by_package}


@lru_cache
def git() -> dict[str, Any] | None:
    """Return the commit of attnlab's own checkout, and whether it was changed; None outside of one.

    Another repository that attnlab was copied or installed into says nothing of attnlab's code,
    and neither does one that GIT_DIR names.
    """
    return known(_git)


def device_name(device: torch.device) -> str | None:
    """Return the name of a device as its maker gives it, where the system tells."""
    return known(lambda: _device_name(device))


def reset_peak_memory() -> None:
    """Begin to measure the peak anew, where the platform can."""
    if torch.cuda.is_available():
        known(torch.cuda.reset_peak_memory_stats)
    # Linux forgets the high-water mark on this write, so that each run of a sweep has its own.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int | None:
    """Return the bytes held at most since the reset; None where the platform does not say."""
    return known(lambda: _peak_memory(device))


def _git() -> dict[str, Any] | None:
    checkout = PACKAGE.parents[1]

    def git(*words: str) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        done = subprocess.run(
            ["git", *words],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=GIT_SECONDS,
        )
        return done.stdout.strip()

    if Path(git("rev-parse", "--show-toplevel")).resolve() != checkout:
        return None
    # Raises where the repository does not hold this file: one that only stands around it.
    git("ls-files", "--error-unmatch", "--", str(PACKAGE / "__init__.py"))
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    kind = f"{platform.machine()} cpu"
    try:
        model_name = re.search(r"^model name\s*:(.+)$", CPUINFO.read_text(), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        model_name = None
    name = " ".join(model_name[1].split()) if model_name else platform.processor()
    return f"{name} ({kind})" if name not in ("", platform.machine()) else kind


def _peak_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    held = re.search(r"^VmHWM:\s*(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    return 1024 * int(held[1]) if held else None
