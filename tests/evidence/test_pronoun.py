"""The evidence on "it", against a slow reader that looks at one sentence at a time."""

from typing import Any

import numpy as np
import pytest
import torch

from attnlab.dataset.pronoun import NOUNS, Pronoun
from attnlab.evidence.pronoun import PronounResolution
from attnlab.experiment import Experiment
from attnlab.interp.attribution import logits_and_influence
from attnlab.interp.capture import capture
from attnlab.interp.interventions import knock_out_edge
from attnlab.layers import HeadRef
from attnlab.run_record.finding import Finding
from attnlab.split import Batch, Split
from tests.choices import marked

NOUN_WORDS = {noun for nouns in NOUNS.values() for noun in nouns.split()}


class Reading:
    """One sentence: where its words stand, what a model sees and answers."""

    def __init__(self, made: Experiment, split: Split, index: int, at_end: bool) -> None:
        inputs, targets, at, valid = split.batch(np.array([index]))[:4]
        assert valid is not None
        length = int(valid.sum())
        alone = Batch(inputs[:, :length], targets, at)
        task, objective = made.dataset, made.objective
        words = [task.tokens[token] for token in alone.inputs[0]]
        assert task.classes is not None
        right = task.classes[int(targets[0, 0])]
        (wrong,) = {word for word in words if word in NOUN_WORDS} - {right}
        query = length - 1 if at_end else words.index("it")
        keys = words.index(right), words.index(wrong)
        patterns = list(capture(made.subject, alone).patterns.values())
        self.mass = np.array([[float(r[query, k]) for p in patterns for r in p] for k in keys])
        asked = objective.training_batch(alone)
        self.answers, model = [], made.model.eval()
        self.answers.append(int(model(asked.inputs, asked.at)[0].argmax()) == int(targets))
        for key in keys if patterns else ():
            with knock_out_edge(model, torch.tensor([query]), torch.tensor([key])):
                answer = int(model(asked.inputs, asked.at)[0].argmax())
            self.answers.append(answer == int(targets))
        shares = logits_and_influence(model, asked)[1][0]
        self.shares = [float(shares[key]) for key in keys]

    def points(self, head: int) -> bool:
        return bool(self.mass[0, head] > self.mass[1, head])


def measured(made: Experiment) -> Finding:
    return PronounResolution(made.subject).measure()


def slowly(made: Experiment, at_end: bool) -> dict[str, Any]:
    """Give what is found of one query, and the head that is chosen under "head"."""

    def read(split: Split) -> list[Reading]:
        return [Reading(made, split, i, at_end) for i in range(len(split))]

    task, splits = made.dataset, made.dataset.splits
    assert isinstance(task, Pronoun)
    validation, test = read(splits["validation"]), read(splits["test"])
    pairs = list(zip(*map(read, task.contrast_pairs()), strict=True))
    found = {
        "twins": np.mean([one.answers[0] and other.answers[0] for one, other in pairs]),
        "influence_right": np.mean([one.shares[0] for one in test]),
        "influence_wrong": np.mean([one.shares[1] for one in test]),
    }
    if not test[0].mass.size:
        return found
    best = int(np.mean([one.mass[0] > one.mass[1] for one in validation], axis=0).argmax())
    return {
        **found,
        "head": HeadRef(best // 4, best % 4),
        "right": np.mean([one.mass[0, best] for one in test]),
        "wrong": np.mean([one.mass[1, best] for one in test]),
        "pointer": np.mean([one.points(best) for one in test]),
        "flip": np.mean([one.points(best) and other.points(best) for one, other in pairs]),
        "cut_right": np.mean([one.answers[1] for one in test]),
        "cut_wrong": np.mean([one.answers[2] for one in test]),
    }


# Two of them are trained until the numbers are neither 0 nor 1.
ARMS = (("multihead", False, 60), ("multihead", True, 60), ("moe", False, 0), ("lstm", False, 60))


@pytest.mark.parametrize(
    ("variant", "causal", "steps"),
    [
        ARMS[0],
        pytest.param(*ARMS[1], marks=pytest.mark.slow),
        pytest.param(*ARMS[2], marks=pytest.mark.soak),
        pytest.param(*ARMS[3], marks=pytest.mark.slow),
    ],
)
def test_the_evidence_is_what_a_slow_reader_finds(composed, variant, causal, steps):
    sizes = ("dataset.num_train=2000", "dataset.num_validation=12", "dataset.num_test=16")
    flags = (f"variant={variant}", f"objective.causal={str(causal).lower()}")
    made = Experiment(composed("dataset=pronoun", *sizes, *flags))
    optimizer = torch.optim.Adam(made.model.parameters(), 1e-2)
    for number in range(steps):
        asked = made.objective.training_batch(made.loader.batch(number))
        logits, _ = made.model(asked.inputs, asked.at, asked.valid)
        made.objective.loss(logits, asked.targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    found = measured(made)
    expected = slowly(made, at_end=False)
    heads = {"it": expected.pop("head")} if "head" in expected else {}
    if causal:
        at_end = slowly(made, at_end=True)
        heads["end"] = at_end.pop("head")
        of_query = {k: v for k, v in at_end.items() if k not in ("twins",) and "influ" not in k}
        expected |= {f"end_{name}": value for name, value in of_query.items()}
    assert found.scalars.keys() == expected.keys()
    for name, value in expected.items():
        assert found.scalars[name] == pytest.approx(float(value), abs=1e-5), name
    assert {name: named.head for name, named in found.heads.items()} == heads
    for name, named in found.heads.items():
        prefix = "" if name == "it" else "end_"
        assert named.weight == found.scalars[f"{prefix}right"]
        assert named.without == {"edge cut": found.scalars[f"{prefix}cut_right"]}


@pytest.mark.parametrize(
    "variant", [marked(v, ("multihead",)) for v in ("vanilla", "multihead", "moe")]
)
@pytest.mark.parametrize(("depth", "causal"), [("shallow", "false"), ("base", "true")])
def test_it_cannot_point_right_in_both_senses_where_it_has_not_met_the_adjective(
    experiment, variant, depth, causal
):
    for seed in range(2):
        made = experiment(
            f"variant={variant}", f"depth={depth}", f"objective.causal={causal}", f"seed={seed}"
        )
        assert measured(made).scalars["flip"] == 0.0


def test_it_can_where_a_second_layer_lets_it(experiment):
    seeds = (f"seed={seed}" for seed in range(4))
    assert any(measured(experiment("depth=base", seed)).scalars["flip"] > 0 for seed in seeds)


def test_a_test_split_without_twins_is_measured_by_the_rest(experiment):
    made = experiment("dataset.num_test=1")
    assert isinstance(made.dataset, Pronoun)
    with_twins = len(made.dataset.contrast_pairs()[0])
    found = measured(made).scalars
    assert ("flip" in found) == ("twins" in found) == bool(with_twins)
    assert {"right", "wrong", "pointer", "cut_right", "influence_right"} <= found.keys()


def test_the_head_of_a_record_of_0_1_is_taken_out_of_its_numbers(experiment):
    found = measured(experiment("objective.causal=true"))
    assert list(found.heads) == ["it", "end"]
    it, end = (found.heads[name].head for name in ("it", "end"))
    indices = {"layer": it.layer, "head": it.head, "end_layer": end.layer, "end_head": end.head}
    first = {**found.scalars, **{name: float(index) for name, index in indices.items()}}
    assert PronounResolution.finding_from_old_record(first) == found
