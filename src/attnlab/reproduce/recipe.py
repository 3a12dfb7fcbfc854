"""Recipes: the runs by which claims are judged. A folder of YAML, loaded and checked as a whole.

    experiments/PAPER/
      check.yaml paper.yaml SCALE.yaml    # recipes: for a CPU, as in the paper, and others
      claims.yaml                         # SCALE: {NAME: claim}; see claims.py
      about.md                            # the part of README.md written by hand
      results/SCALE.json README.md figures/SCALE-*    # written by `attnlab reproduce PAPER`

A recipe has `seeds` (their number), `common` (overrides of every run, as `attnlab train` takes
them) and `arms` (labels, each with the overrides of its runs). The README shows the `metrics` of
every arm in a table, the attention of the arms of `pictures`, and the test curves of the arms of
`curves`. `title` is its heading in the README; check and paper have one by default. With
`needs: gpu` it is trained only on a machine with a GPU, and trainer.accelerator is not set.

Paths of data on a machine are no part of a recipe: `attnlab reproduce PAPER dataset.path=FILE`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from attnlab.analysis.arms import suggest_key
from attnlab.errors import ConfigError, RequestError
from attnlab.reproduce.claims import Claim, Entry, entry_faults, parse_claims

SCALES = {"check": "The check: on a CPU", "paper": "The paper's scale: on a GPU"}
"""The recipes that most papers have, in order, and their titles."""
NEEDS = ("gpu",)
LEAST_SEEDS = 3
"""The smallest number of seeds by which a claim is judged."""
OURS = ("seed", "runs_dir", "rerun", "extend")
"""Keys that the program sets, not a recipe."""
PLACES = ("dataset.path",)
"""Keys of paths of data, which depend on the machine."""
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
    """A paper at a scale: the runs, and the claims that are judged by them."""

    folder: Path
    scale: str
    title: str
    needs: str | None
    """What a machine must have to train it."""
    seeds: int
    common: list[str]
    """Overrides of every run."""
    arms: Mapping[str, list[str]]
    """Further overrides of each arm."""
    metrics: list[str]
    pictures: list[str]
    curves: list[str]
    claims: list[Claim]

    @property
    def paper(self) -> str:
        return self.folder.name

    def overrides(self, arm: str) -> list[str]:
        """Return all overrides of the runs of an arm."""
        return [*self.common, *self.arms[arm]]

    def figure_path(self, name: str, suffix: str = "png") -> Path:
        """Return the path of a figure, relative to the folder of the README."""
        return Path("figures", f"{self.scale}-{name}.{suffix}")

    @property
    def columns_by_table(self) -> dict[str, list[str]]:
        """The columns that the claims read, by table."""
        terms = (term for claim in self.claims for term in claim.terms)
        columns: dict[str, list[str]] = {}
        for term in terms:
            if isinstance(term, str):
                continue
            table_columns = columns.setdefault(term.table, [])
            if term.column not in table_columns:
                table_columns.append(term.column)
        return columns


def experiments_dir() -> Path:
    """Return the directory of attnlab's own recipes, in a wheel or in the repository."""
    shipped = shipped_dir()
    return shipped if shipped.is_dir() else shipped.parents[2] / "experiments"


def shipped_dir() -> Path:
    """Return the directory of the recipes in a wheel, which must not be written to."""
    return Path(__file__).resolve().parents[1] / "experiments"


def paper_names(experiments: Path) -> list[str]:
    """List the papers that have a recipe."""
    if not experiments.is_dir():
        raise RequestError(f"there is no directory {experiments}")
    return sorted(path.parent.name for path in experiments.glob("*/claims.yaml"))


