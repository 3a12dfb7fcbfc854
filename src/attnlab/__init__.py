"""Which way of mixing a sequence works, on what task, at which depth and cost, and why.

run = attnlab.train("dataset=pronoun", "variant=multihead")
print(attnlab.runs(where="dataset=pronoun").frame())
loaded = attnlab.load(run)
print(loaded.attention("The animal didn't cross the street because it was too tired.").answer)
with attnlab.record(loaded.model, "*.pattern") as patterns:
    loaded("The animal didn't cross the street because it was too tired.")
recorded = attnlab.patterns(run.path, step=1000)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnlab.analysis.export_patterns import patterns
    from attnlab.api import compare, heads, load, runs, train
    from attnlab.tap import edit, record

__all__ = ["compare", "edit", "heads", "load", "patterns", "record", "runs", "train"]

WHERE = {
    "compare": "attnlab.api",
    "edit": "attnlab.tap",
    "heads": "attnlab.api",
    "load": "attnlab.api",
    "patterns": "attnlab.analysis.export_patterns",
    "record": "attnlab.tap",
    "runs": "attnlab.api",
    "train": "attnlab.api",
}


def __getattr__(name: str) -> Any:
    # torch and Lightning take seconds to import, which `attnlab --help` should not wait for.
    if name not in WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(WHERE[name]), name)
