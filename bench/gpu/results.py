"""A part's results as data, each in a file of its own that is there whole or not at all.

{"schema", "part", "device", "driver", "cuda", "torch", "commit" (with -dirty), "date",
 "settings", "settings_hash", "seconds" (that measuring took),
 "rows": [{HEADING: value, ...}, ...], "notes": [sentence, ...]}
"""

import datetime
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import torch

from attnlab.run_record.write import json_bytes, make_directory, replace_file
from bench.gpu.part import Found, Given, Part, Settings

SCHEMA = 1


def path(out: Path, name: str) -> Path:
    """Give where the results of a part are kept."""
    return out / f"{name}.json"


def read(out: Path, name: str) -> dict[str, Any] | None:
    """Read the results of a part; None where there are none of this schema."""
    try:
        kept = json.loads(path(out, name).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return kept if kept.get("schema") == SCHEMA else None


def write(out: Path, part: Part, given: Given, found: Found, seconds: float) -> None:
    """Keep the results of a part."""
    make_directory(out)
    kept = {
        "schema": SCHEMA,
        "part": part.name,
        **machine(given.device),
        "commit": _said("git", "describe", "--always", "--dirty"),
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "settings": given.settings,
        "settings_hash": settings_hash(given.settings),
        "seconds": round(seconds, 1),
        "rows": found.rows,
        "notes": found.notes,
    }
    replace_file(path(out, part.name), json_bytes(kept))


def there(out: Path, part: Part, given: Given) -> bool:
    """Say whether a part has been measured with these settings on a device of this name."""
    kept = read(out, part.name)
    return (
        kept is not None
        and kept["settings_hash"] == settings_hash(given.settings)
        and kept["device"] == machine(given.device)["device"]
    )


def settings_hash(settings: Settings) -> str:
    """Tell settings apart by their content."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def machine(device: torch.device) -> dict[str, str | None]:
    """Name what is measured, and what drives it."""
    cuda = device.type == "cuda"
    driver = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return {
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "driver": _said(*driver) if cuda else None,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
    }


def _said(*command: str) -> str | None:
    """Give the first line that a program prints; None where there is no such program or line."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip().split("\n")[0] or None
