"""What conf/ offers, so that a new YAML is tested from birth."""

from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from attnlab.config import conf_dir


def choices(group: str) -> Sequence[str]:
    """List what conf/ offers in a group, so that a new YAML is tested from birth."""
    return sorted(path.stem for path in Path(conf_dir(), group).glob("*.yaml"))


def marked(name: str, fast: Collection[str]) -> Any:
    """Give a parameter that is slow unless it is one of the fast ones."""
    return name if name in fast else pytest.param(name, marks=pytest.mark.slow)


ATTENDING = "lstm_attention"
"""The variant whose attention needs an encoder, or a stack that sees all."""


def causal_variants() -> Sequence[str]:
    """List the variants that can predict the next token."""
    return [name for name in choices("variant") if name != ATTENDING]


def dataset_words(name: str) -> list[str]:
    """Choose a dataset; one that reads files gets small ones that are always there."""
    root = Path(__file__).parents[1]
    reads = composed_keys(name) & {"path", "obtain"}
    small = root / "tests/corpus/small" / name
    given = [f"dataset.path={small if small.is_dir() else root / 'LICENSE'}", "dataset.sha256=null"]
    return [f"dataset={name}", *(given if reads else [])]


@cache
def composed_keys(name: str) -> frozenset[str]:
    """List the knobs of a dataset, those included that its YAML inherits."""
    text = Path(conf_dir(), f"dataset/{name}.yaml").read_text()
    content = yaml.safe_load(text)
    above = [d for d in content.get("defaults", []) if isinstance(d, str) and d != "_self_"]
    return frozenset(content.get("dataset", {})).union(*map(composed_keys, above))
