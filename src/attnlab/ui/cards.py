"""One card for each arm: its sentences, and the numbers without which a picture says too little."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from attnlab.figures import attention
from attnlab.figures.base import colours
from attnlab.runs.arms import shown
from attnlab.runs.compare import Group, Panel
from attnlab.runs.heads import head_scores
from attnlab.runs.patterns import Pattern, probes, recorded
from attnlab.runs.record import Record
from attnlab.runs.table import Cell, count, with_interval
from attnlab.ui.films import PROBES, Film, films


class Look(NamedTuple):
    """How an arm is called and drawn, in every figure the same."""

    name: str
    """What has a colour: the variant, or the whole label where that is not enough."""
    depth: str
    title: str
    colour: str


class Measure(NamedTuple):
    """A number of a card, or why there is none."""

    name: str
    value: Cell
    why_not: str = ""


@dataclass(frozen=True)
class Take:
    """What one seed recorded, and the head that was chosen for it."""

    run: str
    seed: int
    films: Sequence[Film]
    head: int
    """Where the picture opens."""
    chosen: bool = False
    """Whether that is the head that evidence chose on validation data."""


@dataclass(frozen=True)
class Card:
    """An arm with its pictures."""

    look: Look
    n: int
    size: str
    """Its parameters, with a unit."""
    measures: Sequence[Measure]
    takes: Sequence[Take]


NEEDS_ATTENTION = {"flip", "cut_right", "cut_wrong", "right", "wrong"}
MEASURES = {
    "cut_right": "… with {0} → meant cut",
    "cut_wrong": "… with {0} → other cut",
    "flip": "flip rate, from {0}",
    "right": "weight {0} → meant",
    "wrong": "weight {0} → other",
}
PLACES = {"": "it", "end_": "“.”"}
"""Where a number of `pronoun` is read, by the prefix of its key."""
RECALLS = {
    "read": "weight asked → place that is read",
    "without_read": "… without that head",
    "without_read_mean": "… with its mean pattern",
    "gather": "weight from there → key, answer",
    "without_gather": "… without that head",
    "without_gather_mean": "… with its mean pattern",
}
"""Numbers of `evidence=recall`, each with what is right without the head that it is of."""
CHOSEN = ("pronoun/end_", "pronoun/", "recall/read_")
"""What stands before the layer and head that a picture opens with: those of the token that answers,
which in a causal model is the last."""
INFLUENCES = {
    "influence_right": "influence of meant",
    "influence_wrong": "influence of other",
}


def looks(panel: Panel) -> list[Look]:
    """Name and colour each group."""
    named = [(_variant_and_depth(group), group) for group in panel.groups]
    known = [
        (name, ", ".join([depth, *_apart(group, [g for n, g in named if n == (name, depth)])]))
        for (name, depth), group in named
    ]
    palette = colours([name for name, _ in known])
    return [Look(n, d, ", ".join(filter(None, (n, d))), palette[n]) for n, d in known]


def cards(panel: Panel, records: Mapping[str, Record]) -> list[Card]:
    """Make a card of each group that has recorded patterns."""
    made = []
    for group, look in zip(panel.groups, looks(panel), strict=True):
        runs = sorted(group.runs, key=lambda run: run.result["seed"])
        takes = [take for run in runs if (take := _take(run, records[run.name]))]
        if takes:
            has_attention = any(film.has_attention for film in takes[0].films)
            made.append(
                Card(
                    look,
                    len(group.seeds),
                    count(group.mean("parameters")),
                    measures(group, panel.metric, has_attention),
                    _alike(takes),
                )
            )
    return made


def measures(group: Group, metric: str, has_attention: bool) -> list[Measure]:
    """List what a group's runs have measured: first the main number, then what probes it."""
    there = group.metrics
    found = [Measure(_plain(metric), with_interval(group.over_seeds(metric)))]
    if any(key.startswith("pronoun/") for key in there):
        if metric.startswith("test/"):
            found[0] = found[0]._replace(name=f"held-out {metric.rpartition('/')[2]}")
        wanted = {
            f"pronoun/{prefix}{name}": said.format(place)
            for prefix, place in PLACES.items()
            for name, said in MEASURES.items()
        }
        wanted["pronoun/twins"] = "both twins right"
        wanted |= {f"pronoun/{name}": said for name, said in INFLUENCES.items()}
    else:
        wanted = {key: _plain(key) for key in there if key.startswith("test/") and key != metric}
        recalls = {f"recall/{name}": said for name, said in RECALLS.items()}
        wanted |= recalls if recalls.keys() & set(there) else {}
    for key, said in wanted.items():
        if key in there:
            found.append(Measure(said, with_interval(group.over_seeds(key))))
        elif key.removeprefix("pronoun/") in NEEDS_ATTENTION and not has_attention:
            found.append(Measure(said, Cell("-"), "no attention"))
    return found


