"""The page of claims: what papers state, what our runs have, and what follows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from attnlab.analysis.report import Report
from attnlab.dashboard.record_answers import RecordAnswers
from attnlab.errors import RequestError
from attnlab.report.record_page import (
    Choice,
    DataCell,
    DataTable,
    RecordPage,
    RecordSection,
    command,
    interval_data_cell,
)
from attnlab.report.view import PageView
from attnlab.reproduce.judge import VERDICTS, Verdict
from attnlab.reproduce.judged import ClaimReport
from attnlab.reproduce.overview import JudgedPaper, SourcedRecipe, judged_papers
from attnlab.reproduce.readme import format_seeds
from attnlab.reproduce.recipe import experiments_dir

VERDICT_TEXTS = {"holds": "holds", "fails": "disputed", "not_run": "not run yet"}
TONES = {"holds": "good", "fails": "bad", "not_run": ""}


@dataclass(frozen=True)
class ClaimsView(PageView):
    """Which claims are shown, as the address of the page says it."""

    PATH: ClassVar[str] = "/claims"
    paper: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class ClaimsReport(Report):
    """All claims of some papers, as `attnlab reproduce --format json` prints them."""

    claims: Sequence[ClaimReport]
    faults: Mapping[str, str]
    """By paper: why its claims cannot be judged."""


class ClaimsAnswers(RecordAnswers[ClaimsView]):
    """Answers what is asked about claims."""

    title, path = "Claims", "/claims"

    def view_type(self) -> type[ClaimsView]:
        return ClaimsView

    def content(self, view: ClaimsView) -> RecordPage:
        return claims_page(judged_papers(experiments_dir(), self.context.store.runs_dir), view)


def claims_page(papers: Sequence[JudgedPaper], view: ClaimsView) -> RecordPage:
    """Return the page of the claims of some papers. Raises RequestError for an unknown choice."""
    names = [paper.name for paper in papers]
    if view.paper and view.paper not in names:
        raise RequestError(f"there is no paper {view.paper!r}; there is {', '.join(names)}")
    if view.verdict and view.verdict not in VERDICTS:
        raise RequestError(f"verdict={view.verdict!r}: expected {', '.join(VERDICTS)}")
    shown = [paper for paper in papers if view.paper in ("", paper.name)]
    sections = [_overview(shown)]
    for paper in shown:
        sections += [*_paper_sections(paper, view.verdict)]
    return RecordPage(
        "Claims",
        sections,
        [
            Choice(
                "paper", "paper", view.paper, {"": "all", **dict(zip(names, names, strict=True))}
            ),
            Choice("verdict", "verdict", view.verdict, {"": "all", **VERDICT_TEXTS}),
        ],
        lead=(
            "What a paper states, what our runs have, and whether that is inside the tolerance, "
            "which was committed before the runs. A claim is disputed where our runs are outside. "
            "The judge is that of attnlab reproduce; nothing is trained or written here."
        ),
        report=ClaimsReport(
            [
                claim
                for paper in shown
                for recipe in paper.recipes
                for claim in recipe.judged.claims
                if view.verdict in ("", claim.verdict)
            ],
            {paper.name: paper.fault for paper in shown if paper.fault},
        ),
    )


def _overview(papers: Sequence[JudgedPaper]) -> RecordSection:
    """Return how many claims of each recipe hold, and where their numbers come from."""
    rows = []
    for paper in papers:
        for recipe in paper.recipes:
            judged = recipe.judged
            counts = [
                DataCell(
                    str(judged.count(verdict)), tone=TONES[verdict] if judged.count(verdict) else ""
                )
                for verdict in VERDICTS
            ]
            date = judged.results["date"] if judged.results else "-"
            commits = dict.fromkeys(c for verdict in judged.verdicts for c in verdict.commits)
            rows.append(
                [
                    DataCell(
                        f"{paper.name}, {judged.recipe.scale}",
                        address=ClaimsView(paper=paper.name).address(),
                    ),
                    *counts,
                    DataCell(date or "-"),
                    DataCell(", ".join(commits) or "-"),
                ]
            )
    headers = ["paper, scale", *VERDICT_TEXTS.values(), "last run", "commit"]
    faults = [f"{paper.name}: {paper.fault}" for paper in papers if paper.fault]
    return RecordSection("All papers", tables=[DataTable("", headers, rows)], notes=faults)


def _paper_sections(paper: JudgedPaper, shown_verdict: str) -> Iterator[RecordSection]:
    """Yield a section for each recipe of a paper that has a claim to show."""
    for recipe in paper.recipes:
        verdicts = [v for v in recipe.judged.verdicts if shown_verdict in ("", v.verdict)]
        if verdicts:
            yield _recipe_section(recipe, verdicts)


def _recipe_section(recipe: SourcedRecipe, verdicts: Sequence[Verdict]) -> RecordSection:
    judged = recipe.judged
    paper, scale = judged.recipe.paper, judged.recipe.scale
    rows = [row for entry in _entries(verdicts) for row in _entry_rows(entry)]
    hardware = dict.fromkeys(text for verdict in verdicts for text in verdict.hardware)
    is_undone = any(verdict.verdict == "not_run" for verdict in verdicts)
    title = "Train what is missing, and judge" if is_undone else "Train and judge it again"
    words = ["reproduce", paper, *([] if scale == "check" else ["--scale", scale])]
    return RecordSection(
        f"{paper}: {judged.recipe.title}",
        lead=_source_text(recipe),
        tables=[
            DataTable(
                "",
                ["claim", "theirs", "tolerance", "arm", "ours", "seeds", "verdict"],
                rows,
                [
                    "ours: mean [95 % t-interval] over n of the seeds that a claim needs"
                    + (f"; on {', '.join(hardware)}" if hardware else "")
                ],
                texts=["claim", "theirs", "tolerance", "verdict"],
            )
        ],
        commands={title: command(*words)},
    )


def _entries(verdicts: Sequence[Verdict]) -> list[list[Verdict]]:
    """Return the verdicts of each entry of claims.yaml, one for each of its arms."""
    entries: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        entries.setdefault(_split_name(verdict)[0], []).append(verdict)
    return list(entries.values())


def _entry_rows(entry: Sequence[Verdict]) -> Iterator[list[DataCell]]:
    """Yield a row for each arm of an entry; the first also has what the entry says."""
    claim = entry[0].claim
    name, _ = _split_name(entry[0])
    stated = [
        DataCell(f"{claim.says}.", f"{name}; {claim.source}", rows=len(entry)),
        DataCell(claim.theirs, rows=len(entry)),
        DataCell(str(claim.bound), rows=len(entry)),
    ]
    for verdict in entry:
        yield [
            *stated,
            DataCell(_split_name(verdict)[1]),
            interval_data_cell(verdict.ours),
            DataCell(f"{verdict.ours.n}/{verdict.needed}", _seeds_text(verdict)),
            DataCell(VERDICT_TEXTS[verdict.verdict], verdict.note, tone=TONES[verdict.verdict]),
        ]
        stated = []


def _split_name(verdict: Verdict) -> tuple[str, str]:
    """Return the names of the entry and of the arm of a claim."""
    entry, _, arm = verdict.claim.name.rpartition("/")
    return entry, arm


def _source_text(recipe: SourcedRecipe) -> str:
    """Return where the numbers of a recipe come from."""
    if not recipe.source:
        return "It is not run yet."
    if recipe.is_partial:
        return f"By the runs in {recipe.source}, whose results are not written yet."
    return f"By the results in {recipe.source}."


def _seeds_text(verdict: Verdict) -> str:
    return f"({format_seeds(verdict.seeds)})" if verdict.seeds else ""
