"""From how far back models of any kind read: shares of influence, attention and mixing by distance.

Attention, an LSTM and a linear mixer have nothing in common but what a position draws on. Two
measures of that are recorded on the same probes: the influence of each token on the answer
(gradient x input, `attnlab.interp.attribution`), which every model has, and the pattern or mixing
matrix of each layer, which models with attention or a linear mixer have.

from attnlab.analysis.influence_report import influence_report

report, _ = influence_report(selection)
for arm in report.arms:
    print(arm.label, [share.mean for share in arm.influence.shares])
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from attnlab.analysis.arms import FinishedRun, flatten_config, group_by_arm
from attnlab.analysis.findings import read_findings
from attnlab.analysis.left_out import LeftOut
from attnlab.analysis.report import Report
from attnlab.analysis.run_list import Selection
from attnlab.analysis.statistics import Interval, estimate
from attnlab.errors import RequestError
from attnlab.layers import MixingLayer
from attnlab.run_record.bounds import ANY, SHARE
from attnlab.run_record.pattern_table import Pattern, load_patterns
from attnlab.run_record.record import Record

INFLUENCE = "influence on the answer"
EQUAL = "every token alike"


@dataclass(frozen=True)
class DistanceBin:
    """Some distances from the position that reads; those ahead of it are negative."""

    nearest: int
    furthest: int
    """In tokens; at least `nearest` in magnitude, with its sign."""

    @property
    def name(self) -> str:
        """The distances in words, as in `3-4` and `2 ahead`."""
        near, far = abs(self.nearest), abs(self.furthest)
        text = str(near) if near == far else f"{near}-{far}"
        return f"{text} ahead" if self.nearest < 0 else text

    @property
    def low(self) -> int:
        return min(self.nearest, self.furthest)

    @property
    def high(self) -> int:
        return max(self.nearest, self.furthest)


@dataclass(frozen=True)
class SourceShares:
    """What a model or one of its layers reads from each distance."""

    name: str
    kind: str
    """One of influence, attention and mixing."""
    shares: Sequence[Interval]
    """By bin of the report: the share of all that is read, over seeds."""


@dataclass(frozen=True)
class ArmInfluence:
    """The shares of one arm: of its answers, and of each of its layers."""

    label: str
    runs: Sequence[str]
    seeds: Sequence[int]
    influence: SourceShares | None
    """None where no influence was recorded."""
    layers: Sequence[SourceShares]
    """The mean over heads and queries; empty where no layer has a pattern, as in an LSTM."""
    gates: Mapping[str, Interval] = field(default_factory=dict)
    """What evidence measured of an LSTM's gates, by LAYER/STATISTIC (`attnlab.evidence.gates`)."""


@dataclass(frozen=True)
class InfluenceReport(Report):
    """The shares by distance of the arms of one dataset, on the same probes."""

    dataset: str
    step: int
    steps: Sequence[int]
    """All steps at which every run recorded."""
    probes: Sequence[str]
    bins: Sequence[DistanceBin]
    """From the furthest token ahead to the furthest behind."""
    equal: Sequence[float]
    """By bin: its share where every token that was read at all counts alike."""
    arms: Sequence[ArmInfluence]
    left_out: Sequence[LeftOut] = ()


def influence_report(
    selection: Selection, dataset: str = "", step: int | None = None
) -> tuple[InfluenceReport, list[str]]:
    """Return the report of one dataset (empty: the first), and the datasets of all runs.

    Without a `step`, it is the last at which all of its runs recorded. Runs are left out that
    recorded no patterns, or other sequences than the first run. Raises RequestError where no run
    recorded patterns, and for a dataset or a step that was not recorded.
    """
    patterns_by_run: dict[str, list[Pattern]] = {}
    left_out = list(selection.left_out)
    for name, record in selection.records.items():
        patterns = [p for p in load_patterns(record) if _is_within_one_sequence(p)]
        if patterns:
            patterns_by_run[name] = patterns
        else:
            left_out.append(LeftOut(name, record.state, "recorded no patterns"))
    if not patterns_by_run:
        raise RequestError(
            "none of these runs recorded what it reads; `attnlab train` with its default callbacks "
            "does, as callbacks.recorder keeps it"
        )
    dataset_by_run = {name: _dataset(selection.records[name]) for name in patterns_by_run}
    datasets = list(dict.fromkeys(dataset_by_run.values()))
    dataset = dataset or datasets[0]
    if dataset not in datasets:
        raise RequestError(f"dataset {dataset!r}: expected one of {', '.join(datasets)}")
    chosen = {
        name: patterns
        for name, patterns in patterns_by_run.items()
        if dataset_by_run[name] == dataset
    }
    return _report(dataset, chosen, selection, step, left_out), datasets


