"""Find, compose and check a config: every fault at once, before anything is built or written."""

from attnlab.config.check import changed
from attnlab.config.compose import ComposedEach, compose, compose_each, threads_each
from attnlab.config.composition import sweep_overrides
from attnlab.config.config import SECTIONS, Config
from attnlab.config.paths import conf_dir, own_parts, search_path, unreadable_yaml, yaml_files
from attnlab.config.sweep import Cell, Sweep, plan_sweep

__all__ = [
    "SECTIONS",
    "Cell",
    "ComposedEach",
    "Config",
    "Sweep",
    "changed",
    "compose",
    "compose_each",
    "conf_dir",
    "own_parts",
    "plan_sweep",
    "search_path",
    "sweep_overrides",
    "threads_each",
    "unreadable_yaml",
    "yaml_files",
]
