"""A comparison groups over seeds, tells arms apart in few words, and refuses what is not fair."""

import math
import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from attnlab.analysis.compare import compare, compare_sets
from attnlab.analysis.statistics import estimate, t_interval
from attnlab.errors import RequestError
from attnlab.run_record.bounds import SHARE
from tests.fabricated import result
from tests.prose import refuses, says
from tests.refused_calls import refused_calls


def named(*results):
    """Name runs by their place, so that two of them are never one."""
    return {f"run-{place:02}": content for place, content in enumerate(results)}


def sweep(variants=("vanilla", "moe"), depths=(1, 2), seeds=(0, 1, 2), **fields):
    """Give a sweep's runs as it starts them, with an accuracy of their own each."""
    cells = list(product(variants, depths, seeds))
    draw = np.random.default_rng(0).uniform(0.5, 1, len(cells)).tolist()
    return named(
        *(
            result(v, d, s, accuracy=a, started=f"2026-01-01T00:00:{place:02}Z", **fields)
            for place, ((v, d, s), a) in enumerate(zip(cells, draw, strict=True))
        )
    )


def labels(*results, **options):
    (panel,) = compare(named(*results), **options)
    return [group.label for group in panel.groups]


def test_a_group_is_the_runs_that_differ_in_their_seed_alone():
    runs = sweep()
    (panel,) = compare(runs)
    assert [dict(group.keys) for group in panel.groups] == [
        {"variant": v, "num_layers": d} for v, d in product(("vanilla", "moe"), (1, 2))
    ]
    for place, group in enumerate(panel.groups):
        mine = [runs[f"run-{3 * place + seed:02}"].metrics["test/accuracy"] for seed in range(3)]
        assert group.seeds == [0, 1, 2]
        assert group.over_seeds("test/accuracy") == estimate(mine, SHARE)


def test_groups_come_in_the_order_in_which_they_were_started():
    late = result("moe", started="2026-01-02T00:00:00Z")
    early = result("vanilla", started="2026-01-01T00:00:00Z")
    assert labels(late, early) == ["variant=vanilla", "variant=moe"]


def test_groups_are_ordered_by_their_keys_and_the_first_is_the_baseline():
    rates = (1e-2, 1e-3)
    cells = [("moe", 1e-2), ("vanilla", 1e-3), ("vanilla", 1e-2), ("moe", 1e-3)]
    runs = [
        result(v, accuracy=place / 9, started=f"2026-01-0{place + 1}", knobs={"optimizer.lr": rate})
        for place, (v, rate) in enumerate(cells)
    ]
    (panel,) = compare(named(*runs))
    keys = [(group.keys["variant"], group.keys["optimizer.lr"]) for group in panel.groups]
    assert keys == list(product(("moe", "vanilla"), rates))
    assert panel.baseline is panel.groups[0]


def test_the_end_of_a_key_is_enough_where_no_other_key_has_it():
    runs = named(*(result(accuracy=lr, knobs={"optimizer.lr": lr}) for lr in (1e-3, 1e-2)))
    (panel,) = compare(runs, by=["lr"], baseline="lr=1e-2", allow=["mixed"])
    assert panel.group_keys == ["optimizer.lr"]
    assert panel.baseline is panel.groups[1]


@pytest.mark.parametrize(("metric", "best"), [("test/accuracy", 2), ("test/loss", 0)])
def test_the_best_group_can_be_the_baseline(metric, best):
    runs = [
        result(v, seed=s, accuracy=a + s / 99, lower_is_better=("loss",))
        for v, a in (("vanilla", 0.3), ("moe", 0.1), ("multihead", 0.8))
        for s in range(3)
    ]
    # The group with the least loss is not that with the greatest accuracy.
    losses = [float(run.variant != "vanilla") + run.seed / 99 for run in runs]
    runs = [
        replace(run, metrics={**run.metrics, "test/loss": loss})
        for run, loss in zip(runs, losses, strict=True)
    ]
    (panel,) = compare(named(*runs), metric=metric, baseline="best")
    assert panel.baseline is panel.groups[best]
    says("runs.compare.notes.best", panel.notes[0])


