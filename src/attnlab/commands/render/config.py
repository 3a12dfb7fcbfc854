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
    search_places,
    select_package,
    split_shared,
)


def config_text(
    cell: Cell, user_targets: UserTargets, kind: str = "job", key: str | None = None
) -> str:
    """Return the YAML of a run's config, of what Hydra holds beside it, or of all; or a part."""
    values = {} if kind == "hydra" else cell.config.values
    if kind != "job":
        values = {**values, "hydra": hydra_node(cell.overrides, user_targets)}
    return _yaml_text(values if key is None else select_package(values, key))


def sweep_text(cells: Sequence[Cell], key: str | None = None) -> str:
    """Return what the configs of a sweep share as YAML, and a document for what each has else."""
    values_by_cell = [cell.config.values for cell in cells]
    printed_parts = (
        values_by_cell
        if key is None
        else [select_package(config_values, key) for config_values in values_by_cell]
    )
    shared, own_parts = split_shared(printed_parts)
    documents = [f"# shared by all {len(cells)} runs\n{_yaml_text(shared)}"]
    documents += [
        f"# {number}/{len(cells)}: {cell.differs}\n{_yaml_text(own_part)}"
        for number, (cell, own_part) in enumerate(zip(cells, own_parts, strict=True), 1)
    ]
    return "\n---\n".join(documents)


def info_text(kind: str, cell: Cell, user_targets: UserTargets) -> str:
    """Return what a config is composed of: the YAMLs in their order, and where they were found."""
    lines_by_kind = {
        "searchpath": lambda: align_rows([("provider", "place"), *search_places()]),
        "defaults": lambda: align_rows(
            [("file", "package", "parent"), *defaults_rows(cell.overrides)]
        ),
        "config": lambda: [config_text(cell, user_targets)],
    }
    kinds = lines_by_kind if kind == "all" else [kind]
    return "\n\n".join("\n".join([f"# {name}", *lines_by_kind[name]()]) for name in kinds)


def _yaml_text(node: Any) -> str:
    return yaml.safe_dump(node, sort_keys=False, allow_unicode=True).rstrip("\n")
