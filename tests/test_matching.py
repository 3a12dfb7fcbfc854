"""Equal budgets: the widths that are found, what is refused, and what stays as if hand-written."""

import json
import re
from functools import cache

import pytest
import torch

from attnlab import matching
from attnlab.cli import main
from attnlab.errors import ConfigError
from attnlab.experiment import Experiment
from attnlab.matching import Widths, solve
from attnlab.model.cost import flops
from attnlab.run_record.identity import identity_hash
from attnlab.run_record.record import find_runs
from tests.choices import choices
from tests.prose import keys_at_fault, refuses, says

DATA = ["dataset.num_train=200", "dataset.num_validation=50", "dataset.num_test=50"]
TINY = ["debug=tiny", "depth=shallow", *DATA, "trainer.max_steps=2", "trainer.threads=1"]


def size(config) -> int:
    return sum(weights.numel() for weights in Experiment(config).model.parameters())


def cost(config) -> float:
    experiment = Experiment(config)
    asked = experiment.example
    return flops(experiment.model, *asked.model_inputs) / asked.num_tokens


def widths(config) -> Widths:
    model = config.values["model"]
    return Widths(model["d_model"], model.get("ffn", {}).get("expansion"))


def refused(composed, key: str, *overrides: str) -> list[str]:
    """Hold all that is said of a config to its words; gives the keys at fault, in their order."""
    with pytest.raises(ConfigError) as raised:
        composed(*overrides)
    says(key, "\n".join(raised.value.faults))
    return keys_at_fault(raised.value)


@pytest.fixture(scope="module")
def reference(composed):
    """Measure the multihead variant beside some overrides, once."""
    return cache(lambda measure, *common: measure(composed("variant=multihead", *common)))


MATCHED_FAST = (("moe", "parameters"), ("lstm", "parameters"))
MATCHED = [(variant, match) for variant in choices("variant") for match in ("parameters", "flops")]


@pytest.mark.parametrize(
    ("variant", "match"),
    [
        pytest.param(*case, marks=[] if case in MATCHED_FAST else pytest.mark.slow)
        for case in MATCHED
    ],
)
def test_every_variant_costs_what_the_reference_does(composed, reference, variant, match):
    # One layer and two.
    depth = "shallow" if (variant == "lstm") == (match == "parameters") else "base"
    common, measure = [f"depth={depth}", *DATA], {"parameters": size, "flops": cost}[match]
    arm = measure(composed(f"variant={variant}", f"match={match}", *common))
    assert abs(arm / reference(measure, *common) - 1) <= 0.03


@pytest.mark.parametrize(
    "words",
    [
        ["model/mixer=gated_delta", "dataset=mqar"],
        pytest.param(["model/ffn=none"], marks=pytest.mark.slow),
        pytest.param(["model/ffn=swiglu", "model.block.norm=rms"], marks=pytest.mark.slow),
        ["variant=lstm_attention", "dataset=reversal"],
    ],
    ids=lambda words: words[0],
)
def test_any_other_part_and_objective_is_matched_too(composed, reference, words):
    common = [word for word in words if word.startswith("dataset")]
    config = composed(*words, "match=parameters")
    assert abs(size(config) / reference(size, *common) - 1) <= 0.03


def test_a_width_that_only_running_refuses_is_none_of_the_grid(composed):
    words = ["model.mixer.num_heads=6", "dataset=mqar"]
    # Heads of 11 channels can be built, and not be rotated.
    odd = size(composed(*words, "model/position=none", "model.d_model=66"))
    words += ["model/position=rope", "match=parameters", f"match.budget={odd}"]
    config = composed(*words)
    assert widths(config).d_model in (60, 72)
    assert cost(config) > 0


def test_the_reference_itself_stays_as_it_is(composed):
    config = composed("variant=multihead", "match=parameters", "size=medium")
    assert config.values == composed("variant=multihead", "size=medium").values


def test_a_stated_budget_is_met(composed):
    config = composed("variant=lstm", "match=parameters", "match.budget=250000")
    assert abs(size(config) / 250_000 - 1) <= 0.03
    config = composed("variant=vanilla", "match=flops", "match.budget=1e6", *DATA)
    assert abs(cost(config) / 1e6 - 1) <= 0.01


def test_another_variant_may_be_the_reference(composed):
    config = composed("variant=multihead", "match=parameters", "match.variant=lstm")
    assert abs(size(config) / size(composed("variant=lstm")) - 1) < 0.001


