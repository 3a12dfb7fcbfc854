"""What a config is and what it was composed from, as `--cfg` and `--info` print it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from attnlab.building import UserTargets
from attnlab.config.composition import compose_with_faults, parse_overrides
from attnlab.errors import RequestError
from attnlab.signatures import nearest_hint


def hydra_node(overrides: Sequence[str], user_targets: UserTargets) -> dict[str, Any]:
    """Return what Hydra holds of itself beside a config, inside `search_path`."""
    composed_config, _ = compose_with_faults(overrides, user_targets)
    node: Any = OmegaConf.to_container(composed_config.hydra, resolve=False)
    return node


def defaults_rows(overrides: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return each YAML of a config in the order of composition, with its package and parent."""
    loader = GlobalHydra.instance().config_loader()
    readable_overrides = list(parse_overrides(overrides).by_text)
    defaults_list = loader.compute_defaults_list("train", readable_overrides, RunMode.RUN)
    return [
        (default.config_path or "", default.package or "", default.parent or "")
        for default in defaults_list.defaults
        if default.config_path and not default.config_path.startswith("hydra")
    ]


def search_places() -> list[tuple[str, str]]:
    """Return where YAMLs are looked for, the first place first, and who gave each."""
    places = GlobalHydra.instance().config_loader().get_search_path().get_path()
    return [(str(place.provider), str(place.path)) for place in places if place.path]


def select_package(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the part of a config at a dotted key, below that key.

    Raises RequestError where there is none.
    """
    node: Any = values
    *enclosing_keys, last_key = parts = key.split(".")
    for index, part in enumerate(parts):
        if not isinstance(node, Mapping) or part not in node:
            names = node if isinstance(node, Mapping) else ()
            section = ".".join(parts[:index]) or "the root"
            raise RequestError(
                f"--package {key}: {section} has no `{part}`{nearest_hint(part, names)}"
            )
        node = node[part]
    nested = {last_key: node}
    for part in reversed(enclosing_keys):
        nested = {part: nested}
    return nested


def split_shared(
    configs: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what several configs have in common, and of each the rest."""
    leaves_by_config = [dict(_leaf_pairs(values, ())) for values in configs]
    first_leaves, *other_leaves = leaves_by_config
    shared_paths = {
        path
        for path, value in first_leaves.items()
        if all(path in leaves and leaves[path] == value for leaves in other_leaves)
    }
    shared = _nest({path: first_leaves[path] for path in first_leaves if path in shared_paths})
    return shared, [
        _nest({path: value for path, value in leaves.items() if path not in shared_paths})
        for leaves in leaves_by_config
    ]


def _leaf_pairs(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield path and value of each leaf of nested mappings."""
    if isinstance(node, Mapping) and node:
        for name, child in node.items():
            yield from _leaf_pairs(child, (*path, str(name)))
    else:
        yield path, node


def _nest(leaves: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """Return leaves by path as nested mappings."""
    nested: dict[str, Any] = {}
    for path, value in leaves.items():
        node = nested
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = value
    return nested