def test_a_cost_is_compared_as_a_metric_is():
    runs = [result(v, d) for v in ("vanilla", "moe") for d in (1, 2)]
    (panel,) = compare(named(*runs), metric="parameters", by=["num_layers"], allow=["mixed"])
    assert [group.over_seeds("parameters").mean for group in panel.groups] == [50_000, 100_000]
    assert not panel.higher_is_better
    with refuses(RequestError, "runs.compare.no_cost"):
        compare(named(*runs), metric="peak_memory_bytes")


def test_groups_with_equal_results_are_said_to_have_them():
    def runs(last):
        cells = [("vanilla", 0.1, 0.2), ("moe", 0.3, 0.4), ("multihead", 0.1, last)]
        return named(
            *(result(v, seed=s, accuracy=a) for v, *values in cells for s, a in enumerate(values))
        )

    (equal,), (unequal,) = compare(runs(0.2)), compare(runs(0.2000001))
    assert len(equal.notes) == len(unequal.notes) + 1
    says("runs.compare.notes.equal", "\n".join(equal.notes))


def test_an_arm_alone_is_named_by_its_mixer_where_an_override_chose_it():
    mixer = {"model.mixer._target_": "attnlab.mixer.gated_delta.GatedDelta"}
    chosen = result("multihead", overrides=("model/mixer=gated_delta",), knobs=mixer)
    assert labels(chosen) == ["model.mixer=gated_delta"]
    assert labels(result("multihead")) == ["variant=multihead"]


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([result()], ["variant=vanilla"]),
        ([result("vanilla"), result("moe"), result("lstm")], ["variant=vanilla", "variant=moe",
                                                              "variant=lstm"]),
        ([result("moe", 1), result("moe", 2)], ["num_layers=1", "num_layers=2"]),
        ([result(), result(knobs={"model.d_model": 128})],
         ["model.d_model=64", "model.d_model=128"]),
        # The size moves several keys of the model, of which one is enough.
        ([result("moe"), result("moe", knobs={"model.d_model": 128, "model.ffn.top_k": 4})],
         ["model.d_model=64", "model.d_model=128"]),
        # The one optimizer has two learning rates: that is no part of the variant.
        ([result("vanilla"), result("moe", knobs={"optimizer.lr": 0.01})],
         ["variant=vanilla,optimizer.lr=0.002", "variant=moe,optimizer.lr=0.01"]),
        # Both have the same class of FFN, so its width is not the variant's either.
        ([result("vanilla"), result("multihead", knobs={"model.ffn.expansion": 2.0})],
         ["variant=vanilla,model.ffn.expansion=4.0", "variant=multihead,model.ffn.expansion=2.0"]),
        ([result(), result(knobs={"model.mixer": {"_target_": "mine.Mixer", "reach": 3}})],
         ["model.mixer=single_head", "model.mixer=Mixer"]),
        ([result(knobs={"dataset.file": "a.txt"}), result(knobs={"dataset.file": "b.txt"})],
         ["dataset.file=a.txt", "dataset.file=b.txt"]),
        ([result(), result(knobs={"callbacks.early_stop": {"_target_": "a.Stop", "patience": 3}})],
         ["callbacks.early_stop=-", "callbacks.early_stop=Stop"]),
    ],
)  # fmt: skip
def test_a_label_names_the_keys_that_tell_groups_apart_and_no_others(results, expected):
    assert labels(*results) == expected


def test_runs_that_continue_shorter_ones_are_one_group_over_seeds():
    more = [result(seed=s, knobs={"parent": f"mqar-vanilla-2x64-s{s}-abc"}) for s in range(3)]
    (panel,) = compare(named(*more))
    assert [group.seeds for group in panel.groups] == [[0, 1, 2]]


def test_keys_can_be_chosen():
    runs = sweep(("vanilla", "moe"), (2,))
    (panel,) = compare(runs, by=["network_depth", "variant", "optimizer.lr"])
    assert [group.label for group in panel.groups] == [
        "network_depth=4,variant=vanilla,optimizer.lr=0.002",
        "network_depth=4,variant=moe,optimizer.lr=0.002",
    ]