def test_size_and_depth_are_the_references_and_the_arms_own_parts_are_not(composed, reference):
    small = size(composed("match=parameters", "model/mixer=lstm", "model.ffn.expansion=1"))
    assert abs(small / reference(size) - 1) <= 0.01
    words = ("size=medium", "depth=shallow")
    arm = size(composed("match=parameters", *words, "variant=lstm"))
    assert abs(arm / reference(size, *words) - 1) <= 0.03


def test_what_is_matched_is_the_same_run_as_what_is_written_by_hand(composed):
    for variant, match in (("vanilla", "flops"), ("lstm", "parameters")):
        words = [f"variant={variant}", *DATA]
        config = composed(*words, f"match={match}", "match.budget=200000")
        d_model, expansion = widths(config)
        ffn = [] if expansion is None else [f"model.ffn.expansion={expansion}"]
        written = composed(*words, f"model.d_model={d_model}", *ffn)
        identities = [Experiment(each).identity for each in (config, written)]
        assert identities[0] == identities[1]
        assert identity_hash(identities[0]) == identity_hash(identities[1])
        assert "match" not in identities[0]


@pytest.mark.parametrize(("d_model", "percent"), [(256, 3), (512, 1)])
def test_a_model_below_a_million_parameters_may_be_off_by_3_percent_and_others_by_1(
    composed, d_model, percent
):
    # So many heads make for a coarse grid, on which nothing lies nearer.
    words = [f"model.d_model={d_model}", "depth=shallow"]
    words += ["model/ffn=none", "model.mixer.num_heads=32"]
    num_parameters = size(composed(*words))
    assert (num_parameters < 1_000_000) == (d_model == 256)
    inside, outside = (
        f"match.budget={num_parameters * (1 + (percent + by) / 100)}" for by in (-0.1, 0.1)
    )
    assert widths(composed(*words, "match=parameters", inside)).d_model == d_model
    words += ["match=parameters", outside]
    assert refused(composed, f"matching.allowed.{percent}_percent", *words) == ["match"]


def test_what_is_too_far_off_is_refused_with_the_nearest_and_nothing_is_written(tmp_path, capsys):
    runs = tmp_path / "runs"
    words = ["variant=lstm", "match=parameters", "match.budget=3000", f"runs_dir={runs}"]
    assert main(["train", *TINY, *words]) == 2
    says("matching.too_far_off", capsys.readouterr().err)
    assert not runs.exists()


@pytest.mark.parametrize(
    ("name", "words", "keys"),
    [
        ("knobs", ["match.varaint=lstm", "match.budget=much"], ["match.varaint", "match.budget"]),
        ("variant", ["match.variant=lstn"], ["match.variant"]),
        ("negative", ["match.budget=-1"], ["match.budget"]),
        ("enormous", ["match.budget=1e12"], ["match"]),
        ("reference", ["model.d_model=50"], ["match"]),
        ("model", ["model.tied=true"], ["match"]),
        ("dataset", ["dataset.held=7"], ["dataset.held"]),
        ("choice", ["match=parmeters", "match.budget=3"], ["match=parmeters", "match.budget"]),
        ("added", ["match=none", "+match.budget=3"], ["match"]),
    ],
)
def test_what_cannot_be_matched_is_refused_in_words(composed, name, words, keys):
    choice = [] if words[0].startswith("match=") else ["match=parameters"]
    assert refused(composed, f"matching.impossible.{name}", *choice, *words) == keys


def test_composing_leaves_the_random_state_as_it_was(composed, monkeypatch):
    monkeypatch.setattr(matching, "_MATCHED", {})
    before = torch.random.get_rng_state()
    composed("variant=lstm", "match=flops", *DATA)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_arm_is_solved_and_told_once_for_all_seeds(composed, capsys, monkeypatch):
    monkeypatch.setattr(matching, "_MATCHED", {})
    words = ["variant=vanilla,lstm", "seed=0,1", "match=parameters"]
    assert main(["train", "-m", *words, "--cfg"]) == 0
    printed = capsys.readouterr()
    says("matching.solved", printed.err)
    assert printed.out.count("d_model: 50\n") == 2


