"""Find, compose and check a config: every fault at once, before anything is built or written."""

from attnlab.config.check import change_config
from attnlab.config.compose import ComposedConfigs, compose, compose_each, share_cores
from attnlab.config.composition import sweep_overrides
from attnlab.config.config import SECTIONS, Config
from attnlab.config.paths import (
    add_import_paths,
    conf_dir,
    load_user_targets,
    search_path,
    unreadable_yaml,
    yaml_files,
)
from attnlab.config.sweep import Cell, Sweep, plan_cells, plan_sweep

__all__ = [
    "SECTIONS",
    "Cell",
    "ComposedConfigs",
    "Config",
    "Sweep",
    "add_import_paths",
    "change_config",
    "compose",
    "compose_each",
    "conf_dir",
    "load_user_targets",
    "plan_cells",
    "plan_sweep",
    "search_path",
    "share_cores",
    "sweep_overrides",
    "unreadable_yaml",
    "yaml_files",
]
