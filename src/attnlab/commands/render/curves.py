"""Learning curves as the content of a file: a figure for each panel, one below the other."""

from collections.abc import Mapping

import altair as alt

from attnlab.analysis.compare import Comparison
from attnlab.figures.base import apply_theme, render_chart
from attnlab.report.learning_curves import Over, metric_curve
from attnlab.report.page import curves_page
from attnlab.run_record.record import Record


def render_curves(
    report: Comparison,
    records: Mapping[str, Record],
    metric: str | None,
    over: Over,
    ending: str,
) -> bytes:
    """Draw a metric of each panel of a comparison as a file of the kind that `ending` names.

    Raises RequestError where no run of a panel recorded the metric.
    """
    if ending in (".html", ".htm"):
        charts = [
            metric_curve(panel, records, metric, over, width="container", legend=False)
            for panel in report.panels
        ]
        return curves_page(report.panels, charts, report.footnotes).encode()
    charts = [metric_curve(panel, records, metric, over) for panel in report.panels]
    for panel, chart in zip(report.panels, charts, strict=True):
        chart.title.text = f"{panel.dataset}: {chart.title.text}"
    if len(charts) == 1:
        return render_chart(charts[0], ending)
    for chart in charts:
        chart.config, chart.autosize = alt.Undefined, alt.Undefined
    figure = alt.vconcat(*charts).resolve_scale(color="independent", strokeDash="independent")
    return render_chart(apply_theme(figure), ending)
