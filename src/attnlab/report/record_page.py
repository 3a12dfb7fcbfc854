"""Served pages of what records have: a form that selects, then sections of charts and tables."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from shlex import quote
from typing import Any, NamedTuple

from attnlab.analysis.arms import format_value
from attnlab.analysis.left_out import LeftOut, abbreviate_names
from attnlab.analysis.report import Report
from attnlab.analysis.statistics import Interval
from attnlab.analysis.table import interval_cell
from attnlab.report.frame import ServedFrame, render_page
from attnlab.report.page import ChartGroup
from attnlab.report.view import PageView
from attnlab.run_record.choice_name import shortest_endings

WHERE_TITLE = "runs for which all hold, as in: dataset=mqar num_layers>=2"
MOST_LISTED, MOST_SEEDS = 3, 8
"""The number of runs that a note lists by name, and of seeds that a caption lists."""


class Choice(NamedTuple):
    """A field of the form with the values that may be chosen, each with what a reader sees."""

    name: str
    title: str
    value: str
    texts: Mapping[str, str]
    """What a reader sees, by value; the empty value is the default."""
    is_slider: bool = False
    """Whether the values are in order, and a slider chooses among them."""


class DataCell(NamedTuple):
    """A cell of a table."""

    text: str
    note: str = ""
    """What follows it in a lighter colour, such as an interval."""
    address: str = ""
    """Where it leads."""
    tone: str = ""
    """Its emphasis, "good" or "bad"; its text says the same."""
    rows: int = 1
    """The number of rows that it stands for; the next ones lack it."""


class DataTable(NamedTuple):
    """A table; the first cell names the row, unless a cell of a row above stands for several."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[DataCell]]
    notes: Sequence[str] = ()
    """What the columns mean."""
    texts: Sequence[str] = ()
    """The headers of columns that hold sentences, which may take several lines."""


@dataclass(frozen=True)
class RecordSection:
    """A section of the page."""

    name: str
    lead: str = ""
    chart_groups: Sequence[ChartGroup] = ()
    tables: Sequence[DataTable] = ()
    notes: Sequence[str] = ()
    commands: Mapping[str, str] = field(default_factory=dict)
    """What a command shows beyond the record, and the command."""

    @property
    def charts(self) -> list[Any]:
        """The charts of all groups in their order."""
        return [chart for group in self.chart_groups for chart in group.charts]


@dataclass(frozen=True)
class RecordPage:
    """What a page shows for a view."""

    heading: str
    sections: Sequence[RecordSection] = ()
    choices: Sequence[Choice] = ()
    """The fields of the form, beside the conditions."""
    lead: str = ""
    notes: Sequence[str] = ()
    """The runs that are left out, and why."""
    notice: str | None = None
    """Why what was asked for cannot be shown."""
    report: Report | None = None
    """What the page shows, for JSON."""

    def render(self, view: PageView, served: ServedFrame) -> str:
        """Return the page as HTML."""
        return render_page(
            "record.html",
            self.heading,
            "sections",
            {
                "sections": [
                    {"cards": [], "charts": [chart.to_dict() for chart in section.charts]}
                    for section in self.sections
                ],
            },
            has_charts=any(section.charts for section in self.sections),
            served=served,
            notice=self.notice,
            page=self,
            view=view,
            where_title=WHERE_TITLE,
        )


def interval_data_cell(value: Interval | None, address: str = "") -> DataCell:
    """Return the cell of a mean with its interval; a dash where there is none."""
    if value is None or value.mean is None:
        return DataCell("-")
    cell = interval_cell(value)
    return DataCell(cell.text, cell.interval, address)


def describe_left_out(left_out: Iterable[LeftOut]) -> list[str]:
    """Return a line for each reason why runs are not shown, with their names."""
    names_by_reason: dict[str, list[str]] = {}
    for run in left_out:
        names_by_reason.setdefault(run.reason or run.state, []).append(run.run)
    return [
        f"Left out: {reason}: {abbreviate_names(names, MOST_LISTED)}"
        for reason, names in names_by_reason.items()
    ]


def short_titles(labels: Sequence[str], *, with_dataset: bool = True) -> dict[str, str]:
    """Return a title for each label of an arm: its kind, and what tells it from its dataset's."""
    naming = NAMING if with_dataset else NAMING[1:]
    parts_by_label = {label: label.split(",") for label in labels}
    titles = {}
    for label, parts in parts_by_label.items():
        alike = [other for other in parts_by_label.values() if other[0] == parts[0]]
        shared = set.intersection(*map(set, alike))
        keys = {part.partition("=")[0] for each in alike for part in each}
        endings = shortest_endings(keys)
        shown = [
            _short_part(part, endings)
            for part in parts
            if (part.startswith(naming) or part not in shared) and not part.endswith(NOTHING)
        ]
        titles[label] = ", ".join(shown) or label
    return titles


NOTHING = ("=-", "={}")
"""How the parts of a label end that say that an arm has none of something."""
NAMING = ("dataset=", "variant=", "num_layers=")
"""How the parts of a label begin that every title has."""


def _short_part(part: str, endings: Mapping[str, str]) -> str:
    key, separator, value = part.partition("=")
    if key == "num_layers" and value.isdecimal():
        return f"{value} layer{'s' * (value != '1')}"
    if key in ("dataset", "variant") or not separator:
        return value or part
    return f"{endings.get(key, key)}={value}"


def describe_seeds(seeds: Sequence[int]) -> str:
    """Return how many seeds there are and which, as in `n = 3 seeds (0, 1, 2)`."""
    numbers = abbreviate_names(map(format_value, seeds), MOST_SEEDS)
    return f"n = {len(seeds)} seed{'s' * (len(seeds) != 1)} ({numbers})"


def command(*words: str) -> str:
    """Return a command line of attnlab for a shell."""
    return " ".join(["attnlab", *(quote(word) for word in words)])
