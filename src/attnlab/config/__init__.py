"""Find, compose and check a config: every fault at once, before anything is built or written."""

from attnlab.config.check import changed
from attnlab.config.compose import compose, compose_each, threads_each
from attnlab.config.composition import cells
from attnlab.config.config import SECTIONS, Config
from attnlab.config.paths import conf_dir, own_parts, search_path

__all__ = [
    "SECTIONS",
    "Config",
    "cells",
    "changed",
    "compose",
    "compose_each",
    "conf_dir",
    "own_parts",
    "search_path",
    "threads_each",
]
