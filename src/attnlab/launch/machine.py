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


def fact_or_none(read_fact: Callable[[], Fact]) -> Fact | None:
    """Return a fact, or None where it cannot be had, in whatever way that fails."""
    try:
        return read_fact()
    except Exception:  # Whatever goes wrong here, the run is worth more than the fact.
        return None


def package_versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that decide a result."""
    package_version = {name: fact_or_none(lambda name=name: version(name)) for name in PACKAGES}
    return {"python": platform.python_version(), **package_version}


@lru_cache
def checkout_state() -> dict[str, Any] | None:
    """Return the commit of attnlab's own checkout, and whether it was changed; None outside of one.

    Another repository that attnlab was copied or installed into says nothing of attnlab's code,
    and neither does one that GIT_DIR names.
    """
    return fact_or_none(_read_checkout_state)


def device_name(device: torch.device) -> str | None:
    """Return the name of a device as its maker gives it, where the system tells."""
    return fact_or_none(lambda: _device_name(device))


def reset_peak_memory() -> None:
    """Begin to measure the peak anew, where the platform can."""
    if torch.cuda.is_available():
        fact_or_none(torch.cuda.reset_peak_memory_stats)
    # Linux forgets the high-water mark on this write, so that each run of a sweep has its own.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int | None:
    """Return the bytes held at most since the reset; None where the platform does not say."""
    return fact_or_none(lambda: _peak_memory(device))


def _read_checkout_state() -> dict[str, Any] | None:
    """Return the commit of the checkout and whether it was changed; None outside of one.

    Raises what git raises where it is missing, fails or takes too long.
    """
    checkout = PACKAGE.parents[1]

    def run_git(*arguments: str) -> str:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("GIT_")
        }
        completed = subprocess.run(
            ["git", *arguments],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=GIT_SECONDS,
        )
        return completed.stdout.strip()

    if Path(run_git("rev-parse", "--show-toplevel")).resolve() != checkout:
        return None
    # Raises where the repository does not hold this file: one that only stands around it.
    run_git("ls-files", "--error-unmatch", "--", str(PACKAGE / "__init__.py"))
    return {"commit": run_git("rev-parse", "HEAD"), "dirty": bool(run_git("status", "--porcelain"))}


def _device_name(device: torch.device) -> str:
    """Return the name of a GPU, or of the processor with its architecture."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    kind = f"{platform.machine()} cpu"
    try:
        name_line = re.search(r"^model name\s*:(.+)$", CPUINFO.read_text(), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        name_line = None
    name = " ".join(name_line[1].split()) if name_line else platform.processor()
    return f"{name} ({kind})" if name not in ("", platform.machine()) else kind


def _peak_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak_line = re.search(r"^VmHWM:\s*(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    return 1024 * int(peak_line[1]) if peak_line else None
