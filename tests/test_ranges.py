"""Each numeric knob says which numbers it takes, and nothing else passes the check of a config."""

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest
import yaml
from hydra.utils import get_object

from attnlab.building import NO_USER_TARGETS, PARTS
from attnlab.config import compose, conf_dir, search_path
from attnlab.config.feasibility import feasibility_faults
from attnlab.errors import ConfigError
from attnlab.ranges import (
    Between,
    Count,
    Positive,
    Real,
    Seed,
    Share,
    ShareBelowOne,
    Weight,
    has_unbounded_number,
    range_faults,
    ranged,
)
from attnlab.signatures import target_faults, target_nodes
from tests.choices import choices, composed_keys
from tests.dataset.stated import builds_on_another
from tests.prose import keys_at_fault, refuses, says

YAMLS = {
    str(path.relative_to(conf_dir()).with_suffix("")): yaml.safe_load(path.read_text())
    for path in sorted(conf_dir().rglob("*.yaml"))
    if "_target_" in path.read_text()
}
GROUPS = sorted({name.rpartition("/")[0] for name in YAMLS})
NAMES = sorted({node["_target_"] for content in YAMLS.values() for node in target_nodes(content)})
SECTIONS = {room: section for section, rooms in PARTS.items() for room in rooms}
NOT_FINITE = (float("nan"), float("inf"), float("-inf"), 10**400)
ZERO_COUNTS = {
    *("warmup_steps", "num_probes", "repeated", "twins", "shared", "ramp", "num_updates"),
    *("max_hops", "seed", "patterns_at", "layers", "heads", "retries"),
}
"""Whole numbers of which 0 means something."""
PROBABILITIES = {
    *("dropout", "beta1", "beta2", "label_smoothing", "floor", "rate", "kept", "swapped", "held"),
    *("nested", "noise_share", "train_share", "validation_share", "validation", "test"),
}


def knobs(name: str) -> Iterator[tuple[str, Any]]:
    """Give the knobs of what a config names, with their types."""
    target = get_object(name)
    described = target.__init__ if inspect.isclass(target) else target
    hints = get_type_hints(described, include_extras=True)
    for parameter in inspect.signature(target).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            yield parameter.name, hints[parameter.name]


def is_ranged(hint: Any) -> bool:
    """Return whether a type states a range of numbers."""
    return "Between" in str(hint)


def accepted(group: str, values: Iterable[Any], only: Callable[[str, Any], bool]) -> list[str]:
    """List the knobs of a group's YAMLs, of some names and types, that take one of the values."""
    taken = []
    for name, content in YAMLS.items():
        for node in target_nodes(content) if name.rpartition("/")[0] == group else ():
            where = f"{SECTIONS[node['_target_'].split('.')[1]]}.part"
            for knob, hint in knobs(node["_target_"]):
                single = knob in node and not isinstance(node[knob], (list, dict))
                for value in values if single and is_ranged(hint) and only(knob, hint) else ():
                    attacked = {**copy.deepcopy(node), knob: value}
                    faults = target_faults(attacked, where, NO_USER_TARGETS)
                    if f"{where}.{knob}" not in [fault.partition(":")[0] for fault in faults]:
                        taken.append(f"{name}: {node['_target_']}({knob}={value})")
    return taken


def test_each_numeric_knob_states_its_range():
    types = ((name, knob, hint) for name in NAMES for knob, hint in knobs(name))
    offenders = [
        f"{name}({knob}: {hint})" for name, knob, hint in types if has_unbounded_number(hint)
    ]
    assert len(NAMES) > 70
    assert offenders == []


@pytest.mark.parametrize("group", GROUPS)
def test_no_knob_takes_nan_infinity_or_what_a_model_cannot_hold(group):
    assert accepted(group, (*NOT_FINITE, 1e300, -1e300), lambda knob, hint: True) == []


@pytest.mark.parametrize("group", GROUPS)
def test_whole_numbers_are_counts_unless_their_zero_means_something(group):
    def is_count(knob: str, hint: Any) -> bool:
        return "int" in str(hint) and knob not in ZERO_COUNTS

    assert accepted(group, (-1, 2**64, -(2**64)), lambda knob, hint: "int" in str(hint)) == []
    assert accepted(group, [0], is_count) == []


@pytest.mark.parametrize("group", GROUPS)
def test_probabilities_lie_between_zero_and_one(group):
    assert accepted(group, (1.5, -0.1, -1e-9), lambda knob, hint: knob in PROBABILITIES) == []


def test_a_direct_call_refuses_what_the_check_refuses():
    offenders = []
    for name in NAMES:
        target = get_object(name)
        for knob, hint in knobs(name):
            if any(range_faults(float("nan"), hint, knob)):
                try:
                    target(**{knob: float("nan")})
                    offenders.append(f"{name}({knob}=nan)")
                except ValueError as error:
                    if "a finite number" not in str(error):
                        offenders.append(f"{name}({knob}=nan): {error}")
    assert offenders == []


