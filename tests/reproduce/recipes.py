"""Recipes in a folder, and results that nobody trained for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from attnlab.reproduce.judge import Verdict, judge
from attnlab.reproduce.recipe import Recipe, load_recipes

WORDS = {"says": "It is so", "theirs": "they say", "source": "table 1"}


def claim(measure: str = "test/accuracy", arms: Sequence[str] = ("a",), **more: Any) -> Any:
    return {**WORDS, "arms": list(arms), "measure": measure, **more}


def folder(
    experiments: Path,
    claims: Mapping[str, Any],
    arms: Mapping[str, list[str]] | None = None,
    common: Sequence[str] = (),
    seeds: int = 3,
    scale: str = "check",
    **more: Any,
) -> Path:
    """Write a recipe of the paper `tiny`, beside those that it has."""
    path = experiments / "tiny"
    path.mkdir(parents=True, exist_ok=True)
    arms = {"a": ["variant=vanilla"], "b": ["variant=lstm"]} if arms is None else arms
    shown = {"metrics": ["test/accuracy"], "pictures": list(arms), "curves": []}
    recipe = {"seeds": seeds, "common": list(common), "arms": dict(arms), **shown, **more}
    (path / f"{scale}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    file = path / "claims.yaml"
    known = yaml.safe_load(file.read_text()) if file.exists() else {}
    file.write_text(yaml.safe_dump({**known, scale: dict(claims)}, sort_keys=False))
    (path / "about.md").write_text("# tiny\n")
    return path


def read(experiments: Path, scale: str = "check") -> Recipe:
    return load_recipes(experiments, "tiny")[scale]


def run(seed: int, steps: int = 500, tables: Any = None, **metrics: float) -> dict[str, Any]:
    named = {name.replace("_", "/", 1): value for name, value in metrics.items()}
    return {
        "name": f"run-{seed}",
        "seed": seed,
        "steps": steps,
        "seconds": 1.0,
        "data_hash": "same",
        "metrics": named,
        "tables": tables or {},
    }


def results(
    recipe: Recipe, runs: Mapping[str, Sequence[Any]], failed: Mapping[str, Sequence[int]] = {}
) -> dict[str, Any]:
    arms = {
        arm: {
            "overrides": recipe.overrides(arm),
            "parameters": 1000,
            "headline": "test/accuracy",
            "runs": list(runs[arm]),
            "failed": [{"seed": s, "name": "x", "error": "Diverged"} for s in failed.get(arm, [])],
        }
        for arm in runs
    }
    made = {
        "runs": sum(map(len, runs.values())),
        "git": {"commit": "0123456789abcdef", "dirty": False},
        "device": "x86_64 cpu",
        "threads": 1,
        "versions": {"python": "3.11", "torch": "2.13"},
    }
    seeds = sorted({r["seed"] for of in runs.values() for r in of})
    return {
        "schema": 1, "paper": "tiny", "scale": recipe.scale, "date": "2026-01-01", "seeds": seeds,
        "made": [made], "arms": arms,
    }  # fmt: skip


def verdict(
    tmp_path: Path,
    given: Any,
    runs: Mapping[str, Sequence[Any]],
    failed: Mapping[str, Sequence[int]] = {},
) -> Verdict:
    """Judge one claim by fabricated runs of the arms a and b."""
    folder(tmp_path, {"claim": given})
    recipe = read(tmp_path)
    (only,) = judge(recipe, results(recipe, runs, failed))
    return only


def accuracies(*values: float) -> list[Any]:
    return [run(seed, test_accuracy=value) for seed, value in enumerate(values)]
