"""The verdicts on claims, in the terminal."""

from collections.abc import Sequence

from rich.table import Table

from attnlab.console import Console
from attnlab.reproduce import readme
from attnlab.reproduce.judge import VERDICTS, Verdict
from attnlab.reproduce.judged import JudgedRecipe


def print_verdicts(judged_recipes: Sequence[JudgedRecipe], console: Console) -> None:
    """Print a table of the claims of each recipe."""
    for judged_recipe in judged_recipes:
        counts = [(judged_recipe.count(verdict), verdict) for verdict in VERDICTS]
        summary = ", ".join(f"{count} {verdict}" for count, verdict in counts if count)
        console.print(
            f"{judged_recipe.recipe.paper}, scale {judged_recipe.recipe.scale}: {summary}",
            style="bold",
        )
        console.print(_claims_table(judged_recipe.verdicts))
        for note in dict.fromkeys(
            verdict.note for verdict in judged_recipe.verdicts if verdict.note
        ):
            names = ", ".join(v.claim.name for v in judged_recipe.verdicts if v.note == note)
            console.print(f"{names}: {note}")
        console.print()
    console.print("ours: mean [95 % t-interval] over n of the seeds that a claim needs")


def print_overview(judged_recipes: Sequence[JudgedRecipe], console: Console) -> None:
    """Print a row for each recipe, below the claims, where it stays in sight."""
    table = _build_table(("paper", "scale", *VERDICTS, "date", "commit"), ("paper", "commit"))
    for judged_recipe in judged_recipes:
        commits = dict.fromkeys(
            commit for verdict in judged_recipe.verdicts for commit in verdict.commits
        )
        table.add_row(
            judged_recipe.recipe.paper,
            judged_recipe.recipe.scale,
            *(str(judged_recipe.count(verdict)) for verdict in VERDICTS),
            judged_recipe.results["date"] if judged_recipe.results else "-",
            ", ".join(commits) or "-",
        )
    console.print(table)


def _claims_table(verdicts: Sequence[Verdict]) -> Table:
    table = _build_table(("claim", "tolerance", "ours", "n", "verdict"), ("tolerance", "ours"))
    for verdict in verdicts:
        count_text = f"{verdict.ours.n}/{verdict.needed}"
        interval_text = readme.format_interval(verdict.ours)
        table.add_row(
            verdict.claim.name, str(verdict.claim.bound), interval_text, count_text, verdict.verdict
        )
    return table


def _build_table(headers: Sequence[str], folded_headers: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for header in headers:
        table.add_column(header, overflow="fold", no_wrap=header not in folded_headers)
    return table