def _report(
    dataset: str,
    patterns_by_run: Mapping[str, list[Pattern]],
    selection: Selection,
    step: int | None,
    left_out: Sequence[LeftOut],
) -> InfluenceReport:
    """Return the report of a dataset's runs on the probes that they have in common."""
    probes_of_runs = {name: _probes(patterns) for name, patterns in patterns_by_run.items()}
    first_probes = next(iter(probes_of_runs.values()))
    left_out = [
        *left_out,
        *(
            LeftOut(name, "finished", "recorded other probes than the first run of its dataset")
            for name, probes in probes_of_runs.items()
            if not first_probes & probes
        ),
    ]
    same = {name: probes for name, probes in probes_of_runs.items() if first_probes & probes}
    shared_probes = set.intersection(*same.values())
    if not shared_probes:
        shared_probes = first_probes
        same = {name: probes for name, probes in same.items() if probes >= first_probes}
    steps = sorted(
        set.intersection(*({pattern.step for pattern in patterns_by_run[name]} for name in same))
    )
    if not steps:
        raise RequestError(f"{dataset}: there is no step at which all of these runs recorded")
    if step is not None and step not in steps:
        raise RequestError(f"step {step}: expected one of {', '.join(map(str, steps))}")
    step = steps[-1] if step is None else step
    chosen = {
        name: [
            pattern
            for pattern in patterns_by_run[name]
            if pattern.step == step and _sequence(pattern) in shared_probes
        ]
        for name in same
    }
    bins = distance_bins(pattern for patterns in chosen.values() for pattern in patterns)
    arms = [
        _arm(label, names, chosen, selection, bins)
        for label, names in _arms(list(chosen), selection).items()
    ]
    return InfluenceReport(
        dataset=dataset,
        step=step,
        steps=steps,
        probes=sorted({name for name, *_ in shared_probes}),
        bins=bins,
        equal=_equal_shares(next(iter(chosen.values())), bins).tolist(),
        arms=arms,
        left_out=left_out,
    )


def distance_bins(patterns: Iterable[Pattern]) -> list[DistanceBin]:
    """Return bins of doubling width that hold all distances of some patterns."""
    furthest_behind, furthest_ahead = 0, 0
    for pattern in patterns:
        if not len(pattern.query_at):
            continue
        furthest_behind = max(furthest_behind, *pattern.query_at)
        is_read_ahead = _weights_ahead(pattern)
        if is_read_ahead:
            furthest_ahead = max(furthest_ahead, len(pattern.tokens) - 1 - min(pattern.query_at))
    behind = [DistanceBin(near, far) for near, far in _doubling(furthest_behind)]
    ahead = [DistanceBin(-near, -far) for near, far in _doubling(furthest_ahead)]
    return [*reversed(ahead), DistanceBin(0, 0), *behind]


def _doubling(furthest: int) -> list[tuple[int, int]]:
    """Return 1, 2, 3-4, 5-8, 9-16, ... up to a distance."""
    bins, near = [], 1
    while near <= furthest:
        far = min(furthest, 2 * near - 2 if near > 2 else near)
        bins.append((near, far))
        near = far + 1
    return bins


def _weights_ahead(pattern: Pattern) -> bool:
    """Return whether a query reads a token behind its own position."""
    keys = np.arange(len(pattern.tokens))
    is_ahead = keys > np.array(pattern.query_at)[:, None]
    return bool((pattern.codes[:, is_ahead] > 0).any())