def test_a_choice_of_keys_that_mixes_arms_is_refused_with_the_key_it_forgot():
    with refuses(RequestError, "runs.compare.mixed_arms"):
        compare(sweep(), by=["variant"])


def test_mixed_arms_are_averaged_at_each_seed_before_the_interval():
    runs = sweep()
    (panel,) = compare(runs, by=["variant"], allow=["mixed"])
    accuracy = [runs[f"run-{place:02}"].metrics["test/accuracy"] for place in range(6)]
    means = [(accuracy[seed] + accuracy[3 + seed]) / 2 for seed in range(3)]
    assert tuple(panel.groups[0].over_seeds("test/accuracy")) == pytest.approx(
        tuple(estimate(means, SHARE))
    )
    assert panel.groups[0].seeds == [0, 1, 2]
    says("runs.compare.notes.mixed", "\n".join(panel.notes))


def test_mixed_arms_of_unequal_seeds_are_said_to_be():
    (panel,) = compare(
        named(result(num_layers=1), result(), result(seed=1)), by=["variant"], allow=["mixed"]
    )
    says("runs.compare.notes.mixed_of_unequal_seeds", "\n".join(panel.notes))


def test_keys_that_make_no_groups_are_refused_with_the_nearest_right_name():
    runs = sweep()
    refused_calls(
        "runs.compare.{}",
        {
            "typo_in_path": lambda: compare(runs, by=["optimizer.rl"]),
            "end_of_several": lambda: compare(
                named(result(knobs={"model.mixer.dropout": 0.1, "model.ffn.dropout": 0.1})),
                by=["dropout"],
            ),
            "typo": lambda: compare(runs, by=["varaint"]),
            "seed": lambda: compare(runs, by=["variant", "seed"]),
        },
        kind=RequestError,
    )


def test_datasets_stand_in_panels_of_their_own():
    mqar, pronoun = (
        list(sweep(dataset=name, headline=f"test/{metric}").values())
        for name, metric in (("mqar", "accuracy"), ("pronoun", "loss"))
    )
    panels = compare(named(*mqar, *pronoun))
    assert [(p.dataset, p.metric) for p in panels] == [
        ("mqar", "test/accuracy"),
        ("pronoun", "test/loss"),
    ]
    for panel in panels:
        of_panel = {group.label for group in panel.groups}
        assert len(panel.groups) == 4
        assert panel.baseline is panel.groups[0]
        assert {group.label for group, _ in panel.differences} < of_panel


CELLS = [
    (v, n, s, 0.05 * place)
    for place, (v, n, s) in enumerate(product(("vanilla", "moe"), (4, 8), (0, 1, 2)))
]
PAIRS = [
    result(v, seed=s, accuracy=a, data_hash=f"pairs-{n}", knobs={"dataset.num_pairs": n})
    for v, n, s, a in CELLS
]
STEPS = [
    result(
        *(v, 2, s, a),
        budget_tokens=1280 * n,
        tokens=1280 * n,
        knobs={"trainer.max_steps": n},
    )
    for v, n, s, a in CELLS
]


@pytest.mark.parametrize(
    ("results", "word", "key"),
    [(PAIRS, "data", "dataset.num_pairs"), (STEPS, "budget", "trainer.max_steps")],
)
@pytest.mark.parametrize("by", [None, ["variant"]])
def test_unequal_data_or_budget_make_tables_of_their_own_and_the_advice_helps(
    results, word, key, by
):
    panels, left_out, notes = compare_sets(named(*results), by=by)
    assert left_out == []
    assert [list(panel.panel_keys) for panel in panels] == [[key], [key]]
    assert [[group.label for group in panel.groups] for panel in panels] == [
        ["variant=vanilla", "variant=moe"]
    ] * 2
    (note,) = notes
    says(f"runs.compare.sets.{word}", note)
    advice = re.search(r"`allow` (\w+)", note)
    assert advice
    assert advice[1] == word
    (panel,) = compare(named(*results), allow=[word])
    assert len(panel.groups) == 4
    says(f"runs.compare.allowed.{word}", "\n".join(panel.notes))


