"""Which way of mixing a sequence works, on what task, at which depth and cost, and why.

run = attnlab.load("runs/pronoun-multihead-2x64-s0-...")
with attnlab.record(run.model, "*.pattern") as patterns:
    run("The animal didn't cross the street because it was too tired.")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnlab.tap import edit, record
    from attnlab.trained import load

__all__ = ["edit", "load", "record"]


def __getattr__(name: str) -> Any:
    # torch and Lightning take seconds to import, which `attnlab --help` should not wait for.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("attnlab.trained" if name == "load" else "attnlab.tap"), name)
