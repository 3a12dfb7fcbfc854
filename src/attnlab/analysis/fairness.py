"""Checks of a comparison: equal data and budget, one arm in a group, every run counted once."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from attnlab.analysis.arms import FinishedRun, differs_within, format_value, group_by_value
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


def split_incomparable(
    runs: Sequence[FinishedRun], by: Sequence[str]
) -> list[tuple[dict[str, Any], list[FinishedRun]]]:
    """Split runs by the fewest keys of `by` that explain why their data or budgets differ.

    Each part comes with its values of these keys.
    """
    keys: list[str] = []
    for equal in EQUAL.values():
        explaining = [key for key in by if key != "dataset" and key.split(".")[0] in equal.rooms]
        configs = _configs_with_value(runs, equal)
        if not differs_within(configs, explaining, equal.field):
            for key in list(explaining):
                fewer = [other_key for other_key in explaining if other_key != key]
                explaining = explaining if differs_within(configs, fewer, equal.field) else fewer
            keys += [key for key in explaining if key not in keys]
    parts = group_by_value(runs, lambda run: repr(run.select_keys(keys)))
    return [(part_runs[0].select_keys(keys), part_runs) for part_runs in parts]


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
        require_once(name, group_runs)
    notes = [f"{abbreviate_names(names)}: {mixture}" for mixture, names in names_by_mixture.items()]
    runs = [run for _, group_runs in parts for run in group_runs]
    for allowance, equal in EQUAL.items():
        if not differs_within(_configs_with_value(runs, equal), [], equal.field):
            continue
        if allowance not in allow:
            by = list(dict.fromkeys([*keys, *distinguishing_keys]))
            raise _unequal_error(parts, by, allowance)
        notes.append(f"the runs were {equal.unequal} (allow {allowance})")
    return notes


def require_once(name: str, runs: Sequence[FinishedRun]) -> None:
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


def abbreviate_names(names: Iterable[str], most: int = 4) -> str:
    """Return the names joined by commas; beyond `most`, only the number of the others."""
    listed = list(names)
    rest = [f"{len(listed) - most} more"] if len(listed) > most else []
    return ", ".join([*listed[:most], *rest])


def _configs_with_value(runs: Sequence[FinishedRun], equal: EqualField) -> list[dict[str, Any]]:
    """Return the runs' configs, each with the run's value of a field that must be equal."""
    return [{**run.config, equal.field: equal.value(run)} for run in runs]


def _unequal_error(
    parts: Sequence[tuple[str, Sequence[FinishedRun]]], by: Sequence[str], allowance: str
) -> RequestError:
    """Return the error for unequal groups, with a hint to `by` where the keys `by` explain it."""
    equal = EQUAL[allowance]
    runs = [run for _, group_runs in parts for run in group_runs]
    explaining = [key for key in by if key.split(".")[0] in equal.rooms]
    explained = not differs_within(_configs_with_value(runs, equal), explaining, equal.field)
    hint = f"set them apart with `by` {' '.join(by)}, or " if explained else ""
    return RequestError(
        "\n  ".join(
            [
                f"the runs on {runs[0].result.dataset} were {equal.unequal}:",
                *_list_by_value(parts, equal),
                f"{hint}compare them all the same with `allow` {allowance}",
            ]
        )
    )


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


def _list_by_value(
    parts: Sequence[tuple[str, Sequence[FinishedRun]]], equal: EqualField
) -> list[str]:
    """Return a line for each value of a field, with the groups or runs that have it."""
    names_by_value: dict[Any, list[str]] = {}
    for name, group_runs in parts:
        runs_by_value = group_by_value(group_runs, equal.value)
        for equal_runs in runs_by_value:
            run_names = abbreviate_names(run.name for run in equal_runs)
            # Where the runs of a group have several values, the group's name is not enough.
            holder = name if len(runs_by_value) == 1 else f"{name} ({run_names})"
            names_by_value.setdefault(equal.value(equal_runs[0]), []).append(holder)
    return [
        f"{equal.field} {str(value)[:12]}: {abbreviate_names(holders)}"
        for value, holders in names_by_value.items()
    ]
