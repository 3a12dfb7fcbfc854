"""Checks of a comparison: equal data and budget, one arm in a group, every run counted once."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from attnlab.analysis.arms import FinishedRun, differs_within, format_value, group_by_value
from attnlab.analysis.left_out import abbreviate_names
from attnlab.errors import RequestError


class EqualField(NamedTuple):
    """A field of the results that is equal in all runs of a fair comparison."""

    field: str
    unequal_text: str
    """What messages say of runs that differ in it."""
    config_groups: tuple[str, ...]
    """The config groups that may explain a difference."""

    def value_of(self, run: FinishedRun) -> Any:
        """Return the field of a run."""
        return getattr(run.result, self.field)


EQUAL = {
    "data": EqualField("data_hash", "not trained on the same data", ("dataset",)),
    "budget": EqualField(
        "budget_tokens", "given unequal budgets", ("dataset", "trainer", "batch_size")
    ),
}
ALLOWANCES = (*EQUAL, "mixed")


class ComparableSet(NamedTuple):
    """Runs on one dataset that may be compared: equal data and budget, or allowed to differ."""

    keys: dict[str, Any]
    """What distinguishes the set from others of its dataset: config keys, or fields of `EQUAL`."""
    runs: list[FinishedRun]


def comparable_sets(
    runs: Sequence[FinishedRun],
    by: Sequence[str],
    distinguishing_keys: Sequence[str],
    allow: Collection[str],
) -> list[ComparableSet]:
    """Split the runs on a dataset into sets of equal data and budget, unless `allow` names these.

    A set is described by the fewest config keys that explain the difference, those of `by` first;
    where none does, by the field itself.
    """
    set_keys: list[str] = []
    unexplained_fields: list[EqualField] = []
    for allowance, equal_field in EQUAL.items():
        configs = _configs_with_value(runs, equal_field)
        if allowance in allow or not differs_within(configs, [], equal_field.field):
            continue
        explaining_keys = _fewest_explaining_keys(configs, equal_field, [*by, *distinguishing_keys])
        if explaining_keys is None:
            unexplained_fields.append(equal_field)
        else:
            set_keys += [key for key in explaining_keys if key not in set_keys]

    def describe_set(run: FinishedRun) -> dict[str, Any]:
        fields = {
            equal_field.field: _abbreviate_hash(equal_field.value_of(run))
            for equal_field in unexplained_fields
        }
        return {**run.select_keys(set_keys), **fields}

    runs_of_sets = group_by_value(runs, lambda run: repr(describe_set(run)))
    return [ComparableSet(describe_set(set_runs[0]), set_runs) for set_runs in runs_of_sets]


def _fewest_explaining_keys(
    configs: Sequence[dict[str, Any]], equal_field: EqualField, candidates: Sequence[str]
) -> list[str] | None:
    """Return the fewest keys with which a field's value differs; None where no keys explain it."""
    explaining_keys = [
        key
        for key in dict.fromkeys(candidates)
        if key != "dataset" and key.split(".")[0] in equal_field.config_groups
    ]
    if differs_within(configs, explaining_keys, equal_field.field):
        return None
    for key in reversed(explaining_keys):
        keys_without = [other_key for other_key in explaining_keys if other_key != key]
        if not differs_within(configs, keys_without, equal_field.field):
            explaining_keys = keys_without
    return explaining_keys


def describe_sets(sets: Sequence[ComparableSet]) -> str:
    """Return why the sets of a dataset are not compared with each other, and what would do it."""
    runs = [run for comparable_set in sets for run in comparable_set.runs]
    allowances = [
        allowance
        for allowance, equal_field in EQUAL.items()
        if differs_within(_configs_with_value(runs, equal_field), [], equal_field.field)
    ]
    reasons = " and ".join(EQUAL[allowance].unequal_text for allowance in allowances)
    return (
        f"the runs on {runs[0].result.dataset} were {reasons} ({', '.join(sets[0].keys)}), so they "
        f"make {len(sets)} sets that are not compared with each other; `allow` "
        f"{' '.join(allowances)} puts them into one table"
    )


def _abbreviate_hash(value: Any) -> Any:
    """Return a value of a field as it can stand in a title; of a hash the first digits."""
    return value[:12] if isinstance(value, str) else value