@pytest.mark.parametrize(
    ("hint", "inside", "outside"),
    [
        (Count, [1, 2**31 - 1], [0, -1, 2**31]),
        (Seed, [0, 2**62], [-1, 2**62 + 1, 2**63]),
        (Share, [0.0, 1.0], [-1e-9, 1.5, float("nan")]),
        (ShareBelowOne, [0.0, 1 - 1e-9], [1.0]),
        (Positive, [1e-8, 1e30], [0.0, -1.0, 1e-300, 1e300, float("inf")]),
        (Real, [-1.0, 0.0], [float("-inf")]),
        (Weight, [0, 2.5], [-1, -0.5]),
        (Count | None, [None, 1], [0]),
        (Annotated[int, Between(2, 3)], [2, 3], [1, 4]),
    ],
)
def test_a_range_holds_its_bounds(hint, inside, outside):
    assert [list(range_faults(value, hint, "knob")) for value in inside] == [[]] * len(inside)
    assert [len(list(range_faults(value, hint, "knob"))) for value in outside] == [1] * len(outside)


def test_a_fault_names_the_place_what_is_expected_and_what_was_given():
    hint = Mapping[str, Weight]
    texts = [
        *range_faults([4, 0], list[Count], "lengths"),
        *range_faults({"recall": -1.0}, hint, "weights"),
        *range_faults(0, Count | None, "every"),
        *range_faults(1.0, ShareBelowOne, "dropout"),
    ]
    says("ranges.faults", "\n".join(texts))


def test_a_ranged_function_names_every_fault_and_sees_positional_arguments():
    @ranged
    def train(steps: Count, *, dropout: ShareBelowOne = 0.0) -> str:
        return f"{steps} {dropout}"

    assert train(3, dropout=0.5) == "3 0.5"
    with refuses(ValueError, "ranges.direct"):
        train(0, dropout=1.5)


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_a_number_that_is_not_finite_is_told_wherever_it_stands(composed, value):
    words = (
        *("dataset=mixture", "metric=top_k", "callbacks=early_stop", "init=gpt2"),
        *(f"dataset.weights.recall={value}", f"dataset.parts.recall.seed={value}"),
        *(f"optimizer.lr={value}", f"model.mixer.dropout={value}", f"seed={value}"),
        *(f"metric.top_k.k={value}", f"callbacks.early_stop.threshold={value}"),
        *(f"init.std={value}", f"trainer.threads={value}", f"schedule.floor={value}"),
    )
    # YAML writes what Hydra's grammar calls nan and inf.
    words = tuple(word.replace(".nan", "nan").replace(".inf", "inf") for word in words)
    with pytest.raises(ConfigError) as raised:
        composed(*words)
    assert sorted(keys_at_fault(raised.value)) == sorted(w.partition("=")[0] for w in words[4:])
    assert all("expected a finite number" in fault for fault in raised.value.faults)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("share", ["model.mixer.dropout=1.5", "optimizer.beta2=1", "model.block.dropout=-0.1"]),
        ("base", ["model/position=rope", "model.position.base=0"]),
        ("seeds", ["seed=18446744073709551616", "dataset.seed=9223372036854775808"]),
        ("patience", ["callbacks=early_stop", "callbacks.early_stop.patience=0"]),
        ("threads", ["trainer.threads=100000"]),
        (
            "counts",
            ["trainer.max_steps=0", "batch_size=0", "model.d_model=0"],
        ),
    ],
)
def test_a_number_out_of_its_range_is_refused_with_its_key(composed, name, words):
    with pytest.raises(ConfigError) as raised:
        composed(*words)
    says(f"ranges.refused.{name}", "\n".join(raised.value.faults))
    stated = {word.partition("=")[0] for word in words}
    chosen = {"model/position", "callbacks"}
    assert sorted(keys_at_fault(raised.value)) == sorted(stated - chosen)


def is_drawn(name: str) -> bool:
    """Return whether a dataset reads no files, and has knobs that no other one has."""
    return "path" not in composed_keys(name) and not builds_on_another(name)


BUILT = (
    *((f"model/mixer={name}", "depth=base") for name in choices("model/mixer")),
    *((f"model/ffn={name}",) for name in choices("model/ffn")),
    *((f"model/position={name}",) for name in choices("model/position")),
    *((f"callbacks={name}",) for name in choices("callbacks")),
    *((f"dataset={name}",) for name in choices("dataset") if is_drawn(name)),
    *(("variant=lstm",), ("init=gpt2",), ("schedule=constant",), ("evidence=none",)),
    *((f"objective={name}", "dataset=mqar") for name in ("masked", "denoising", "autoencoder")),
    ("objective=seq2seq", "dataset=reversal"),
)
"""Configs that have each knob but those of what reads files."""


@pytest.mark.slow
def test_the_bounds_of_each_range_build_or_are_refused_in_words():
    """Nothing else is raised, and nothing hangs: one config at a time, one knob at its bounds."""
    tried = set()
    with search_path():
        for words in BUILT:
            config = compose([*words, "evidence=none"])
            for node in target_nodes(config.values):
                for knob, hint in knobs(node["_target_"]):
                    key = (node["_target_"], knob)
                    for bound in bounds(hint) if key not in tried else ():
                        tried.add(key)
                        stated, node[knob] = node[knob], bound
                        faults = feasibility_faults(config)
                        node[knob] = stated
                        assert all(": " in fault for fault in faults), (words, key, bound)
    assert len(tried) > 150


def bounds(hint: Any) -> list[Any]:
    """Give the least and the largest number of a knob that takes one."""
    if get_origin(hint) in (Union, UnionType):
        return [bound for member in get_args(hint) for bound in bounds(member)]
    if get_origin(hint) is not Annotated:
        return []
    between = hint.__metadata__[0]
    kind = float if "float" in str(hint) else int
    return [kind(between.low), between.high - 1e-9 if between.below else kind(between.high)]