def test_no_group_of_any_panel_mixes_data_or_budgets():
    runs = named(*PAIRS, *STEPS, *(result("moe", seed=s, data_hash="new") for s in range(3)))
    panels, left_out, _ = compare_sets(runs)
    for panel in panels:
        results = [run.result for group in panel.groups for run in group.runs]
        assert len({(r.data_hash, r.budget_tokens) for r in results}) == 1
    shown = [run.name for panel in panels for group in panel.groups for run in group.runs]
    assert sorted([*shown, *(run.run for run in left_out)]) == sorted(runs)


def test_data_that_no_key_explains_are_told_apart_by_their_hash():
    runs = named(result("vanilla", data_hash="old"), result("moe", data_hash="new"))
    panels, _, notes = compare_sets(runs, by=["variant"])
    assert [panel.panel_keys for panel in panels] == [{"data_hash": "old"}, {"data_hash": "new"}]
    says("runs.compare.sets.unexplained", "\n".join(notes))


def test_a_single_run_beside_a_comparison_is_left_out_with_the_reason():
    lonely = result("lstm", data_hash="pairs-9", knobs={"dataset.num_pairs": 9})
    panels, left_out, _ = compare_sets(named(*PAIRS, lonely))
    assert len(panels) == 2
    (run,) = left_out
    assert run.run == f"run-{len(PAIRS):02}"
    says("runs.compare.left_out.single", run.reason)


def test_a_set_that_cannot_be_compared_does_not_block_the_others():
    twice = [result(dataset="parity"), result(dataset="parity")]
    panels, left_out, _ = compare_sets(named(*PAIRS, *twice))
    assert [panel.dataset for panel in panels] == ["mqar", "mqar"]
    assert len(left_out) == 2
    says("runs.compare.left_out.twice", left_out[0].reason)


def test_a_key_that_explains_nothing_does_not_part_a_panel():
    knobs = {"trainer.max_steps": 900}
    runs = named(result(), result(knobs=knobs))
    (panel,) = compare(runs, by=["trainer.max_steps"])
    assert len(panel.groups) == 2
    assert panel.panel_keys == {}


def test_a_run_counts_once():
    with refuses(RequestError, "runs.compare.twice"):
        compare(named(result(), result()))


def test_a_metric_can_be_chosen_and_knows_which_way_is_up():
    runs = sweep()
    (by_loss,), (default,) = compare(runs, metric="test/loss"), compare(runs)
    assert (default.metric, default.higher_is_better) == ("test/accuracy", True)
    assert (by_loss.metric, by_loss.higher_is_better) == ("test/loss", False)
    for (_, loss), (_, accuracy) in zip(by_loss.differences, default.differences, strict=True):
        assert loss.mean == pytest.approx(-(accuracy.mean or math.nan))


def test_an_unknown_metric_is_refused_with_the_nearest_right_name():
    with refuses(RequestError, "runs.compare.unknown_metric"):
        compare(sweep(), metric="acuracy")


def test_several_main_metrics_need_a_choice():
    runs = named(result("vanilla"), result("moe", headline="test/loss"))
    with refuses(RequestError, "runs.compare.several_metrics"):
        compare(runs)
    assert compare(runs, metric="test/loss")


def test_a_result_that_is_no_number_is_refused():
    with refuses(RequestError, "runs.compare.no_number"):
        compare(named(result("vanilla"), result("moe", accuracy=math.nan)))


