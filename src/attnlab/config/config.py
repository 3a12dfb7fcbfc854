"""A composed config: plain values, and what is built from them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any

from attnlab.building import UserTargets, build
from attnlab.errors import ConfigError
from attnlab.ranges import Count, Positive, Seed
from attnlab.signatures import target_nodes_with_keys

ROOT_KNOBS = {
    "seed": Seed,
    "batch_size": Count,
    "runs_dir": str,
    "sweep": str | None,
    "rerun": bool,
    "retry": bool,
    "extend": bool,
    "lease": Positive,
    "skip_impossible": bool,
}
NOT_IN_IDENTITY = (
    "runs_dir",
    "sweep",
    "rerun",
    "retry",
    "extend",
    "lease",
    "skip_impossible",
    "logger",
    "match",
    "launcher",
)
"""The keys at the root that do not change what a run is."""
SECTIONS = ("model", "init", "objective", "optimizer", "schedule", "trainer", "dataset")
"""The sections that are one part each."""
APART = ("match", "launcher")
"""The sections that are one part each, or none, and no part of what a run is."""
COLLECTIONS = ("metric", "callbacks", "evidence", "logger")
"""The sections that hold parts by name."""
UNPACKED = ("debug", "experiment")
"""Groups whose choices change the whole config, and have no section of their own."""


@dataclass(frozen=True)
class Config:
    """A composed and checked config: plain values, and which choice was made in each group."""

    values: dict[str, Any]
    choices: Mapping[str, Any]
    user_targets: UserTargets
    notes: tuple[str, ...] = ()
    """What a reader must know of how it was composed, such as the widths that `match` gave."""
    overrides: tuple[str, ...] = ()
    """The overrides as they were given, which a run's name is made from."""
    swept_keys: frozenset[str] = frozenset()
    """The keys of overrides that differ between the runs of its sweep."""

    def build(self, key: str, *wiring: Any) -> Any:
        """Build what stands at a dotted key; `wiring` are its positional arguments.

        Raises ConfigError where it cannot be built.
        """
        node = self.node(key)
        try:
            if not isinstance(node, dict) or "_target_" not in node:
                raise ValueError(f"expected a choice with a _target_, got {node!r}")
            return build(node, key.split(".")[0], self.user_targets, *wiring)
        except ValueError as error:
            raise ConfigError([f"{self.key_at_fault(error, key)}: {error}"]) from error

    def node(self, key: str) -> Any:
        """Return what stands at a dotted key."""
        node: Any = self.values
        for part in key.split("."):
            node = node[part]
        return node

    def key_at_fault(self, error: Exception, key: str) -> str:
        """Return the key of the innermost component in whose code an error was raised.

        `key` is that of the part which was built. Where the error names one knob of the component,
        as in `num_heads=4`, return the knob's key.
        """
        components = [*target_nodes_with_keys(self.node(key), key)]
        for frame, _ in reversed([*walk_tb(error.__traceback__)]):
            kind = type(frame.f_locals.get("self"))
            for path, component in components:
                if component["_target_"] != f"{kind.__module__}.{kind.__qualname__}":
                    continue
                knobs = {name: value for name, value in component.items() if name[0] != "_"}
                # Of several components of one class, it is the one that was called with its knobs.
                if any(frame.f_locals.get(name, value) != value for name, value in knobs.items()):
                    continue
                named_knobs = [name for name in knobs if re.search(rf"\b{name}=", str(error))]
                return f"{path}.{named_knobs[0]}" if len(named_knobs) == 1 else path
        return key

    def build_model(self, objective: Any) -> Any:
        """Build the model that an objective asks for."""
        widths = (len(objective.inputs), len(objective.outputs), objective.max_length)
        return self.build("model", *widths, objective.arrangement)

    def part_names(self, collection: str) -> list[str]:
        """Return the names of the parts in a collection such as `metric`, without the null ones."""
        parts = self.values.get(collection) or {}
        return [name for name, node in parts.items() if node is not None]

    def build_parts(self, collection: str) -> dict[str, Any]:
        """Build everything in a collection."""
        return {name: self.build(f"{collection}.{name}") for name in self.part_names(collection)}
