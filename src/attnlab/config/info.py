"""What a config is and what it was composed from, as `--cfg` and `--info` print it."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from attnlab.building import UserTargets
from attnlab.config.composition import composition, parsed
from attnlab.errors import RequestError
from attnlab.signatures import nearest


def hydra_node(overrides: Sequence[str], own: UserTargets) -> dict[str, Any]:
    """Return what Hydra holds of itself beside a config, inside `search_path`."""
    composed, _ = composition(overrides, own)
    node: Any = OmegaConf.to_container(composed.hydra, resolve=False)
    return node


def defaults_rows(overrides: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return each YAML of a config in the order of composition, with its package and parent."""
    loader = GlobalHydra.instance().config_loader()
    words = list(parsed(overrides)[0])
    composed = loader.compute_defaults_list("train", words, RunMode.RUN)
    return [
        (default.config_path or "", default.package or "", default.parent or "")
        for default in composed.defaults
        if default.config_path and not default.config_path.startswith("hydra")
    ]


def search_places() -> list[tuple[str, str]]:
    """Return where YAMLs are looked for, the first place first, and who gave each."""
    places = GlobalHydra.instance().config_loader().get_search_path().get_path()
    return [(str(place.provider), str(place.path)) for place in places if place.path]


def package(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the part of a config at a dotted key, below that key.

    Raises RequestError where there is none.
    """
    node: Any = values
    *above, last = parts = key.split(".")
    for index, part in enumerate(parts):
        if not isinstance(node, Mapping) or part not in node:
            names = node if isinstance(node, Mapping) else ()
            place = ".".join(parts[:index]) or "the root"
            raise RequestError(f"--package {key}: {place} has no `{part}`{nearest(part, names)}")
        node = node[part]
    nested = {last: node}
    for part in reversed(above):
        nested = {part: nested}
    return nested


def shared_and_differing(
    configs: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what several configs have in common, and of each the rest."""
    leaves = [dict(_leaves(values, ())) for values in configs]
    first = leaves[0]
    common = {
        path
        for path, value in first.items()
        if all(path in config and config[path] == value for config in leaves)
    }
    shared = _nested({path: value for path, value in first.items() if path in common})
    return shared, [
        _nested({path: value for path, value in config.items() if path not in common})
        for config in leaves
    ]


def _leaves(node: Any, path: tuple[str, ...]) -> Any:
    if isinstance(node, Mapping) and node:
        for name, child in node.items():
            yield from _leaves(child, (*path, str(name)))
    else:
        yield path, node


def _nested(leaves: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in leaves.items():
        node = nested
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = value
    return nested
