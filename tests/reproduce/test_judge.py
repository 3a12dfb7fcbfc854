"""A verdict is what the claim says of the numbers, by an independent calculation."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy import stats

from attnlab.errors import ConfigError
from attnlab.reproduce.judge import judge
from tests.prose import refuses, says
from tests.reproduce.recipes import accuracies, claim, folder, read, results, run, verdict


def curve(values, steps=(25, 50, 75)):
    return {"test": {"step": list(steps), "accuracy": list(values)}}


def speed(seed, *values):
    return run(seed, steps=75, tables=curve(values), test_accuracy=values[-1])


BOUNDS: list[tuple[dict[str, Any], tuple[float, ...], str]] = [
    ({"exactly": 0}, (0.0, 0.0, 0.0), "holds"),
    ({"exactly": 0}, (0.0, 1e-12, 0.0), "fails"),
    ({"exactly": 0.5}, (0.4, 0.5, 0.6), "fails"),
    ({"at_least": 0.5}, (0.4, 0.5, 0.6), "holds"),
    ({"at_least": 0.5}, (0.4, 0.5, 0.59), "fails"),
    ({"at_least": 0.5, "in_every_seed": True}, (0.5, 0.5, 0.6), "holds"),
    ({"at_least": 0.5, "in_every_seed": True}, (0.49, 0.9, 0.9), "fails"),
    ({"at_most": 0.5}, (0.4, 0.5, 0.6), "holds"),
    ({"at_most": 0.5}, (0.4, 0.5, 0.61), "fails"),
    ({"at_most": 0.5, "in_every_seed": True}, (0.5, 0.5, 0.4), "holds"),
    ({"at_most": 0.5, "in_every_seed": True}, (0.51, 0.1, 0.1), "fails"),
    ({"near": 0.5, "tolerance": 0.1}, (0.6, 0.6, 0.6), "holds"),
    ({"near": 0.5, "tolerance": 0.1}, (0.4, 0.4, 0.4), "holds"),
    ({"near": 0.5, "tolerance": 0.1}, (0.61, 0.61, 0.61), "fails"),
    ({"near": 0.5, "tolerance": 0.1}, (0.39, 0.39, 0.39), "fails"),
]


def test_each_kind_holds_up_to_its_threshold_and_fails_beyond(tmp_path):
    offenders = []
    for bound, values, expected in BOUNDS:
        judged = verdict(tmp_path, claim(**bound), {"a": accuracies(*values)})
        assert judged.ours.mean == pytest.approx(sum(values) / 3)
        if judged.verdict != expected:
            offenders.append((bound, values, judged.verdict))
    assert offenders == []


def test_an_interval_excludes_what_scipy_says_it_excludes(tmp_path):
    values = [0.61, 0.66, 0.72]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    mean = float(np.mean(values))
    for kind, margin in product(("at_least", "at_most"), (0.001, -0.001)):
        excluded = low - margin if kind == "at_least" else high + margin
        bound: Any = {kind: mean, "interval_excludes": float(excluded)}
        judged = verdict(tmp_path, claim(**bound), {"a": accuracies(*values)})
        assert judged.verdict == ("holds" if margin > 0 else "fails"), (kind, margin)
        assert judged.ours[1:] == pytest.approx((mean, low, high))


def test_a_difference_is_paired_by_seed_as_scipy_pairs_it(tmp_path):
    a, b = [0.9, 0.7, 0.85], [0.8, 0.61, 0.73]
    given = claim(arms=["a"], minus="b", at_least=0, interval_excludes=0)
    # Another order of the seeds, and one that the other arm lacks.
    theirs = [*accuracies(*b)[::-1], run(3, test_accuracy=0.0)]
    judged = verdict(tmp_path, given, {"a": accuracies(*a), "b": theirs})
    reference = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert judged.verdict == "holds"
    assert judged.ours == pytest.approx((3, np.mean(np.subtract(a, b)), *reference))
    # Unpaired, these arms do not differ.
    _, p = stats.ttest_ind(a, b)
    assert float(p) > 0.05  # pyright: ignore[reportArgumentType]


def test_a_difference_that_may_be_nothing_fails(tmp_path):
    given = claim(arms=["a"], minus="b", at_least=0, interval_excludes=0)
    runs = {"a": accuracies(0.9, 0.7, 0.8), "b": accuracies(0.8, 0.75, 0.7)}
    assert verdict(tmp_path, given, runs).verdict == "fails"
    assert verdict(tmp_path, given, {"a": runs["a"], "b": runs["a"]}).verdict == "fails"


def test_the_difference_of_two_metrics_is_taken_within_each_run(tmp_path):
    runs = [run(s, test_accuracy=1 - s / 100, pronoun_cut=0.7 - s / 100) for s in range(3)]
    judged = verdict(tmp_path, claim("test/accuracy - pronoun/cut", at_least=0.3), {"a": runs})
    # .9 - .6 is less than .3 by rounding alone.
    assert judged.verdict == "holds"
    assert judged.ours[1:] == pytest.approx((0.3, 0.3, 0.3))


def test_the_steps_are_those_of_the_first_row_that_is_good_enough(tmp_path):
    runs = [speed(0, 0.2, 0.98, 0.5), speed(1, 0.98, 1.0, 1.0), speed(2, 0.1, 0.97, 0.99)]
    judged = verdict(tmp_path, claim("steps until test.accuracy >= 0.98", at_most=50), {"a": runs})
    assert (judged.ours.mean, judged.verdict, judged.note) == (50, "holds", "")
    falling = claim("steps until test.accuracy <= 0.2", exactly=25)
    down = [speed(s, 0.2, 0.1, 0.3) for s in range(3)]
    assert verdict(tmp_path, falling, {"a": down}).verdict == "holds"


STEPS = "steps until test.accuracy >= 0.98"
SLOW, FAST = (0.1, 0.2, 0.3), (1.0, 1.0, 1.0)


def test_steps_never_reached_count_as_the_last_step_and_are_said(tmp_path):
    runs = {"a": [speed(s, *SLOW) for s in range(3)], "b": [speed(s, *FAST) for s in range(3)]}
    given = claim(STEPS, minus="b", at_least=0, interval_excludes=0)
    judged = verdict(tmp_path, given, runs)
    assert (judged.verdict, judged.ours.mean) == ("holds", 50)
    says("reproduce.note.never_reached", judged.note)


def test_steps_never_reached_cannot_speak_for_a_claim(tmp_path):
    for asserted, slow in (
        (claim(STEPS, minus="b", at_least=-1000), "b"),
        (claim(STEPS, at_most=1000), "a"),
        (claim(STEPS, at_most=1000, in_every_seed=True), "a"),
        (claim(STEPS, exactly=75), "a"),
        (claim(STEPS, near=75, tolerance=1000), "a"),
    ):
        runs = {arm: [speed(s, *FAST) for s in range(3)] for arm in ("a", "b")}
        runs[slow] = [speed(0, *SLOW), *runs[slow][1:]]
        assert verdict(tmp_path, asserted, runs).verdict == "fails", asserted


def test_too_few_seeds_are_no_verdict_but_the_numbers_are_shown(tmp_path):
    judged = verdict(tmp_path, claim(at_least=0.99), {"a": accuracies(0.5, 0.7)})
    assert (judged.verdict, judged.ours.n, judged.needed) == ("not_run", 2, 3)
    assert judged.ours.mean == pytest.approx(0.6)
    lone = verdict(tmp_path, claim(at_least=0.1, interval_excludes=0), {"a": accuracies(0.5)})
    assert (lone.verdict, lone.ours.low) == ("not_run", None)


def test_a_failed_run_fails_the_claims_of_its_arm_alone(tmp_path):
    path = folder(
        tmp_path, {"mine": claim(arms=["a"], at_least=0), "b": claim(arms=["b"], at_least=0)}
    )
    recipe = read(path.parent)
    runs = {"a": accuracies(0.9, 0.9), "b": accuracies(0.9, 0.9, 0.9)}
    first, second = judge(recipe, results(recipe, runs, failed={"a": [2]}))
    assert first.verdict == "fails"
    says("reproduce.note.failed", first.note)
    assert second.verdict == "holds"


def test_nothing_is_judged_by_results_of_another_recipe(tmp_path):
    folder(tmp_path, {"claim": claim(at_least=0)})
    before = results(read(tmp_path), {"a": accuracies(0.9, 0.9, 0.9)})
    folder(tmp_path, {"claim": claim(at_least=0)}, arms={"a": ["variant=moe"], "c": []})
    changed = read(tmp_path)
    (judged,) = judge(changed, before)
    assert (judged.verdict, judged.ours.n) == ("not_run", 0)
    says("reproduce.note.changed", judged.note)
    folder(tmp_path, {"claim": claim(arms=["c"], at_least=0)}, arms={"a": [], "c": []})
    (judged,) = judge(read(tmp_path), before)
    assert judged.verdict == "not_run"
    says("reproduce.note.lacking", judged.note)
    (judged,) = judge(read(tmp_path), None)
    assert (judged.verdict, judged.note) == ("not_run", "")


def test_the_best_on_the_way_is_the_least_or_the_most_of_a_column(tmp_path):
    rows = [(0.2, 0.9, 0.5), (0.7, 0.1, 0.3), (0.4, 0.4, 0.8)]
    runs = {"a": [speed(seed, *values) for seed, values in enumerate(rows)]}
    for measure, per_seed in (
        ("least of test.accuracy", [0.2, 0.1, 0.4]),
        ("most of test.accuracy", [0.9, 0.7, 0.8]),
        ("most of test.accuracy - test/accuracy", [0.4, 0.4, 0.0]),
        ("most of test.accuracy - least of test.accuracy", [0.7, 0.6, 0.4]),
    ):
        judged = verdict(tmp_path, claim(measure, at_least=0), runs)
        low, high = stats.t.interval(0.95, 2, np.mean(per_seed), stats.sem(per_seed))
        assert judged.verdict == "holds"
        assert judged.ours == pytest.approx((3, np.mean(per_seed), low, high))


def test_the_best_of_a_column_with_what_is_no_number_holds_nothing(tmp_path):
    bounds: list[Any] = [{"at_least": 0}, {"at_most": 1}]
    for place in range(3):
        values = [0.5, 0.6, 0.7]
        values[place] = math.nan
        runs = {"a": [*(speed(s, *FAST) for s in range(2)), speed(2, *values)]}
        for bound in bounds:
            for best in ("least", "most"):
                judged = verdict(tmp_path, claim(f"{best} of test.accuracy", **bound), runs)
                assert (judged.verdict, judged.ours.mean) == ("fails", None)


def test_measures_that_no_run_has_are_all_refused_with_the_nearest_name(tmp_path):
    measures = ("test/acuracy", "test/accuracy", STEPS, "least of validation.loss")
    claims = {f"c{at}": claim(measure, at_least=0) for at, measure in enumerate(measures)}
    folder(tmp_path, claims, {"a": []}, metrics=["test/acc", "test/accuracy"])
    recipe = read(tmp_path)
    with refuses(ConfigError, "reproduce.measures"):
        judge(recipe, results(recipe, {"a": accuracies(0.5)}))


def test_a_metric_of_one_arm_alone_is_no_fault_nor_are_arms_not_seen_or_changed(tmp_path):
    arms = {"a": ["variant=vanilla"], "b": []}
    folder(tmp_path, {"claim": claim(at_least=0)}, arms, metrics=["pronoun/flip"])
    recipe = read(tmp_path)
    seen = {"a": accuracies(0.5), "b": [run(0, pronoun_flip=0.5)]}
    judge(recipe, results(recipe, seen))
    judge(recipe, results(recipe, {"a": seen["a"], "b": []}))
    before = results(recipe, dict.fromkeys(arms, seen["a"]))
    with pytest.raises(ConfigError):
        judge(recipe, before)
    folder(tmp_path, {"claim": claim(at_least=0)}, {**arms, "b": ["depth=deep"]}, metrics=["x"])
    judge(read(tmp_path), before)


def test_a_verdict_names_the_seeds_commits_and_hardware_of_its_own_runs(tmp_path):
    both = claim(arms=["a"], minus="b", at_least=-1)
    folder(tmp_path, {"own": claim(arms=["a", "b"], at_least=0), "both": both})
    recipe = read(tmp_path)
    kept = results(recipe, {"a": accuracies(0.5, 0.6, 0.7), "b": accuracies(0.5, 0.6)})
    (first,) = kept["made"]
    git = {"commit": "fedcba9876543210", "dirty": True}
    kept["made"] = [first, {**first, "git": git, "device": "NVIDIA H200", "threads": 16}]
    # The results of before say of no run who made it.
    assert [list(v.commits) for v in judge(recipe, kept)] == 3 * [
        ["0123456789", "fedcba9876 (dirty)"]
    ]
    for arm, of_arm in kept["arms"].items():
        for measured in of_arm["runs"]:
            measured["made"] = 0 if arm == "a" else 1
    on_a, on_b, on_both = judge(recipe, kept)
    assert (on_a.seeds, on_a.commits, on_a.hardware) == (
        [0, 1, 2], ["0123456789"], ["x86_64 cpu, 1 thread"],
    )  # fmt: skip
    assert (on_b.seeds, on_b.commits, on_b.hardware) == (
        [0, 1], ["fedcba9876 (dirty)"], ["NVIDIA H200, 16 threads"],
    )  # fmt: skip
    assert (on_both.seeds, on_both.commits) == ([0, 1], [*on_a.commits, *on_b.commits])
    assert judge(recipe, None)[0].commits == ()


def test_a_mean_of_what_is_no_number_holds_nothing(tmp_path):
    bounds: list[Any] = [{"at_least": 0}, {"at_most": 1}, {"exactly": 0}]
    for bound in [*bounds, {"near": 0.5, "tolerance": 9}]:
        judged = verdict(tmp_path, claim(**bound), {"a": accuracies(0.5, 0.5, math.nan)})
        assert (judged.verdict, judged.ours.mean) == ("fails", None)