def test_a_sweep_trains_arms_of_equal_size(tmp_path, capsys):
    words = ["variant=multihead,lstm", "match=parameters", "match.variant=lstm"]
    assert main(["train", "-m", *TINY, *words, f"runs_dir={tmp_path}"]) == 0
    capsys.readouterr()
    counts = [record.result.parameters for record in find_runs(tmp_path) if record.result]
    assert len(counts) == 2
    assert abs(counts[0] / counts[1] - 1) < 0.001
    assert main(["compare", "--runs-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    sizes = re.findall(r"^(?:multihead|lstm) .* (\S+ k)$", printed, re.MULTILINE)
    assert len(sizes) == 2
    assert sizes[0] == sizes[1]


@pytest.mark.slow
def test_processes_side_by_side_find_the_widths_that_one_finds(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(matching, "_MATCHED", {})
    words = ["variant=multihead,lstm", "match=parameters", f"runs_dir={tmp_path}"]
    assert main(["train", "-m", "-j", "2", *TINY, *words]) == 0
    solved = capfd.readouterr().err
    assert len(re.findall("^match:", solved, re.M)) == 2
    attempts = [len(record.attempts) for record in find_runs(tmp_path) if record.result]
    assert attempts == [1, 1]
    assert main(["train", "-m", *TINY, *words]) == 0
    assert [len(record.attempts) for record in find_runs(tmp_path)] == attempts


def test_the_choices_are_listed_with_their_knobs(capsys):
    assert main(["list", "match", "--format", "json"]) == 0
    knobs = {choice["name"]: choice["knobs"] for choice in json.loads(capsys.readouterr().out)}
    expected = {"budget": None, "variant": "multihead"}
    assert (knobs["parameters"], knobs["flops"]) == (expected, expected)


def polynomial(widths: Widths) -> float:
    """Like two blocks: attention, and a network of int(expansion * d_model) units."""
    d_model, expansion = widths
    d_ffn = int((expansion or 0) * d_model)
    return 100.0 * d_model + 2 * (4 * d_model**2 + 2 * d_model * d_ffn)


def rounding(widths: Widths) -> float:
    """The same, of units in whole eights, as a mixture of experts has them."""
    d_model, expansion = widths
    d_ffn = 8 * round((expansion or 0) * d_model / 8)
    if d_ffn < 8:
        raise ValueError("no unit is left")
    return 100.0 * d_model + 2 * (4 * d_model**2 + 16 * d_model * d_ffn)


def multiples(unit: int):
    def require(widths: Widths) -> None:
        if widths.d_model % unit:
            raise ValueError(f"{widths.d_model} is no multiple of {unit}")

    return require


def always(widths: Widths) -> float:
    return float("inf")


def never(widths: Widths) -> float:
    return 0.0


@pytest.mark.parametrize("unit", [1, 8, 24])
@pytest.mark.parametrize("budget", [5_000.0, 2_000_003.0])
def test_of_a_width_alone_none_is_nearer(unit, budget):
    solved = solve(polynomial, multiples(unit), always, Widths(64), budget)
    all_of_them = [Widths(d_model) for d_model in range(unit, 2000, unit)]
    best = min(abs(polynomial(each) - budget) for each in all_of_them)
    assert abs(polynomial(solved) - budget) == best


@pytest.mark.parametrize("count", [polynomial, rounding])
@pytest.mark.parametrize("unit", [1, 24])
@pytest.mark.parametrize("budget", [50_000.0, 114_364.0])
def test_of_the_networks_widths_beside_the_nearest_model_none_is_nearer(count, unit, budget):
    solved = solve(count, multiples(unit), always, Widths(64, 2.0), budget)
    unchanged = [Widths(d_model, 2.0) for d_model in range(max(unit, 8), 2000, unit)]
    above = next(each for each in unchanged if count(each) > budget).d_model
    around = [
        Widths(d_model, (d_ffn + 0.5) / d_model)
        for d_model in (above - unit, above)
        if d_model > 0
        for d_ffn in range(8, 8 * d_model)
    ]
    best = min(abs(count(each) - budget) for each in [*around, *unchanged])
    assert abs(count(solved) - budget) == best
    assert len(str(solved.expansion)) <= len("12.345")


@pytest.mark.parametrize("count", [polynomial, rounding])
def test_a_search_builds_few_models(count):
    built = []

    def counted(widths: Widths) -> float:
        built.append(widths)
        return count(widths)

    for budget in (20_000.0, 300_000.0, 5_000_000.0):
        built.clear()
        solve(counted, multiples(4), always, Widths(64, 2.0), budget)
        assert len(built) <= 40


def test_an_expansion_that_changes_nothing_is_left_alone():
    def without(widths: Widths) -> float:
        return polynomial(Widths(widths.d_model))

    solved = solve(without, multiples(1), never, Widths(64, 4.0), 1e5)
    assert solved == Widths(solve(without, multiples(1), never, Widths(64), 1e5).d_model, 4.0)


def test_where_no_width_works_the_stated_one_says_why():
    with refuses(ValueError, "matching.no_width"):
        solve(polynomial, multiples(1000), never, Widths(64), 1e5)
