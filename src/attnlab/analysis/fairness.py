"""Checks of a comparison: equal data and budget, one arm in a group, every run counted once."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from attnlab.analysis.arms import FinishedRun, differs_within, format_value, group_by_value
from attnlab.analysis.left_out import abbreviate_names
from attnlab.errors import RequestError


class EqualField(NamedTuple):
    """A field of the results that is equal in all runs of a fair comparison."""

    field: str
    unequal: str
    """What messages say of runs that differ in it."""
    rooms: tuple[str, ...]
    """The config groups that may explain a difference."""

    def value(self, run: FinishedRun) -> Any:
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
    keys: list[str] = []
    unexplained: list[EqualField] = []
    for allowance, equal in EQUAL.items():
        configs = _configs_with_value(runs, equal)
        if allowance in allow or not differs_within(configs, [], equal.field):
            continue
        candidates = dict.fromkeys([*by, *distinguishing_keys])
        explaining = [k for k in candidates if k != "dataset" and k.split(".")[0] in equal.rooms]
        if differs_within(configs, explaining, equal.field):
            unexplained.append(equal)
            continue
        for key in reversed(explaining):
            fewer = [other_key for other_key in explaining if other_key != key]
            explaining = explaining if differs_within(configs, fewer, equal.field) else fewer
        keys += [key for key in explaining if key not in keys]

    def describe(run: FinishedRun) -> dict[str, Any]:
        fields = {equal.field: _abbreviate(equal.value(run)) for equal in unexplained}
        return {**run.select_keys(keys), **fields}

    sets = group_by_value(runs, lambda run: repr(describe(run)))
    return [ComparableSet(describe(set_runs[0]), set_runs) for set_runs in sets]


def describe_sets(sets: Sequence[ComparableSet]) -> str:
    """Return why the sets of a dataset are not compared with each other, and what would do it."""
    runs = [run for comparable_set in sets for run in comparable_set.runs]
    allowances = [
        allowance
        for allowance, equal in EQUAL.items()
        if differs_within(_configs_with_value(runs, equal), [], equal.field)
    ]
    reasons = " and ".join(EQUAL[allowance].unequal for allowance in allowances)
    return (
        f"the runs on {runs[0].result.dataset} were {reasons} ({', '.join(sets[0].keys)}), so they "
        f"make {len(sets)} sets that are not compared with each other; `allow` "
        f"{' '.join(allowances)} puts them into one table"
    )


def _abbreviate(value: Any) -> Any:
    """Return a value of a field as it can stand in a title; of a hash the first digits."""
    return value[:12] if isinstance(value, str) else value


def check_fairness(
    parts: Sequence[tuple[str, Sequence[FinishedRun]]],
    keys: Sequence[str],
    distinguishing_keys: Sequence[str],
    allow: Collection[str],
) -> list[str]:
    """Check that labelled groups may be compared, and return notes on what `allow` permitted.

    The runs of a group agree on `keys`; `distinguishing_keys` are those that distinguish all arms.
    Raises RequestError for an unfair comparison.
    """
    names_by_mixture: dict[str, list[str]] = {}
    for name, group_runs in parts:
        arms = group_by_value(group_runs, lambda run: run.arm)
        if len(arms) > 1:
            mixture = _describe_mixture(name, arms, keys, distinguishing_keys, "mixed" in allow)
            names_by_mixture.setdefault(mixture, []).append(name)
        require_distinct_runs(name, group_runs)
    notes = [f"{abbreviate_names(names)}: {mixture}" for mixture, names in names_by_mixture.items()]
    runs = [run for _, group_runs in parts for run in group_runs]
    for allowance, equal in EQUAL.items():
        if not differs_within(_configs_with_value(runs, equal), [], equal.field):
            continue
        notes.append(f"the runs were {equal.unequal} (allow {allowance})")
    return notes


def require_distinct_runs(name: str, runs: Sequence[FinishedRun]) -> None:
    """Raise RequestError where a labelled group has a run twice."""
    for equal_runs in group_by_value(runs, lambda run: (run.arm, run.result.seed)):
        if len(equal_runs) > 1:
            seed = equal_runs[0].result.seed
            raise RequestError(
                f"{' and '.join(run.name for run in equal_runs)} are the same run twice ({name}, "
                f"seed {seed}); name the runs to compare, with one of them"
            )


def require_same_data(name: str, runs: Sequence[FinishedRun]) -> None:
    """Raise RequestError where the runs of a labelled group were not trained on the same data."""
    runs_by_data = group_by_value(runs, lambda run: EQUAL["data"].value(run))
    if len(runs_by_data) > 1:
        run_names = "; ".join(
            abbreviate_names(run.name for run in data_runs) for data_runs in runs_by_data
        )
        raise RequestError(
            f"the runs of {name} were {EQUAL['data'].unequal} ({run_names}), so they are no seeds "
            "of one experiment; name those of one"
        )


def _configs_with_value(runs: Sequence[FinishedRun], equal: EqualField) -> list[dict[str, Any]]:
    """Return the runs' configs, each with the run's value of a field that must be equal."""
    return [{**run.config, equal.field: equal.value(run)} for run in runs]


def _describe_mixture(
    name: str,
    arms: Sequence[Sequence[FinishedRun]],
    keys: Sequence[str],
    distinguishing_keys: Sequence[str],
    allowed: bool,
) -> str:
    """Return which keys a group mixes. Raises RequestError where mixing is not allowed."""
    configs = [arm[0].config for arm in arms]
    other_keys = [key for key in distinguishing_keys if key not in keys]
    mixed_keys = [key for key in other_keys if differs_within(configs, [], key)]
    values = {key: [format_value(config.get(key)) for config in configs] for key in mixed_keys}
    mixture = "; ".join(
        f"{key} is {abbreviate_names(dict.fromkeys(key_values))}"
        for key, key_values in values.items()
    )
    if not allowed:
        raise RequestError(
            f"`by` {' '.join(keys)} would mix arms: in {name}, {mixture}; "
            f"write `by` {' '.join([*keys, *mixed_keys])}, or mix them with `allow` mixed"
        )
    seeds = {tuple(sorted(run.result.seed for run in arm)) for arm in arms}
    uneven = "" if len(seeds) == 1 else ", though not every arm has every seed"
    return f"mixed arms ({mixture}), so runs that share a seed are averaged first{uneven}"