def shares_by_distance(
    patterns: Sequence[Pattern], bins: Sequence[DistanceBin]
) -> Float[np.ndarray, " bin"] | None:
    """Return the share of all that is read at each distance, mean over heads, queries and probes.

    The queries are those that answer, where there are several those of the second half of a
    sequence, which have most of it behind them. None where nothing is read.
    """
    rows = []
    for pattern in patterns:
        positions = np.array(pattern.query_at)
        is_late = positions >= min(len(pattern.tokens) // 2, positions.max(initial=0))
        distance = positions[is_late][:, None] - np.arange(len(pattern.tokens))
        weights = np.asarray(pattern.weights, np.float64)[:, is_late]
        sums = weights.sum(axis=-1)
        is_counted = sums > 0
        binned = np.stack(
            [(weights * ((b.low <= distance) & (distance <= b.high))).sum(-1) for b in bins], -1
        )
        rows.append((binned[is_counted] / sums[is_counted][:, None]).reshape(-1, len(bins)))
    all_rows = np.concatenate(rows) if rows else np.empty((0, len(bins)))
    return all_rows.mean(axis=0) if len(all_rows) else None


def _equal_shares(
    patterns: Sequence[Pattern], bins: Sequence[DistanceBin]
) -> Float[np.ndarray, " bin"]:
    """Return the share of each bin in the tokens that an answer can read."""
    reads_ahead = bins[0].nearest < 0
    rows = []
    for pattern in patterns:
        keys = np.arange(len(pattern.tokens))
        distance = pattern.answer_position - keys
        distance = distance if reads_ahead else distance[distance >= 0]
        rows.append([((b.low <= distance) & (distance <= b.high)).mean() for b in bins])
    return np.mean(rows, axis=0)


def _arm(
    label: str,
    names: Sequence[str],
    patterns_by_run: Mapping[str, Sequence[Pattern]],
    selection: Selection,
    bins: Sequence[DistanceBin],
) -> ArmInfluence:
    """Return the shares of one arm, over its seeds."""
    shares_by_source: dict[tuple[str, str], list[Float[np.ndarray, " bin"]]] = {}
    for name in names:
        for source, patterns in _by_source(patterns_by_run[name]).items():
            shares = shares_by_source.setdefault(source, [])
            run_shares = shares_by_distance(patterns, bins)
            if run_shares is not None:
                shares.append(run_shares)
    sources = [
        SourceShares(
            *source,
            [estimate(column.clip(0, 1).tolist(), SHARE) for column in np.stack(shares, axis=1)],
        )
        for source, shares in shares_by_source.items()
        if shares
    ]
    return ArmInfluence(
        label=label,
        runs=list(names),
        seeds=[selection.records[name].identity["seed"] for name in names],
        influence=next((source for source in sources if source.kind == "influence"), None),
        layers=[source for source in sources if source.kind != "influence"],
        gates=_gates(names, selection),
    )


def _gates(names: Sequence[str], selection: Selection) -> dict[str, Interval]:
    """Return the characteristic times and mean forget gates that evidence measured, over seeds."""
    values: dict[str, list[float]] = {}
    for name in names:
        for finding in read_findings(selection.results.get(name), name).values():
            for key, value in finding.scalars.items():
                if key.endswith(("/time", "/forget")):
                    values.setdefault(key, []).append(value)
    return {
        key: estimate(numbers, SHARE if key.endswith("/forget") else ANY)
        for key, numbers in values.items()
    }


def _by_source(patterns: Sequence[Pattern]) -> dict[tuple[str, str], list[Pattern]]:
    """Return patterns by the name and the kind of what reads."""
    by_source: dict[tuple[str, str], list[Pattern]] = {}
    for pattern in patterns:
        if pattern.layer is None:
            source = (INFLUENCE, "influence")
        else:
            kind = "mixing" if isinstance(pattern.layer, MixingLayer) else "attention"
            source = (pattern.layer.name, kind)
        by_source.setdefault(source, []).append(pattern)
    return by_source


def _arms(names: Sequence[str], selection: Selection) -> dict[str, list[str]]:
    """Return the runs of each arm; an unfinished run is one by itself."""
    finished = [
        FinishedRun(name, selection.results[name], flatten_config(selection.results[name]))
        for name in names
        if name in selection.results
    ]
    arms = {
        label: [run.name for run in runs]
        for label, runs in (group_by_arm(finished) if finished else {}).items()
    }
    return arms | {name: [name] for name in names if name not in selection.results}


def _dataset(record: Record) -> str:
    dataset = record.identity.get("dataset")
    name = dataset.get("name") if isinstance(dataset, Mapping) else None
    return str(name or "data")


def _is_within_one_sequence(pattern: Pattern) -> bool:
    return pattern.query_tokens is None and len(pattern.tokens) > 0


def _probes(patterns: Sequence[Pattern]) -> set[tuple[str, ...]]:
    return {_sequence(pattern) for pattern in patterns}


def _sequence(pattern: Pattern) -> tuple[str, ...]:
    """Return the probe and its tokens."""
    return (pattern.probe, *pattern.tokens)
