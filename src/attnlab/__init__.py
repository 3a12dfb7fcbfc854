"""Which way of mixing a sequence works, on what task, at which depth and cost, and why.

run = attnlab.load("runs/pronoun-multihead-2x64-s0-...")
with attnlab.record(run.model, "*.pattern") as patterns:
    run("The animal didn't cross the street because it was too tired.")
recorded = attnlab.patterns("runs/pronoun-multihead-2x64-s0-...", step=1000)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnlab.runs.export_patterns import patterns
    from attnlab.tap import edit, record
    from attnlab.trained import load

__all__ = ["edit", "load", "patterns", "record"]

WHERE = {
    "edit": "attnlab.tap",
    "load": "attnlab.trained",
    "patterns": "attnlab.runs.export_patterns",
    "record": "attnlab.tap",
}


def __getattr__(name: str) -> Any:
    # torch and Lightning take seconds to import, which `attnlab --help` should not wait for.
    if name not in WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(WHERE[name]), name)
