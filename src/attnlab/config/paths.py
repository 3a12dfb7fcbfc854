"""Where configs lie: attnlab's own, and those of the user."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from attnlab.building import NO_USER_TARGETS, UserTargets, first_line
from attnlab.choices import conf_dir, no_config_dir
from attnlab.environment import default_runs_dir
from attnlab.signatures import target_nodes

__all__ = ["add_import_paths", "conf_dir", "load_user_targets", "search_path", "unreadable_yaml"]

# In conf/train.yaml; OmegaConf's own `oc.env` takes an empty variable for a value.
OmegaConf.register_resolver("attnlab.runs_dir", lambda: str(default_runs_dir()), replace=True)


@contextmanager
def search_path(config_dir: Path | None = None) -> Iterator[UserTargets]:
    """Let Hydra find the user's configs, then ours; yield what the user's add to our targets."""
    directories, user_targets = [conf_dir()], NO_USER_TARGETS
    if config_dir is not None:
        user_targets = load_user_targets(config_dir)
        directories.insert(0, config_dir.resolve())
    outer_hydra = GlobalHydra.instance().hydra
    GlobalHydra.instance().hydra = None
    try:
        # Not `Path.as_uri`: Hydra takes the rest for a path as it stands, and decodes nothing.
        with hydra.initialize_config_search_path([f"file://{d}" for d in directories], "attnlab"):
            yield user_targets
    finally:
        # Not the instance of before: Hydra puts another one in its place.
        GlobalHydra.instance().hydra = outer_hydra


def load_user_targets(config_dir: Path) -> UserTargets:
    """Return what a directory of the user's own configs names, which can then be imported.

    Raises RequestError if there is no such directory.
    """
    add_import_paths(config_dir)
    return UserTargets(str(config_dir), _target_names(config_dir))


def add_import_paths(config_dir: Path) -> None:
    """Let modules be imported from the user's configs, beside them, and where the command is typed.

    Raises RequestError if there is no such directory.
    """
    if not config_dir.is_dir():
        raise no_config_dir(config_dir)
    resolved_dir = config_dir.resolve()
    for directory in map(str, (resolved_dir, resolved_dir.parent, Path.cwd())):
        # Last, so that no file of the user's stands in for a module that attnlab or torch imports.
        if directory not in sys.path:
            sys.path.append(directory)


def unreadable_yaml(paths: Iterable[Path]) -> Iterator[str]:
    """Yield a fault for each YAML that cannot be read, with its place."""
    for path in paths:
        try:
            # As Hydra reads it: a key that stands there twice is a fault.
            OmegaConf.load(path)
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            byte = f"{error.object[error.start]:#04x}"
            yield f"{path}, line {line}: byte {byte} is no UTF-8; save the file as UTF-8"
        except yaml.MarkedYAMLError as error:
            position = error.problem_mark or error.context_mark
            line_text = f", line {position.line + 1}" if position else ""
            yield f"{path}{line_text}: {error.problem}"
        except (yaml.YAMLError, ValueError, OSError) as error:
            yield f"{path}: {first_line(error)}"


def _target_names(config_dir: Path) -> frozenset[str]:
    """Return what stands behind `_target_` in the YAMLs of a directory, those of runs left out."""
    target_names: set[str] = set()
    for path in yaml_files(config_dir):
        # A file that is no YAML is refused where it is chosen.
        with suppress(yaml.YAMLError, ValueError, OSError):
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            part_targets = [node["_target_"] for node in target_nodes(content)]
            target_names |= {name for name in part_targets if isinstance(name, str)}
    return frozenset(target_names)


def yaml_files(config_dir: Path) -> Iterator[Path]:
    """Yield the YAMLs below a directory of configs, without those of runs that lie there."""
    for directory, subdirectories, file_names in os.walk(config_dir.resolve()):
        subdirectories.sort()
        if "attempts" in subdirectories:
            # A run, which may be somebody else's.
            subdirectories.clear()
            continue
        yield from (
            Path(directory, file_name)
            for file_name in sorted(file_names)
            if file_name.endswith(".yaml")
        )
