"""What became of claims, in the terminal."""

from collections.abc import Sequence

from rich.table import Table

from attnlab.console import Console
from attnlab.reproduce import readme
from attnlab.reproduce.judge import VERDICTS, Verdict
from attnlab.reproduce.judged import JudgedRecipe


def print_verdicts(judged: Sequence[JudgedRecipe], console: Console) -> None:
    """Print a table of the claims of each recipe."""
    for each in judged:
        counts = [(each.count(verdict), verdict) for verdict in VERDICTS]
        summary = ", ".join(f"{count} {verdict}" for count, verdict in counts if count)
        console.print(f"{each.recipe.paper}, scale {each.recipe.scale}: {summary}", style="bold")
        console.print(_claims(each.verdicts))
        for note in dict.fromkeys(verdict.note for verdict in each.verdicts if verdict.note):
            names = ", ".join(v.claim.name for v in each.verdicts if v.note == note)
            console.print(f"{names}: {note}")
        console.print()
    console.print("ours: mean [95 % t-interval] over n of the seeds that a claim needs")


def print_overview(judged: Sequence[JudgedRecipe], console: Console) -> None:
    """Print a row for each recipe; it stands below the claims, where a terminal ends."""
    table = _table(("paper", "scale", *VERDICTS, "date", "commit"), ("paper", "commit"))
    for each in judged:
        commits = dict.fromkeys(commit for verdict in each.verdicts for commit in verdict.commits)
        table.add_row(
            each.recipe.paper,
            each.recipe.scale,
            *(str(each.count(verdict)) for verdict in VERDICTS),
            each.results["date"] if each.results else "-",
            ", ".join(commits) or "-",
        )
    console.print(table)


def _claims(verdicts: Sequence[Verdict]) -> Table:
    table = _table(("claim", "tolerance", "ours", "n", "verdict"), ("tolerance", "ours"))
    for verdict in verdicts:
        n = f"{verdict.ours.n}/{verdict.needed}"
        ours = readme.with_interval(verdict.ours)
        table.add_row(verdict.claim.name, str(verdict.claim.bound), ours, n, verdict.verdict)
    return table


def _table(columns: Sequence[str], folded: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name not in folded)
    return table
