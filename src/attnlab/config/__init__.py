"""Find, compose and check a config: every fault at once, before anything is built or written."""

from attnlab.config.check import SECTIONS, Config, changed, check, compose
from attnlab.config.composition import cells
from attnlab.config.paths import conf_dir, own_parts, search_path

__all__ = [
    "SECTIONS",
    "Config",
    "cells",
    "changed",
    "check",
    "compose",
    "conf_dir",
    "own_parts",
    "search_path",
]
