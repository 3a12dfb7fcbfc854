"""A paper's figures, drawn from the runs by which its claims are judged."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from attnlab.analysis.compare import Panel, compare
from attnlab.reproduce.recipe import Recipe
from attnlab.run_record import write
from attnlab.run_record.record import Record


def draw(recipe: Recipe, records: Mapping[str, Sequence[Record]], folder: Path) -> None:
    """Write figures/SCALE-NAME.svg and .png below a folder, from the finished runs of each arm.

    `attention` shows the patterns of the arms of `pictures`, or for a text `reach` how far back
    they look. `curves` shows the test metric of the arms of `curves` over training, or else
    `learning` their validation loss; `seen` and `within` show their loss on a text by context.
    """
    # Altair and Vega take a second to import, and judging does not need them.
    from attnlab.figures.base import render_png, render_svg
    from attnlab.report.arm_cards import arm_cards, figure
    from attnlab.report.evidence_curves import evidence_curves, reach_chart
    from attnlab.report.learning_curves import learning_curve

    charts: dict[str, Any] = {}
    by_name = {record.name: record for runs in records.values() for record in runs}
    panel = _compare_arms(recipe.pictures, records)
    charts["reach"] = panel and reach_chart(panel, by_name)
    if panel and charts["reach"] is None:
        arm_by_run = {record.name: arm for arm, runs in records.items() for record in runs}
        cards = arm_cards(panel, by_name)
        charts["attention"] = figure(
            [
                replace(card, style=card.style._replace(title=arm_by_run[card.seeds[0].run]))
                for card in cards
            ]
        )
    if panel := _compare_arms(recipe.curves, records):
        charts["curves"] = learning_curve(panel, by_name)
        if charts["curves"] is None:
            charts["learning"] = learning_curve(panel, by_name, "validation", "loss")
        charts |= evidence_curves(panel, width=420)
    for name, chart in ((name, chart) for name, chart in charts.items() if chart is not None):
        write.make_directory(folder / "figures")
        write.replace(folder / recipe.figure(name, "svg"), render_svg(chart).encode())
        write.replace(folder / recipe.figure(name), render_png(chart))


def _compare_arms(arms: Sequence[str], records: Mapping[str, Sequence[Record]]) -> Panel | None:
    results = {record.name: record.result for arm in arms for record in records.get(arm, ())}
    finished = {name: result for name, result in results.items() if result is not None}
    return compare(finished, allow=("budget",))[0] if finished else None
