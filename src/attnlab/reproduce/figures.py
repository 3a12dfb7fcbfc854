"""A paper's figures, drawn from the runs by which its claims are judged."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from attnlab.analysis.compare import Panel, compare
from attnlab.figures.base import render_png, render_svg
from attnlab.reproduce.recipe import Recipe
from attnlab.run_record import write
from attnlab.run_record.record import Record


def draw_figures(
    recipe: Recipe, records_by_arm: Mapping[str, Sequence[Record]], folder: Path
) -> None:
    """Write figures/SCALE-NAME.svg and .png below a folder, from the finished runs of each arm.

    `attention` shows the patterns of the arms of `pictures`, or for a text `reach` how far back
    they look. `curves` shows the test metric of the arms of `curves` over training, or else
    `learning` their validation loss; `seen` and `within` show their loss on a text by context.
    """
    # Altair and Vega take a second to import, and judging does not need them.

    charts = _draw_pictures(recipe, records_by_arm) | _draw_curves(recipe, records_by_arm)
    for name, chart in charts.items():
        if chart is None:
            continue
        write.make_directory(folder / "figures")
        write.replace_file(folder / recipe.figure_path(name, "svg"), render_svg(chart).encode())
        write.replace_file(folder / recipe.figure_path(name), render_png(chart))


def _draw_pictures(
    recipe: Recipe, records_by_arm: Mapping[str, Sequence[Record]]
) -> dict[str, Any]:
    """Draw `reach` or `attention` of the arms of `pictures`; a chart is None without patterns."""
    from attnlab.report.arm_cards import arm_cards, draw_cards
    from attnlab.report.evidence_curves import reach_chart

    panel = _compare_arms(recipe.pictures, records_by_arm)
    if panel is None:
        return {}
    record_by_name = _record_by_name(records_by_arm)
    reach = reach_chart(panel, record_by_name)
    if reach is not None:
        return {"reach": reach}
    arm_by_run = {record.name: arm for arm, runs in records_by_arm.items() for record in runs}
    cards = [
        replace(card, style=card.style._replace(title=arm_by_run[card.seed_views[0].run]))
        for card in arm_cards(panel, record_by_name)
    ]
    return {"attention": draw_cards(cards)}


def _draw_curves(recipe: Recipe, records_by_arm: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """Draw `curves` or `learning` of the arms of `curves`, and the curves of their evidence."""
    from attnlab.report.evidence_curves import evidence_curves
    from attnlab.report.learning_curves import learning_curve

    panel = _compare_arms(recipe.curves, records_by_arm)
    if panel is None:
        return {}
    record_by_name = _record_by_name(records_by_arm)
    charts = {"curves": learning_curve(panel, record_by_name)}
    if charts["curves"] is None:
        charts["learning"] = learning_curve(panel, record_by_name, "validation", "loss")
    return charts | evidence_curves(panel, width=420)


def _record_by_name(records_by_arm: Mapping[str, Sequence[Record]]) -> dict[str, Record]:
    return {record.name: record for records in records_by_arm.values() for record in records}


def _compare_arms(
    arms: Sequence[str], records_by_arm: Mapping[str, Sequence[Record]]
) -> Panel | None:
    """Return the panel of the finished runs of some arms; None if no run is finished."""
    results = {record.name: record.result for arm in arms for record in records_by_arm.get(arm, ())}
    finished = {name: result for name, result in results.items() if result is not None}
    if not finished:
        return None
    first_panel, *_ = compare(finished, allow=("budget",))
    return first_panel
