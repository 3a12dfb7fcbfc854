"""The load of experts as runs recorded it, on whole splits, without the model.

from attnlab.analysis.expert_loads import expert_loads

for layer in expert_loads(Record(Path("runs/pronoun-moe-..."))).layers:
    print(layer.name, layer.final.balance, layer.final.dead)

`attnlab.analysis.expert_report` computes which tokens go where, and needs the model.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, log

from attnlab.analysis.report import Report
from attnlab.run_record.record import Record

SPLIT = "validation"
GAUGE = re.compile(r"(.+)\.(?:load\.(\d+)|drops)")
"""The name of a gauge of a layer of experts, as rows and metrics have it."""


@dataclass(frozen=True)
class LoadAtStep:
    """The load of the experts of a layer on a split."""

    load: Sequence[float]
    """The share of all assignments, by expert."""
    drops: float | None
    """The share of assignments above capacity; None where it was not recorded."""

    @property
    def balance(self) -> float:
        """The entropy of the load over log(experts): 1 for an even load."""
        if len(self.load) < 2:
            return 1.0
        # As `attnlab.interp.expert_routing.Routing.balance`, which has a tensor.
        entropy = -sum(share * log(share) for share in self.load if share > 0)
        return entropy / log(len(self.load))

    @property
    def dead(self) -> list[int]:
        """The experts without assignments."""
        return [expert for expert, share in enumerate(self.load) if share == 0]


@dataclass(frozen=True)
class LayerLoads:
    """The loads of a layer of experts."""

    layer: int
    """From 0, among the layers of experts."""
    name: str
    """The path of the module."""
    history: Mapping[int, LoadAtStep]
    """By step, on the validation split."""
    final: LoadAtStep | None
    """At the end of the run, on the split of `split`; None before."""


@dataclass(frozen=True)
class ExpertLoads(Report):
    """The loads of the experts of a run."""

    run: str
    split: str | None
    """The split on which the final loads were measured."""
    layers: Sequence[LayerLoads]
    """Empty for a run without experts."""


def expert_loads(record: Record) -> ExpertLoads:
    """Return the loads that a run recorded. Raises RecordError for a damaged record."""
    rows = record.rows(SPLIT).to_pylist()
    history_by_layer: dict[str, dict[int, LoadAtStep]] = {}
    for row in rows:
        for name, load in _loads(row).items():
            history_by_layer.setdefault(name, {})[row["step"]] = load
    result = record.result
    split = None if result is None else result.headline.rpartition("/")[0]
    final_by_layer = {}
    if result is not None:
        prefix = f"{split}/"
        final_by_layer = _loads(
            {
                name.removeprefix(prefix): value
                for name, value in result.metrics.items()
                if name.startswith(prefix)
            }
        )
    # A record of 0.1 states no layers of experts; their order is that of the columns.
    paths = [layer.path for layer in record.layers.experts]
    paths += [p for p in [*history_by_layer, *final_by_layer] if p not in paths]
    paths = list(dict.fromkeys(paths))
    return ExpertLoads(
        record.name,
        split if final_by_layer else None,
        [
            LayerLoads(index, path, history_by_layer.get(path, {}), final_by_layer.get(path))
            for index, path in enumerate(paths)
            if path in history_by_layer or path in final_by_layer
        ],
    )


def _loads(values: Mapping[str, float | int | None]) -> dict[str, LoadAtStep]:
    """Return the load of each layer from the gauges among some values."""
    share_by_layer: dict[str, dict[int, float]] = {}
    drops_by_layer: dict[str, float] = {}
    for name, value in values.items():
        match = GAUGE.fullmatch(name)
        if match is None or value is None or not isfinite(value):
            continue
        layer, expert = match.groups()
        if expert is None:
            drops_by_layer[layer] = value
        else:
            share_by_layer.setdefault(layer, {})[int(expert)] = value
    return {
        layer: LoadAtStep([shares[e] for e in range(len(shares))], drops_by_layer.get(layer))
        for layer, shares in share_by_layer.items()
        # A load without one of its experts is none.
        if sorted(shares) == list(range(len(shares)))
    }