def load_recipes(experiments: Path, paper: str) -> dict[str, Recipe]:
    """Load a paper's recipes by scale: check, paper, then the others in order of names.

    Raises ConfigError with all faults.
    """
    existing_papers = paper_names(experiments)
    if paper not in existing_papers:
        raise RequestError(
            f"there is no recipe for {paper!r}; {suggest_key(paper, existing_papers)}"
        )
    folder = experiments / paper
    faults: list[str] = []
    claims_by_scale = _load_yaml(folder / "claims.yaml", faults)
    scales = {path.stem for path in folder.glob("*.yaml")} - {"claims"}
    recipes_by_scale = {}
    for scale in [*(s for s in SCALES if s in scales), *sorted(scales - SCALES.keys())]:
        node = _load_yaml(folder / f"{scale}.yaml", faults)
        node_faults = _recipe_faults(node, scale, f"{paper}/{scale}.yaml")
        faults += node_faults
        if not node_faults:
            location = f"{paper}/claims.yaml: {scale}"
            arms = list(node["arms"])
            claims = _parse_claims(claims_by_scale.get(scale), arms, location, faults)
            optional_entries = {"title": SCALES.get(scale), "needs": None}
            recipes_by_scale[scale] = Recipe(
                folder, scale, **(optional_entries | node), claims=claims
            )
    faults += [
        f"{paper}/claims.yaml: {scale}: there is no {scale}.yaml; {suggest_key(str(scale), scales)}"
        for scale in claims_by_scale
        if scale not in scales
    ]
    if not (folder / "about.md").is_file():
        faults.append(f"{paper}/about.md: there is none; its text begins the paper's README.md")
    if faults:
        raise ConfigError(faults)
    return recipes_by_scale


def _load_yaml(path: Path, faults: list[str]) -> dict[Any, Any]:
    """Load a YAML mapping; add a fault and return an empty one if it cannot be read."""
    try:
        # OmegaConf raises for a duplicate key, of which plain YAML silently takes the last.
        node = OmegaConf.to_container(OmegaConf.load(path))
    except (yaml.YAMLError, OmegaConfBaseException, OSError) as error:
        node, reason = {}, " ".join(str(error).split())
        faults.append(f"{path.parent.name}/{path.name}: cannot be read: {reason}")
    if not isinstance(node, dict):
        faults.append(f"{path.parent.name}/{path.name}: expected keys, got {node!r}")
        return {}
    return node


def _recipe_faults(node: dict[Any, Any], scale: str, location: str) -> list[str]:
    """Return all faults in the YAML of a recipe; `location` names its file in them."""
    faults = entry_faults(node, ENTRIES, location)
    if faults:
        return faults
    if node["seeds"] < LEAST_SEEDS:
        faults.append(
            f"{location}: seeds: {node['seeds']}, but a claim needs {LEAST_SEEDS} at least"
        )
    if not node["arms"]:
        faults.append(f"{location}: arms: there is none")
    if "title" not in node and scale not in SCALES:
        faults.append(f"{location}: `title` is missing; it heads this recipe in README.md")
    if "needs" in node and node["needs"] not in NEEDS:
        faults.append(f"{location}: needs: expected {' or '.join(NEEDS)}, got {node['needs']!r}")
    faults += [
        f"{location}: {key}: there is no arm {arm!r}; {suggest_key(arm, node['arms'])}"
        for key in ("pictures", "curves")
        for arm in node[key]
        if arm not in node["arms"]
    ]
    arm_entries = {arm: Entry("list of texts") for arm in node["arms"]}
    faults += entry_faults(node["arms"], arm_entries, f"{location}: arms")
    if not faults:
        arm_overrides = (override for overrides in node["arms"].values() for override in overrides)
        for override in [*node["common"], *arm_overrides]:
            if override.partition("=")[0] in OURS:
                faults.append(
                    f"{location}: {override}: `attnlab reproduce` decides that, not the recipe"
                )
    return faults


def _parse_claims(node: Any, arms: list[str], location: str, faults: list[str]) -> list[Claim]:
    """Return the claims of a scale, and add the faults in them to `faults`."""
    if not isinstance(node, dict) or not node:
        faults.append(f"{location}: expected claims by name, got {node!r}")
        return []
    claims = []
    for name, claim_node in node.items():
        entry_claims, claim_faults = parse_claims(str(name), claim_node, arms, f"{location}.{name}")
        claims += entry_claims
        faults += claim_faults
    return claims
