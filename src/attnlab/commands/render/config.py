"""Composed configs, and what they are composed of, as text."""

from collections.abc import Sequence
from typing import Any

import yaml

from attnlab.analysis.report import align_rows
from attnlab.building import UserTargets
from attnlab.config import Cell
from attnlab.config.info import (
    defaults_rows,
    hydra_node,
    package,
    search_places,
    shared_and_differing,
)


def config_text(cell: Cell, own: UserTargets, kind: str = "job", key: str | None = None) -> str:
    """Return the YAML of a run's config, of what Hydra holds beside it, or of all; or a part."""
    values = {} if kind == "hydra" else cell.config.values
    if kind != "job":
        values = {**values, "hydra": hydra_node(cell.overrides, own)}
    return _yaml(values if key is None else package(values, key))


def sweep_text(cells: Sequence[Cell], key: str | None = None) -> str:
    """Return what the configs of a sweep share as YAML, and a document for what each has else."""
    values = [cell.config.values for cell in cells]
    parts = values if key is None else [package(config_values, key) for config_values in values]
    shared, rests = shared_and_differing(parts)
    documents = [f"# shared by all {len(cells)} runs\n{_yaml(shared)}"]
    documents += [
        f"# {number}/{len(cells)}: {cell.differs}\n{_yaml(rest)}"
        for number, (cell, rest) in enumerate(zip(cells, rests, strict=True), 1)
    ]
    return "\n---\n".join(documents)


def info_text(kind: str, cell: Cell, own: UserTargets) -> str:
    """Return what a config is composed of: the YAMLs in their order, and where they were found."""
    tables = {
        "searchpath": lambda: align_rows([("provider", "place"), *search_places()]),
        "defaults": lambda: align_rows(
            [("file", "package", "parent"), *defaults_rows(cell.overrides)]
        ),
        "config": lambda: [config_text(cell, own)],
    }
    kinds = tables if kind == "all" else [kind]
    return "\n\n".join("\n".join([f"# {name}", *tables[name]()]) for name in kinds)


def _yaml(node: Any) -> str:
    return yaml.safe_dump(node, sort_keys=False, allow_unicode=True).rstrip("\n")