def figure(made: Sequence[Card], columns: int = 2, most: int = 4) -> Any:
    """Draw the cards for print: the first seed's chosen head after the last step, with numbers."""
    arms = []
    for card in made:
        take = card.takes[0]
        said = [f"{m.name} {m.value.joined()}" for m in card.measures if not m.why_not][:most]
        if any(measure.why_not for measure in card.measures):
            said.append("no attention to cut")
        said.append(f"shown: {take.films[0].head_name(take.head)}, seed {take.seed}")
        views = [film.view(take.head, title=film.probe) for film in take.films]
        arms.append(attention.Arm(f"{card.look.title} (n = {card.n})", said, views))
    return attention.rows(arms, columns)


def _take(run: Any, record: Record) -> Take | None:
    kept = [p for name in probes(record)[:PROBES] for p in recorded(record, probe=name)]
    shown = films(kept, run.result["dataset"], _attention_layers(record, kept, run.result))
    if not shown:
        return None
    measured = run.result["metrics"]
    named = [at for at in CHOSEN if f"{at}head" in measured]
    chosen = [measured.get(f"{''.join(named[:1])}{key}") for key in ("layer", "head")]
    opens = shown[0].head_at(*chosen)
    head = shown[0].first_of_last_layer if opens is None else opens
    return Take(run.name, run.result["seed"], shown, head, opens is not None)


def _attention_layers(
    record: Record, patterns: Sequence[Pattern], result: Mapping[str, Any]
) -> Sequence[str] | None:
    """Return the paths of all attention layers, of which the recorder may have kept some.

    None where the patterns have all of them; nothing where nobody can tell.
    """
    measured = list(head_scores(record))
    if measured:
        return measured
    sources = {pattern.source for pattern in patterns if pattern.source.endswith(".pattern")}
    return None if len(sources) == result["num_layers"] else ()


def _alike(takes: Sequence[Take]) -> list[Take]:
    """Keep the takes that saw the sentences of the first with as many heads: they share a card."""

    def seen(take: Take) -> Any:
        return [(f.probe, list(f.tokens), f.asked_at, f.heads) for f in take.films]

    return [take for take in takes if seen(take) == seen(takes[0])]


def _variant_and_depth(group: Group) -> tuple[str, str]:
    known = {(run.result["variant"], run.result["num_layers"]) for run in group.runs}
    if len(known) > 1:
        return group.label, ""
    variant, layers = known.pop()
    return variant, f"{layers} layer{'s' if layers != 1 else ''}"


def _apart(group: Group, alike: Sequence[Group]) -> list[str]:
    """Name the first keys that tell a group from others of its variant and depth."""
    keys: list[str] = []
    for key in group.keys:
        if len({repr(g.keys[key]) for g in alike}) > 1:
            keys.append(key)
        if len({repr([g.keys[k] for k in keys]) for g in alike}) == len(alike):
            break
    return [f"{key.rpartition('.')[2]}={shown(group.keys[key])}" for key in keys]


def _plain(metric: str) -> str:
    return metric.replace("/", " ").replace("_", " ")