def test_every_group_is_set_against_the_baseline_with_p_values_corrected_together():
    runs = sweep()
    (panel,) = compare(runs, baseline="variant=moe,num_layers=1")
    assert panel.baseline is not None
    assert panel.baseline is panel.groups[2]
    others = [group for group in panel.groups if group is not panel.baseline]
    assert [group for group, _ in panel.differences] == others
    base, raw = panel.baseline.mean_by_seed("test/accuracy"), []
    for group, difference in panel.differences:
        mine = group.mean_by_seed("test/accuracy")
        pairs = [mine[seed] - base[seed] for seed in range(3)]
        assert difference[:4] == pytest.approx(t_interval(pairs))
        t = np.mean(pairs) / (np.std(pairs, ddof=1) / 3**0.5)
        raw.append(1 - abs(t) / math.sqrt(2 + t * t))
    corrected = [difference.p for _, difference in panel.differences]
    assert corrected[int(np.argmin(raw))] == pytest.approx(min(1, 3 * min(raw)))
    assert all(c >= p for c, p in zip(corrected, raw, strict=True))  # pyright: ignore


def test_a_baseline_is_found_by_a_number_however_it_is_written():
    runs = named(result(), result(knobs={"optimizer.lr": 0.01}))
    for value in ("0.01", "1e-2", ".01"):
        (panel,) = compare(runs, baseline=f"optimizer.lr={value}")
        assert panel.baseline is panel.groups[1], value


def test_each_label_names_its_group_as_a_baseline():
    runs = sweep()
    for place, group in enumerate(compare(runs)[0].groups):
        (panel,) = compare(runs, baseline=group.label)
        assert panel.baseline is panel.groups[place]


def test_a_baseline_that_is_not_one_group_is_refused():
    runs = sweep()
    refused_calls(
        "runs.compare.baseline.{}",
        {
            "none": lambda: compare(runs, baseline="variant=vanila"),
            "several": lambda: compare(runs, baseline="variant=vanilla"),
            "typo": lambda: compare(runs, baseline="varaint=vanilla"),
            "no_pair": lambda: compare(runs, baseline="vanilla"),
        },
        kind=RequestError,
    )


def test_a_panel_without_the_baseline_has_no_differences_and_says_so():
    of_mqar, of_pronoun = result("vanilla"), result("lstm", dataset="pronoun")
    with_it, without = compare(named(of_mqar, of_pronoun), baseline="variant=vanilla")
    assert with_it.baseline is with_it.groups[0]
    assert without.baseline is None
    assert not without.differences
    says("runs.compare.notes.no_baseline", "\n".join(without.notes))


def test_differences_are_on_the_seeds_that_both_have_and_a_note_counts_them():
    ours = [result("moe", seed=s, accuracy=0.6 + s / 100) for s in (1, 2, 3, 4)]
    theirs = [result("vanilla", seed=s, accuracy=0.5 + s / 50) for s in (0, 1, 2)]
    (panel,) = compare(named(*theirs, *ours), baseline="variant=vanilla")
    ((_, difference),) = panel.differences
    assert difference.mean == pytest.approx(np.mean([0.61 - 0.52, 0.62 - 0.54]))
    assert (difference.n, difference.low, difference.high, difference.p) == (2, None, None, None)
    says("runs.compare.notes.few_pairs", "\n".join(panel.notes))


def test_the_same_difference_at_every_seed_is_said_to_be_no_test():
    ours = [result("moe", seed=s, accuracy=0.75 + s / 8) for s in range(3)]
    theirs = [result("vanilla", seed=s, accuracy=0.5 + s / 8) for s in range(3)]
    (panel,) = compare(named(*theirs, *ours), baseline="variant=vanilla")
    assert panel.differences[0][1] == (3, 0.25, 0.25, 0.25, 0.0)
    says("runs.compare.notes.no_spread", "\n".join(panel.notes))


def test_fewer_than_three_seeds_are_said_to_be_no_evidence():
    (few,), (enough,) = compare(sweep(seeds=(0, 1))), compare(sweep(seeds=(0, 1, 2)))
    says("runs.compare.notes.few_seeds", "\n".join(few.notes))
    assert not enough.notes


def test_a_run_that_stopped_before_its_budget_is_named():
    (panel,) = compare(named(result(seed=0), result(seed=1, tokens=1000), result(seed=2)))
    says("runs.compare.notes.stopped_early", "\n".join(panel.notes))
