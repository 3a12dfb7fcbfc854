"""The page: one HTML file that needs nothing else and asks nobody for anything."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from attnlab.figures.attention import MEANT, OTHER, panel
from attnlab.figures.base import ROLES
from attnlab.runs.compare import Panel
from attnlab.runs.fair import few
from attnlab.runs.patterns import Pattern
from attnlab.runs.record import Record
from attnlab.runs.select import said_of
from attnlab.runs.table import Column, columns, count, legend, title
from attnlab.ui.cards import Card, Look, Take, cards
from attnlab.ui.context import context_curves
from attnlab.ui.curves import learning_curves
from attnlab.ui.films import MOST_TOKENS, Film, films

ASSETS = Path(__file__).parent / "assets"
MOST_BYTES = 6_000_000
"""Patterns that a page carries; beyond that, those of one seed for each arm."""


CAUTION = (
    "Attention weights are not explanations: a weight says what a head draws on, not what the "
    "answer hangs on."
)
INSTEAD = {
    "recall/without_read": "a head is taken out",
    "pronoun/cut_right": "the edge is cut",
}
"""What is taken away beside a picture, by a number that says so."""
ONE_OF_MANY = (
    "A picture shows one head of one seed on one sentence; the numbers are means over n seeds."
)


@dataclass(frozen=True)
class Section:
    """What is shown of one panel, or of one text."""

    name: str
    summary: str = ""
    cards: Sequence[Card] = ()
    remarks: Sequence[str] = ()
    """What a reader of the cards must know."""
    caution: str = ""
    caption: str = ""
    table: Sequence[Column] = ()
    table_title: str = ""
    notes: Sequence[str] = ()
    curves: Sequence[Any] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_roles(self) -> bool:
        return any(film.roles for card in self.cards for film in card.takes[0].films)


def page(
    panels: Sequence[Panel],
    records: Mapping[str, Record],
    left_out: Sequence[dict[str, str]] = (),
) -> str:
    """Write panels as a page; `records` has the record of each of their runs, by its name."""
    sections = _light([_section(panel, records) for panel in panels])
    datasets = list(dict.fromkeys(panel.dataset for panel in panels))
    return _render(", ".join(datasets), sections, said_of(left_out))


def attend_page(
    patterns: Sequence[Pattern],
    caption: str,
    name: str = "attention",
    dataset: str = "",
    query: int | None = None,
    opens: tuple[str, int | str] | None = None,
) -> str:
    """Write the patterns of one run on one text as a page, with what stands beside them.

    `dataset` is that of the run; of `pronoun`, the nouns are coloured. The page opens at `query`, a
    position (None: where the model answers), and at the head that `opens` names by its source and
    its place there (None, or not shown: the first of the last layer).
    """
    at = patterns[0].asked_at if query is None else query
    shown = films([replace(pattern, asked_at=at) for pattern in patterns], dataset)
    film = shown[0]
    named = (
        number
        for number, (source, head) in enumerate(film.heads)
        if (film.sources[source].name, head) == opens
    )
    take = Take(run=name, seed=0, films=shown, head=next(named, film.first_of_last_layer))
    look = Look(name, "", name, "currentColor")
    card = Card(look, 1, "", (), (take,))
    caution = f"{CAUTION} This is one run on one text."
    return _render(
        name,
        [Section(name, cards=[card], remarks=_cut([card]), caption=caption, caution=caution)],
        "",
    )


def _section(panel: Panel, records: Mapping[str, Record]) -> Section:
    made = cards(panel, records)
    return Section(
        name=panel.dataset,
        summary=_summary(panel),
        cards=made,
        remarks=_remarks(panel, made) if made else (),
        caution=_caution(panel),
        table=columns(panel),
        table_title=title(panel),
        notes=[legend(panel), *panel.notes],
        curves=[*learning_curves(panel, records), *context_curves(panel).values()],
        facts=_facts(panel),
    )


def _facts(panel: Panel) -> dict[str, str]:
    results = [run.result for group in panel.groups for run in group.runs]

    def each(values: Any) -> str:
        return few(dict.fromkeys(str(value) for value in values if value))

    seeds = sorted({result["seed"] for result in results})
    days = sorted(str(result.get("started", ""))[:10] for result in results)
    commits = (result.get("git") or {} for result in results)
    return {
        "arms": str(len(panel.groups)),
        "runs": str(len(results)),
        "seeds": ", ".join(map(str, seeds)),
        "budget": each(f"{count(result['budget_tokens'])} tokens" for result in results),
        "data": each(result["data_hash"][:10] for result in results),
        "trained": each((days[0], days[-1])).replace(", ", " to "),
        "attnlab": each(result.get("versions", {}).get("attnlab") for result in results)
        or version("attnlab"),
        "commit": each(
            f"{git['commit'][:7]}{', changed' if git.get('dirty') else ''}"
            for git in commits
            if git.get("commit")
        ),
    }


def _light(sections: Sequence[Section]) -> list[Section]:
    """Keep the patterns of one seed for each arm where those of all would be too much."""
    everything = [film for s in sections for c in s.cards for t in c.takes for film in t.films]
    if sum(film.size for film in everything) <= MOST_BYTES:
        return list(sections)
    return [
        replace(
            section,
            cards=[replace(card, takes=card.takes[:1]) for card in section.cards],
            remarks=[*section.remarks, "The pictures are of one seed for each arm."],
        )
        if any(len(card.takes) > 1 for card in section.cards)
        else section
        for section in sections
    ]


def _summary(panel: Panel) -> str:
    """Read the first line of what the dataset says of itself."""
    identity = panel.groups[0].runs[0].result["identity"]
    module, _, name = identity["dataset"]["_target_"].rpartition(".")
    # A record can name any module, and only our own are known to be harmless when imported.
    if not module.startswith("attnlab.dataset.") or find_spec(module) is None:
        return ""
    kind = getattr(import_module(module), name, None)
    return (kind.__doc__ or "").partition("\n")[0] if kind else ""


def _remarks(panel: Panel, made: Sequence[Card]) -> list[str]:
    """Say what the pictures of a panel leave out, and how their heads were chosen."""
    said = []
    runs = [run for group in panel.groups for run in group.runs]
    if sum(len(card.takes) for card in made) < len(runs):
        said.append("Runs that recorded nothing, or other sentences, have no picture.")
    attending = [card.takes[0] for card in made if card.takes[0].films[0].has_attention]
    if attending and all(take.chosen for take in attending):
        said.append("Each card opens with the head that was chosen on validation data.")
    elif any(take.chosen for take in attending):
        said.append(
            "A card opens with the head that was chosen on validation data, where its map was "
            "recorded."
        )
    if any(film.reads for card in made for film in card.takes[0].films):
        said.append(
            "What a sequence pays to another one (an encoder's output, latents) is recorded, and "
            "not shown here: `attnlab attend RUN TEXT --layer LAYER` draws it."
        )
    return said + _cut(made)


def _caution(panel: Panel) -> str:
    there = {key for group in panel.groups for key in group.metrics}
    said = "No edge was cut in these runs, so their pictures alone support no claim."
    for key, what in INSTEAD.items():
        if key in there:
            said = f"So beside each picture stands what happens when {what}."
    return f"{CAUTION} {said} {ONE_OF_MANY}"


def _cut(made: Sequence[Card]) -> list[str]:
    if not any(film.cut for card in made for film in card.takes[0].films):
        return []
    return [
        f"Of a longer sequence, the {MOST_TOKENS} tokens up to the one that the model answers from "
        "are shown; what the others get is missing from the picture."
    ]


def _render(heading: str, sections: Sequence[Section], left_out: str) -> str:
    pictures: dict[Any, Any] = {}
    for card in (card for section in sections for card in section.cards):
        for film in card.takes[0].films:
            if _sentence(film) not in pictures:
                view = film.view(card.takes[0].head, title=film.probe)
                pictures[_sentence(film)] = panel(view).to_dict()
    scripts = [_library(), (ASSETS / "page.js").read_text("utf-8")]
    allowed = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        _environment()
        .get_template("page.html")
        .render(
            heading=heading,
            sections=sections,
            left_out=left_out,
            scripts=scripts,
            style=(ASSETS / "page.css").read_text("utf-8"),
            policy=f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
            "img-src data:; base-uri 'none'; form-action 'none'",
            roles=dict(zip((MEANT, OTHER), ROLES, strict=True)),
            data={
                "pictures": list(pictures.values()),
                "sections": [
                    {
                        "cards": [_packed(card, list(pictures)) for card in section.cards],
                        "curves": [chart.to_dict() for chart in section.curves],
                        "steps": _steps(section.cards),
                    }
                    for section in sections
                ],
            },
            steps=[_steps(section.cards) for section in sections],
        )
    )


def _packed(card: Card, sentences: Sequence[Any]) -> dict[str, Any]:
    return {
        "pictures": [sentences.index(_sentence(film)) for film in card.takes[0].films],
        "takes": [
            {"head": take.head, "films": [film.packed() for film in take.films]}
            for take in card.takes
        ],
    }


def _sentence(film: Film) -> tuple[Any, ...]:
    """Say what a picture shows but for the weights: films that agree on it share one."""
    return film.probe, tuple(film.tokens), tuple(film.roles.items())


def _steps(made: Sequence[Card]) -> list[int]:
    return sorted({s for c in made for take in c.takes for film in take.films for s in film.steps})


@lru_cache
def _library() -> str:
    """Read Vega, Vega-Lite and Vega-Embed, which the figures are drawn with."""
    from vl_convert import javascript_bundle

    # Its stub asks for an argument that has a default.
    bundle = javascript_bundle()  # pyright: ignore[reportCallIssue]
    # Nothing in an inlined script may end it.
    assert "</script" not in bundle.lower() and "<!--" not in bundle  # noqa: PT018
    return bundle


@lru_cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(ASSETS, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
