"""Recipes: which runs a claim is judged by. A folder of YAML, read and checked whole.

    experiments/PAPER/
      check.yaml paper.yaml SCALE.yaml    # recipes: for a CPU, as in the paper, and others
      claims.yaml                         # SCALE: {NAME: claim}; see claims.py
      about.md                            # what is written by hand in README.md
      results/SCALE.json README.md figures/SCALE-*    # what `attnlab reproduce PAPER` makes

A recipe has `seeds` (how many), `common` (overrides of every run, as `attnlab train` takes them)
and `arms` (a label and the overrides of its runs); then what the README shows of them: `metrics`
of every arm in a table, the arms whose attention is drawn (`pictures`), and those whose curve on
the test split is (`curves`). `title` heads it in the README; check and paper have one. With
`needs: gpu` it is trained only where there is a GPU, and leaves trainer.accelerator as it is.

Where data lie on a machine is no part of a recipe: `attnlab reproduce PAPER dataset.path=FILE`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from attnlab.analysis.arms import nearest
from attnlab.errors import ConfigError, RequestError
from attnlab.reproduce.claims import Claim, Entry, entry_faults, parse

SCALES = {"check": "The check: on a CPU", "paper": "The paper's scale: on a GPU"}
"""The recipes that most papers have, in order, and their titles."""
NEEDS = ("gpu",)
LEAST_SEEDS = 3
"""Fewer are no evidence for a claim."""
OURS = ("seed", "runs_dir", "rerun", "extend")
"""Keys that belong to the program, not to a recipe."""
PLACES = ("dataset.path",)
"""Keys that say where data lie, which belong to whoever has them there."""
ENTRIES = {
    "seeds": Entry("whole number"),
    "common": Entry("list of texts"),
    "arms": Entry("map of lists"),
    "metrics": Entry("list of texts"),
    "pictures": Entry("list of texts"),
    "curves": Entry("list of texts"),
    "title": Entry("text", False),
    "needs": Entry("text", False),
}


@dataclass(frozen=True)
class Recipe:
    """A paper at a scale: the runs, and the claims that they decide."""

    folder: Path
    scale: str
    title: str
    needs: str | None
    """What a machine must have to train it."""
    seeds: int
    common: list[str]
    """Overrides of every run."""
    arms: Mapping[str, list[str]]
    """What each arm overrides besides."""
    metrics: list[str]
    pictures: list[str]
    curves: list[str]
    claims: list[Claim]

    @property
    def paper(self) -> str:
        return self.folder.name

    def overrides(self, arm: str) -> list[str]:
        """Give all that the runs of an arm override."""
        return [*self.common, *self.arms[arm]]

    def figure(self, name: str, suffix: str = "png") -> Path:
        """Give where a figure lies, in the folder of the README that shows it."""
        return Path("figures", f"{self.scale}-{name}.{suffix}")

    @property
    def columns(self) -> dict[str, list[str]]:
        """The columns of each table that a claim reads."""
        read: dict[str, list[str]] = {}
        for term in (term for claim in self.claims for term in claim.terms):
            if isinstance(term, str):
                continue
            if term.column not in read.setdefault(term.table, []):
                read[term.table].append(term.column)
        return read


def experiments_dir() -> Path:
    """Give the directory of attnlab's own recipes, in a wheel or beside the source."""
    inside = shipped_dir()
    return inside if inside.is_dir() else inside.parents[2] / "experiments"


def shipped_dir() -> Path:
    """Give where a wheel keeps the recipes, which is no place to write."""
    return Path(__file__).resolve().parents[1] / "experiments"


def papers(experiments: Path) -> list[str]:
    """List the papers that have a recipe."""
    if not experiments.is_dir():
        raise RequestError(f"there is no directory {experiments}")
    return sorted(path.parent.name for path in experiments.glob("*/claims.yaml"))


def recipes(experiments: Path, paper: str) -> dict[str, Recipe]:
    """Read a paper's recipe at each scale that it has: check, paper, then the others by name.

    Raises ConfigError with all faults.
    """
    known = papers(experiments)
    if paper not in known:
        raise RequestError(f"there is no recipe for {paper!r}; {nearest(paper, known)}")
    folder = experiments / paper
    faults: list[str] = []
    claimed = _load(folder / "claims.yaml", faults)
    there = {path.stem for path in folder.glob("*.yaml")} - {"claims"}
    found = {}
    for scale in [*(s for s in SCALES if s in there), *sorted(there - SCALES.keys())]:
        node = _load(folder / f"{scale}.yaml", faults)
        wrong = _recipe_faults(node, scale, f"{paper}/{scale}.yaml")
        faults += wrong
        if not wrong:
            arms = node["arms"]
            claims = _claims(
                claimed.get(scale), list(arms), f"{paper}/claims.yaml: {scale}", faults
            )
            optional = {"title": SCALES.get(scale), "needs": None}
            found[scale] = Recipe(folder, scale, **(optional | node), claims=claims)
    faults += [
        f"{paper}/claims.yaml: {scale}: there is no {scale}.yaml; {nearest(str(scale), there)}"
        for scale in claimed
        if scale not in there
    ]
    if faults:
        raise ConfigError(faults)
    return found


def _load(path: Path, faults: list[str]) -> dict[Any, Any]:
    try:
        # OmegaConf refuses a key that is given twice, of which plain YAML keeps the last.
        node = OmegaConf.to_container(OmegaConf.load(path))
    except (yaml.YAMLError, OmegaConfBaseException, OSError) as error:
        node, said = {}, " ".join(str(error).split())
        faults.append(f"{path.parent.name}/{path.name}: cannot be read: {said}")
    if not isinstance(node, dict):
        faults.append(f"{path.parent.name}/{path.name}: expected keys, got {node!r}")
        return {}
    return node


def _recipe_faults(node: dict[Any, Any], scale: str, where: str) -> list[str]:
    faults = entry_faults(node, ENTRIES, where)
    if faults:
        return faults
    if node["seeds"] < LEAST_SEEDS:
        faults.append(f"{where}: seeds: {node['seeds']}, but a claim needs {LEAST_SEEDS} at least")
    if not node["arms"]:
        faults.append(f"{where}: arms: there is none")
    if "title" not in node and scale not in SCALES:
        faults.append(f"{where}: `title` is missing; it heads this recipe in README.md")
    if "needs" in node and node["needs"] not in NEEDS:
        faults.append(f"{where}: needs: expected {' or '.join(NEEDS)}, got {node['needs']!r}")
    faults += [
        f"{where}: {key}: there is no arm {label!r}; {nearest(label, node['arms'])}"
        for key in ("pictures", "curves")
        for label in node[key]
        if label not in node["arms"]
    ]
    arms = {label: Entry("list of texts") for label in node["arms"]}
    faults += entry_faults(node["arms"], arms, f"{where}: arms")
    if not faults:
        for word in [*node["common"], *(w for words in node["arms"].values() for w in words)]:
            if word.partition("=")[0] in OURS:
                faults.append(f"{where}: {word}: `attnlab reproduce` decides that, not the recipe")
    return faults


def _claims(node: Any, arms: list[str], where: str, faults: list[str]) -> list[Claim]:
    if not isinstance(node, dict) or not node:
        faults.append(f"{where}: expected claims by name, got {node!r}")
        return []
    claims = []
    for name, body in node.items():
        made, wrong = parse(str(name), body, arms, f"{where}.{name}")
        claims += made
        faults += wrong
    return claims
