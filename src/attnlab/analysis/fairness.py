"""What makes a comparison unfair: unequal data or budget, arms mixed, a run counted twice."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from attnlab.analysis.arms import Run, by_value, differs_within, shown
from attnlab.errors import RequestError


class Equal(NamedTuple):
    """What a fair comparison holds equal."""

    field: str
    unequal: str
    """How to say that it is not."""
    rooms: tuple[str, ...]
    """The config groups that may explain it."""

    def value(self, run: Run) -> Any:
        """Return what a run has of it."""
        return getattr(run.result, self.field)


EQUAL = {
    "data": Equal("data_hash", "not trained on the same data", ("dataset",)),
    "budget": Equal("budget_tokens", "given unequal budgets", ("dataset", "trainer", "batch_size")),
}
ALLOWANCES = (*EQUAL, "mixed")


def apart(runs: Sequence[Run], by: Sequence[str]) -> list[tuple[dict[str, Any], list[Run]]]:
    """Part runs by the keys of `by` that explain why their data or budgets differ."""
    keys: list[str] = []
    for equal in EQUAL.values():
        needed = [key for key in by if key != "dataset" and key.split(".")[0] in equal.rooms]
        values = [{**run.config, equal.field: equal.value(run)} for run in runs]
        if not differs_within(values, needed, equal.field):
            for key in list(needed):
                fewer = [other for other in needed if other != key]
                needed = needed if differs_within(values, fewer, equal.field) else fewer
            keys += [key for key in needed if key not in keys]
    parts = by_value(runs, lambda run: repr(run.at(keys)))
    return [(part[0].at(keys), part) for part in parts]


def check(
    parts: Sequence[tuple[str, Sequence[Run]]],
    keys: Sequence[str],
    telling: Sequence[str],
    allow: Collection[str],
) -> list[str]:
    """Raise RequestError unless the labelled groups may be compared, or note what was allowed.

    The groups agree on `keys`; `telling` are the keys that tell all arms apart.
    """
    mixed: dict[str, list[str]] = {}
    for name, part in parts:
        arms = by_value(part, lambda run: run.arm)
        if len(arms) > 1:
            said = _mixed(name, arms, keys, telling, "mixed" in allow)
            mixed.setdefault(said, []).append(name)
        require_once(name, part)
    notes = [f"{few(names)}: {said}" for said, names in mixed.items()]
    runs = [run for _, part in parts for run in part]
    for word, equal in EQUAL.items():
        values = [{**run.config, equal.field: equal.value(run)} for run in runs]
        if not differs_within(values, [], equal.field):
            continue
        if word not in allow:
            by = list(dict.fromkeys([*keys, *telling]))
            explained = not differs_within(
                values, [k for k in by if k.split(".")[0] in equal.rooms], equal.field
            )
            hint = f"set them apart with --by {' '.join(by)}, or " if explained else ""
            raise RequestError(
                "\n  ".join(
                    [
                        f"the runs on {runs[0].result.dataset} were {equal.unequal}:",
                        *_who_has_what(parts, equal),
                        f"{hint}compare them all the same with --allow {word}",
                    ]
                )
            )
        notes.append(f"the runs were {equal.unequal} (--allow {word})")
    return notes


def require_once(name: str, runs: Sequence[Run]) -> None:
    """Raise RequestError where a labelled group has a run twice."""
    for same in by_value(runs, lambda run: (run.arm, run.result.seed)):
        if len(same) > 1:
            seed = same[0].result.seed
            raise RequestError(
                f"{' and '.join(run.name for run in same)} are the same run twice ({name}, "
                f"seed {seed}); name the runs to compare, with one of them"
            )


def require_same_data(name: str, runs: Sequence[Run]) -> None:
    """Raise RequestError where the runs of a labelled group were not trained on the same data."""
    having = by_value(runs, lambda run: EQUAL["data"].value(run))
    if len(having) > 1:
        parts = "; ".join(few(run.name for run in part) for part in having)
        raise RequestError(
            f"the runs of {name} were {EQUAL['data'].unequal} ({parts}), so they are no seeds of "
            "one experiment; name those of one"
        )


def few(names: Iterable[str], most: int = 4) -> str:
    """List names, and only count the rest of many."""
    listed = list(names)
    rest = [f"{len(listed) - most} more"] if len(listed) > most else []
    return ", ".join([*listed[:most], *rest])


def _mixed(
    name: str,
    arms: Sequence[Sequence[Run]],
    keys: Sequence[str],
    telling: Sequence[str],
    allowed: bool,
) -> str:
    configs = [arm[0].config for arm in arms]
    past = [key for key in telling if key not in keys and differs_within(configs, [], key)]
    said = "; ".join(
        f"{key} is {few(dict.fromkeys(shown(config.get(key)) for config in configs))}"
        for key in past
    )
    if not allowed:
        raise RequestError(
            f"--by {' '.join(keys)} would mix arms: in {name}, {said}; "
            f"write --by {' '.join([*keys, *past])}, or mix them with --allow mixed"
        )
    seeds = {tuple(sorted(run.result.seed for run in arm)) for arm in arms}
    uneven = "" if len(seeds) == 1 else ", though not every arm has every seed"
    return f"mixed arms ({said}), so runs that share a seed are averaged first{uneven}"


def _who_has_what(parts: Sequence[tuple[str, Sequence[Run]]], equal: Equal) -> list[str]:
    having: dict[Any, list[str]] = {}
    for name, part in parts:
        same = by_value(part, equal.value)
        for runs in same:
            # Where a group is not of one mind, its runs must be named.
            who = name if len(same) == 1 else f"{name} ({few(run.name for run in runs)})"
            having.setdefault(equal.value(runs[0]), []).append(who)
    return [f"{equal.field} {str(value)[:12]}: {few(who)}" for value, who in having.items()]
