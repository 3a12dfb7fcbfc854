"""Every recipe in the tree can be run as it stands, and a fault in one is told in words."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from attnlab.errors import ConfigError, RequestError
from attnlab.reproduce import readme, results
from attnlab.reproduce.judge import judge
from attnlab.reproduce.recipe import experiments_dir, load_recipes, paper_names
from attnlab.reproduce.recipe_runs import compose_runs
from tests.choices import dataset_words
from tests.prose import refuses, says
from tests.reproduce.recipes import claim, folder, read

ROOT = Path(__file__).parents[2]
PAPERS = paper_names(experiments_dir())


def test_the_recipes_are_those_of_the_checkout():
    assert experiments_dir() == ROOT / "experiments"
    assert "pronoun" in PAPERS
    held = {path.parent.name for path in (ROOT / "experiments").glob("*/*")}
    assert held - {"results"} == set(PAPERS)


@pytest.mark.parametrize("paper", PAPERS)
def test_every_recipe_composes_for_each_arm(paper, tmp_path):
    for scale, recipe in load_recipes(experiments_dir(), paper).items():
        (dataset,) = (word for word in recipe.common if word.startswith("dataset="))
        _, *places = dataset_words(dataset.removeprefix("dataset="))
        planned = compose_runs(recipe, 1, tmp_path, places=places)
        assert [cell.arm for cell in planned] == list(recipe.arms)
        text = (recipe.folder / f"{scale}.yaml").read_text()
        head = "".join(line for line in text.splitlines(True) if line.startswith("#"))
        for word in ("Source", "Command", "Cost", "Expected"):
            assert word in head, f"{paper}/{scale}.yaml: its header does not say: {word}"


@pytest.mark.parametrize("paper", PAPERS)
def test_the_readme_in_the_tree_is_what_the_results_say(paper):
    found = load_recipes(experiments_dir(), paper)
    place = experiments_dir() / paper
    kept = {scale: results.read_results(place, scale) for scale in found}
    assert (place / "README.md").read_text() == readme.render_readme(found, kept, place)


@pytest.mark.parametrize("paper", PAPERS)
def test_every_claim_is_dated_in_the_log(paper):
    log = (ROOT / "experiments/LOG.md").read_text()
    assert re.search(rf"^- \d{{4}}-\d\d-\d\d\. `{paper}`", log, re.MULTILINE)


def test_the_published_losses_are_those_of_nanogpts_readme():
    """By hand, so that neither number nor tolerance moves unseen."""
    found = load_recipes(experiments_dir(), "shakespeare")
    told = {
        (scale, claim.measure): (claim.theirs, str(claim.bound))
        for scale in ("check", "paper")
        for claim in found[scale].claims
    }
    assert told == {
        ("check", "sampled/loss"): ("1.88", "1.88, give or take .05"),
        ("check", "validation/loss"): ("1.88", "1.88, give or take .05"),
        ("paper", "least of validation.loss"): ("1.4697", "1.4697, give or take .015"),
    }
    assert [found[scale].seeds for scale in found] == [3, 3, 3]


def test_the_claims_on_pronoun_are_those_that_were_set():
    """By hand from the acceptance list, so that a threshold does not move unseen."""
    claims = load_recipes(experiments_dir(), "pronoun")["check"].claims
    told = {c.name: (" - ".join(c.arms), c.measure, str(c.bound)) for c in claims}
    cut, exact = "test/accuracy - pronoun/cut_", "= 0 in every seed"
    blind, two = ("vanilla-1", "multihead-1", "causal-2"), ("vanilla-2", "multihead-2", "moe-2")
    slower = ("lstm-2-long - multihead-2-long", "steps until test.accuracy >= 0.98")
    assert told == {
        **{f"flip_is_zero/{arm}": (arm, "pronoun/flip", exact) for arm in blind},
        "flip/multihead-2": ("multihead-2", "pronoun/flip", ">= .4, interval above .2"),
        "right_over_wrong/multihead-2": ("multihead-2", "pronoun/right - pronoun/wrong", ">= .2"),
        **{f"cut_right_costs/{arm}": (arm, f"{cut}right", ">= .3") for arm in two},
        **{f"cut_wrong_is_free/{arm}": (arm, f"{cut}wrong", "<= .02") for arm in two},
        **{f"held_out_accuracy/{a}": (a, "test/accuracy", ">= .98") for a in (*blind, *two)},
        "lstm_is_slower/lstm-2-long": (*slower, ">= 0, interval above 0"),
    }


def test_the_claims_on_mqar_are_those_that_were_set():
    recipe = load_recipes(experiments_dir(), "mqar")["check"]
    told = {c.name: (" - ".join(c.arms), str(c.bound)) for c in recipe.claims}
    assert {c.measure for c in recipe.claims} == {"test/accuracy"}
    assert told == {
        "two_layers_recall/two-layers": ("two-layers", ">= .98 in every seed"),
        "one_layer_guesses/one-layer": ("one-layer", "<= .2 in every seed"),
        "lstm_guesses/lstm": ("lstm", "<= .2 in every seed"),
        "gap/one-layer": ("one-layer - two-layers", "<= -.78, interval below 0"),
        "gap/lstm": ("lstm - two-layers", "<= -.78, interval below 0"),
    }


CLAIMS = {
    "typo": claim(at_leest=0.5),
    "no_bound": claim(),
    "two_bounds": claim(at_least=0, at_most=1),
    "bound_in_words": claim(at_least="much"),
    "bound_of_truth": claim(at_least=True),
    "seeds_of_number": claim(at_least=0, in_every_seed=1),
    "arm": claim(arms=["multhead"], at_least=0),
    "minus": claim(minus="c", at_least=0),
    "minus_itself": claim(minus="a", at_least=0),
    "no_arm": claim(arms=[], at_least=0),
    "measure": claim("test accuracy", at_least=0),
    "measure_of_three": claim("a - b - c", at_least=0),
    "measure_above": claim("steps until test.accuracy > 1", at_least=0),
    "measure_of_no_column": claim("least of validation", at_least=0),
    "measure_of_best": claim("best of validation.loss", at_least=0),
    "near_alone": claim(near=1),
    "tolerance_0": claim(near=1, tolerance=0),
    "tolerance_of_bound": claim(at_least=1, tolerance=1),
    "interval_of_exactly": claim(exactly=1, interval_excludes=0),
    "interval_above": claim(at_least=0.2, interval_excludes=0.4),
    "interval_below": claim(at_most=0.4, interval_excludes=0.2),
    "no_words": {"arms": ["a"], "measure": "m", "exactly": 0},
    "text": "at_least 0.5",
}


def test_every_fault_in_claims_is_told_at_once_with_its_place(tmp_path):
    arms = {"a": ["variant=vanilla"], "multihead": ["variant=multihead"]}
    folder(tmp_path, {"good": claim(at_least=0), **CLAIMS}, arms)
    with pytest.raises(ConfigError) as refusal:
        read(tmp_path)
    faults = {name: [] for name in CLAIMS}
    for fault in refusal.value.faults:
        place = re.match(r"tiny/claims\.yaml: check\.(\w+)", fault)
        assert place, fault
        faults[place[1]].append(fault)
    for name, of_claim in faults.items():
        says(f"reproduce.claim.{name}", " / ".join(of_claim))


RECIPES: dict[str, dict[str, Any]] = {
    "seeds": {"seeds": 2},
    "seeds_in_words": {"seeds": "five"},
    "typo": {"sedes": 3},
    "no_arms": {"arms": {}},
    "arm_of_text": {"arms": {"a": "variant=vanilla"}},
    "seed": {"common": ["seed=3"]},
    "rerun": {"common": ["rerun=true"]},
    "curves": {"curves": ["aa"]},
    "needs": {"needs": "tpu"},
    "needs_of_truth": {"needs": True},
    "title": {"title": 1},
}
FILES = {
    "claims_of_list": ("claims.yaml", "- check"),
    "no_claims": ("claims.yaml", "check: {}"),
    "scale": ("claims.yaml", "chek: {}"),
}


def test_a_fault_in_a_recipe_is_told_with_its_place(tmp_path):
    path = folder(tmp_path, {"claim": claim(at_least=0)}) / "check.yaml"
    recipe = yaml.safe_load(path.read_text())
    for name, change in RECIPES.items():
        path.write_text(yaml.safe_dump({**recipe, **change}))
        with pytest.raises(ConfigError) as refusal:
            read(tmp_path)
        says(f"reproduce.recipe.{name}", refusal.value)
        assert refusal.value.faults[0].startswith("tiny/check.yaml")


def test_a_file_that_cannot_be_a_recipe_is_refused(tmp_path):
    for name, (file, text) in FILES.items():
        path = folder(tmp_path / name, {"claim": claim(at_least=0)})
        (path / file).write_text(text)
        with refuses(ConfigError, f"reproduce.file.{name}", tmp_path):
            read(tmp_path / name)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    for file, text in (
        ("check.yaml", "seeds: 3\nseeds: 4\ncommon: []\narms: {a: []}"),
        ("claims.yaml", "check: ["),
    ):
        path = folder(tmp_path / file, {"claim": claim(at_least=0)})
        (path / file).write_text(text)
        with pytest.raises(ConfigError) as refusal:
            read(tmp_path / file)
        # What comes after is the YAML library's.
        assert refusal.value.faults[0].startswith(f"tiny/{file}: ")
        says("reproduce.unreadable", refusal.value.faults[0].split(": ")[1])


def test_a_paper_has_recipes_of_any_name_check_and_paper_first(tmp_path):
    claims = {"claim": claim(at_least=0)}
    for scale in ("paper", "long", "arms", "check"):
        titled: dict[str, Any] = {} if scale in ("paper", "check") else {"title": f"All {scale}"}
        folder(tmp_path, claims, scale=scale, needs="gpu", **titled)
    found = load_recipes(tmp_path, "tiny")
    assert {scale: recipe.title for scale, recipe in found.items()} == {
        "check": "The check: on a CPU",
        "paper": "The paper's scale: on a GPU",
        "arms": "All arms",
        "long": "All long",
    }
    assert [recipe.scale for recipe in found.values()] == list(found)
    assert {recipe.needs for recipe in found.values()} == {"gpu"}
    folder(tmp_path, claims, scale="check", title="On my laptop")
    assert (read(tmp_path).title, read(tmp_path).needs) == ("On my laptop", None)
    folder(tmp_path, claims, scale="arms")
    with refuses(ConfigError, "reproduce.no_title"):
        load_recipes(tmp_path, "tiny")


def test_an_unknown_paper_is_refused_with_the_nearest(tmp_path):
    with refuses(RequestError, "reproduce.paper", experiments_dir()):
        load_recipes(experiments_dir(), "pronuon")
    with refuses(RequestError, "reproduce.no_directory", tmp_path):
        paper_names(tmp_path / "nowhere")


def test_the_runs_of_all_arms_are_checked_before_any(tmp_path):
    arms = {"a": ["variant=vanila"], "b": ["model.num_haeds=2"], "c": []}
    folder(tmp_path, {"claim": claim(at_least=0)}, {**arms, "d": []})
    with refuses(ConfigError, "reproduce.arms"):
        compose_runs(read(tmp_path), 3, tmp_path)


def test_runs_at_once_share_the_threads_unless_the_recipe_says_how(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    arms = {"a": ["variant=vanilla"], "b": ["variant=vanilla", "trainer.threads=3"]}
    folder(tmp_path, {"claim": claim(at_least=0)}, arms)

    def threads(jobs):
        planned = compose_runs(read(tmp_path), 1, tmp_path, jobs)
        return [cell.config.values["trainer"]["threads"] for cell in planned]

    assert (threads(1), threads(2), threads(16)) == ([None, 3], [4, 3], [1, 3])


def test_where_data_lie_is_in_every_run_and_in_no_recipe(tmp_path):
    folder(tmp_path, {"claim": claim(at_least=0)}, {"a": [], "b": ["depth=deep"]})
    planned = compose_runs(read(tmp_path), 2, tmp_path, places=["dataset.seed=7"])
    assert {cell.config.values["dataset"]["seed"] for cell in planned} == {7}
    with refuses(ConfigError, "reproduce.place_of_no_data"):
        compose_runs(read(tmp_path), 2, tmp_path, places=["dataset.path=here"])


def test_the_columns_of_claims_are_those_that_are_kept(tmp_path):
    measures = ("least of validation.loss", "most of validation.accuracy - test/accuracy")
    steps = ("steps until test.loss <= 1", "least of validation.loss - test/loss")
    claims = {f"c{at}": claim(m, at_least=0) for at, m in enumerate((*measures, *steps))}
    folder(tmp_path, claims)
    assert read(tmp_path).columns_by_table == {"validation": ["loss", "accuracy"], "test": ["loss"]}


def test_seeds_come_first_so_that_what_is_done_is_balanced(tmp_path):
    folder(tmp_path, {"claim": claim(at_least=0)})
    planned = compose_runs(read(tmp_path), 2, tmp_path / "a=b c")
    assert [(cell.arm, cell.seed) for cell in planned] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert [cell.config.values["seed"] for cell in planned] == [0, 0, 1, 1]
    assert {cell.config.values["runs_dir"] for cell in planned} == {str(tmp_path / "a=b c")}


def test_claims_that_were_never_run_are_listed_as_such(tmp_path):
    folder(tmp_path, {"one": claim(arms=["a", "b"], at_least=0)})
    told = judge(read(tmp_path), None)
    assert [(v.claim.name, v.verdict) for v in told] == [("one/a", "not_run"), ("one/b", "not_run")]