def check_fairness(
    labelled_groups: Sequence[tuple[str, Sequence[FinishedRun]]],
    group_keys: Sequence[str],
    distinguishing_keys: Sequence[str],
    allow: Collection[str],
) -> list[str]:
    """Check that labelled groups may be compared, and return notes on what `allow` permitted.

    The runs of a group agree on `group_keys`; `distinguishing_keys` are those that distinguish all
    arms. Raises RequestError for an unfair comparison.
    """
    labels_by_mixture: dict[str, list[str]] = {}
    for label, group_runs in labelled_groups:
        runs_of_arms = group_by_value(group_runs, lambda run: run.arm_identity)
        if len(runs_of_arms) > 1:
            mixture = _describe_mixture(
                label, runs_of_arms, group_keys, distinguishing_keys, "mixed" in allow
            )
            labels_by_mixture.setdefault(mixture, []).append(label)
        require_distinct_runs(label, group_runs)
    notes = [
        f"{abbreviate_names(labels)}: {mixture}" for mixture, labels in labels_by_mixture.items()
    ]
    runs = [run for _, group_runs in labelled_groups for run in group_runs]
    for allowance, equal_field in EQUAL.items():
        if differs_within(_configs_with_value(runs, equal_field), [], equal_field.field):
            notes.append(f"the runs were {equal_field.unequal_text} (allow {allowance})")
    return notes


def require_distinct_runs(label: str, runs: Sequence[FinishedRun]) -> None:
    """Raise RequestError where a labelled group has a run twice."""
    for equal_runs in group_by_value(runs, lambda run: (run.arm_identity, run.result.seed)):
        if len(equal_runs) > 1:
            seed = equal_runs[0].result.seed
            raise RequestError(
                f"{' and '.join(run.name for run in equal_runs)} are the same run twice ({label}, "
                f"seed {seed}); name the runs to compare, with one of them"
            )


def require_same_data(label: str, runs: Sequence[FinishedRun]) -> None:
    """Raise RequestError where the runs of a labelled group were not trained on the same data."""
    runs_by_data = group_by_value(runs, EQUAL["data"].value_of)
    if len(runs_by_data) > 1:
        names_by_data = "; ".join(
            abbreviate_names(run.name for run in data_runs) for data_runs in runs_by_data
        )
        raise RequestError(
            f"the runs of {label} were {EQUAL['data'].unequal_text} ({names_by_data}), so they "
            "are no seeds of one experiment; name those of one"
        )


def _configs_with_value(
    runs: Sequence[FinishedRun], equal_field: EqualField
) -> list[dict[str, Any]]:
    """Return the runs' configs, each with the run's value of a field that must be equal."""
    return [{**run.config, equal_field.field: equal_field.value_of(run)} for run in runs]


def _describe_mixture(
    label: str,
    runs_of_arms: Sequence[Sequence[FinishedRun]],
    group_keys: Sequence[str],
    distinguishing_keys: Sequence[str],
    may_mix: bool,
) -> str:
    """Return which keys a group mixes. Raises RequestError where mixing is not allowed."""
    configs = [arm_runs[0].config for arm_runs in runs_of_arms]
    other_keys = [key for key in distinguishing_keys if key not in group_keys]
    mixed_keys = [key for key in other_keys if differs_within(configs, [], key)]
    values_by_key = {
        key: [format_value(config.get(key)) for config in configs] for key in mixed_keys
    }
    mixture = "; ".join(
        f"{key} is {abbreviate_names(dict.fromkeys(values))}"
        for key, values in values_by_key.items()
    )
    if not may_mix:
        raise RequestError(
            f"`by` {' '.join(group_keys)} would mix arms: in {label}, {mixture}; "
            f"write `by` {' '.join([*group_keys, *mixed_keys])}, or mix them with `allow` mixed"
        )
    seeds_of_arms = {
        tuple(sorted(run.result.seed for run in arm_runs)) for arm_runs in runs_of_arms
    }
    seed_text = "" if len(seeds_of_arms) == 1 else ", though not every arm has every seed"
    return f"mixed arms ({mixture}), so runs that share a seed are averaged first{seed_text}"
