"""Every cell of the matrix trains, or is refused in words before anything is built.

Mixers x positions x networks x blocks x tasks are tens of thousands of cells. Each *pair* of
choices stands in at least one cell here, beside others that vary.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest
import torch

from attnlab.errors import ConfigError
from attnlab.experiment import Experiment
from tests.choices import choices
from tests.model.build import part
from tests.prose import says

TASKS = {
    "recall": ["dataset=mqar"],
    "classification": ["dataset=pronoun"],
    "causal classification": ["dataset=pronoun", "objective.causal=true"],
    "masked": ["dataset=pronoun", "objective=masked", "evidence=none"],
    "denoising": ["dataset=pronoun", "objective=denoising", "evidence=none"],
    "autoencoder": ["dataset=pronoun", "objective=autoencoder", "evidence=none"],
    "seq2seq": ["dataset=reversal"],
}
CAUSAL = {"recall", "causal classification", "seq2seq"}
FACTORS: dict[str, Sequence[str]] = {
    "model/mixer": choices("model/mixer"),
    "model/position": choices("model/position"),
    "model/ffn": choices("model/ffn"),
    "model/block": choices("model/block"),
    "model.block.norm": ("layer", "rms"),
    "task": list(TASKS),
}

Cell = Mapping[str, str]


def pairwise() -> Iterator[Cell]:
    """Choose cells until every pair of choices of two factors stands in one; greedy and seeded."""
    draw, names = np.random.default_rng(0), list(FACTORS)
    missing = {
        frozenset(((a, x), (b, y)))
        for a, b in itertools.combinations(names, 2)
        for x, y in itertools.product(FACTORS[a], FACTORS[b])
    }
    while missing:
        first = dict(sorted(min(missing, key=sorted)))
        tries = [
            {name: str(draw.choice(list(FACTORS[name]))) for name in names} | first
            for _ in range(30)
        ]
        best = max(tries, key=lambda cell: len(pairs(cell) & missing))
        missing -= pairs(best)
        yield best


def pairs(cell: Cell) -> set[frozenset[tuple[str, str]]]:
    return {frozenset(two) for two in itertools.combinations(cell.items(), 2)}


def reason(cell: Cell) -> tuple[str, str] | None:
    """Why a cell cannot work, by the rules that the README states, and which class is at fault."""
    position = part("position", cell["model/position"]).func
    ffn = part("ffn", cell["model/ffn"]).func
    if ffn.routes_across_tokens and cell["task"] in CAUSAL:
        return "competes", ffn.__name__
    if cell["task"] == "autoencoder" and position.signal != "embed":
        return "unmarked", position.__name__
    if position.signal in ("rotate", "bias") and position.signal not in heeds(cell["model/mixer"]):
        return position.signal, position.__name__
    return None


def heeds(mixer: str) -> set[str]:
    """What a mixer asks of positions; one of several asks what any of them does."""
    made = part("mixer", mixer)
    inner = [made.keywords[slot] for slot in "abc" if made.keywords.get(slot)]
    return set().union(*(each.func.position_inputs for each in inner or [made]))


def words(cell: Cell) -> list[str]:
    chosen = [f"{name}={choice}" for name, choice in cell.items() if name != "task"]
    small = ["dataset.num_train=64", "dataset.num_validation=8", "dataset.num_test=8"]
    return [*TASKS[cell["task"]], *chosen, *small, "model.d_model=16", "batch_size=8"]


CELLS = list(pairwise())


def test_the_cells_hold_every_pair():
    in_cells = set().union(*map(pairs, CELLS))
    for a, b in itertools.combinations(FACTORS, 2):
        for x, y in itertools.product(FACTORS[a], FACTORS[b]):
            assert frozenset(((a, x), (b, y))) in in_cells


def test_the_slow_cells_hold_every_choice():
    chosen = {choice for cell in CELLS[:SLOW] for choice in cell.items()}
    assert chosen == {(name, choice) for name, of in FACTORS.items() for choice in of}


# The first hold most pairs: each of them was chosen for those that were missing.
SLOW = len(CELLS) // 4


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(cell, marks=pytest.mark.slow if number < SLOW else pytest.mark.soak)
        for number, cell in enumerate(CELLS)
    ],
    ids=lambda cell: "-".join(cell.values()).replace(" ", "_"),
)
def test_a_cell_trains_or_is_refused_in_words(composed, cell):
    why = reason(cell)
    if why is not None:
        kind, at_fault = why
        with pytest.raises(ConfigError) as raised:
            composed(*words(cell))
        (fault,) = raised.value.faults
        # In brackets stand the mixers of the cell.
        says(f"house.matrix.{kind}", re.sub(r"\(.*?\)", "(...)", fault), at_fault)
        return
    experiment = Experiment(composed(*words(cell)))
    model, objective = experiment.model.train(), experiment.objective
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batch, losses = objective.training_batch(experiment.loader.batch(0)), []
    for _ in range(8):
        logits, extra = model(*batch.model_inputs)
        loss = objective.train_loss(logits, batch.targets)
        losses.append(loss.item())
        optimizer.zero_grad()
        (loss + sum(extra.values())).backward()
        optimizer.step()
    # One batch, over and over: what learns at all learns that.
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
