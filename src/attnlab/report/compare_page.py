"""The served page that compares runs: what is asked, and the charts that answer."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from attnlab.analysis.arms import COST_FIELDS
from attnlab.analysis.compare import BEST, Comparison, Panel
from attnlab.analysis.factors import factor_lines, importance, numeric_keys, parallel_axes
from attnlab.analysis.statistics import describe_method
from attnlab.analysis.unfinished import UnfinishedRun, belongs_to
from attnlab.errors import RequestError
from attnlab.figures.base import GREY, HIGHLIGHTS
from attnlab.figures.curves import ArmCurve, CurvePoint, XAxis, YAxis, draw_curves
from attnlab.figures.differences import DifferenceRow, draw_differences
from attnlab.figures.importance import Share, draw_importance
from attnlab.figures.tradeoff import WIDE_RATIO, TradeoffPoint, draw_tradeoff
from attnlab.report.arm_styles import arm_styles
from attnlab.report.evidence_curves import evidence_curves
from attnlab.report.frame import ServedFrame
from attnlab.report.learning_curves import AXES, Over, describe_curves, learning_curve
from attnlab.report.page import LEARNING, ChartGroup, panel_section, render_sections
from attnlab.report.view import PageView, address_of
from attnlab.run_record.choice_name import shortest_endings
from attnlab.run_record.record import Record
from attnlab.run_record.row_preview import TABLES

DEPTH = "num_layers"
"""The key over which the metric is drawn first, where it varies."""
SMOOTHINGS = (1, 5, 15, 51)
MOST_LISTED = 100
"""The number of runs that are not compared that the page names."""
FEWEST_PARALLEL = 3
"""The number of arms from which parallel coordinates are drawn."""
COSTS = {
    "parameters": "parameters",
    "active_parameters": "active parameters",
    "flops_per_token": "FLOPs per token",
    "seconds": "seconds of training",
    "peak_memory_bytes": "peak memory in bytes",
    "state_size": "state size in numbers",
}
"""The costs that a metric can be drawn against, and the titles of their axes."""


@dataclass(frozen=True)
class CompareView(PageView):
    """What is compared and how it is drawn, as the address of the page says it."""

    PATH: ClassVar[str] = "/compare"
    where: str = ""
    run: tuple[str, ...] = ()
    """The names of the runs; none for all that are finished."""
    by: tuple[str, ...] = ()
    """What makes a group; nothing for all but the seed."""
    metric: str = ""
    baseline: str = ""
    allow: tuple[str, ...] = ()
    curve: str = ""
    """A split and a column, as in `validation/loss`; empty for loss and main metric of all."""
    x: str = "steps"
    log: bool = False
    """Whether x of the curves is logarithmic."""
    log_y: bool = False
    smooth: int = 1
    """The number of points of the curves' running mean; 1 for the recorded values."""
    factor: str = ""
    """The numeric key over which the metric is drawn; empty for the first one."""
    cost: str = "parameters"
    unfinished: str = ""
    """`hidden` leaves the dashed curves of runs without a result out of the charts."""


class NotCompared(NamedTuple):
    """A run that is in no table and no test, and why."""

    name: str
    state: str
    reason: str
    """Why it is not compared, where the state does not say it; how far it is, where it trains."""

    @property
    def address(self) -> str:
        """The address of its page."""
        return address_of("/run", {"run": self.name})


@dataclass(frozen=True)
class OtherRuns:
    """The selected runs that are not compared."""

    listed: Sequence[NotCompared] = ()
    """All of them."""
    unfinished: Sequence[UnfinishedRun] = ()
    """Those without a result that have rows, which charts may draw."""

    @property
    def counts(self) -> str:
        """The number of runs by state, as in `2 running, 1 failed`."""
        counts = Counter(run.state for run in self.listed)
        return ", ".join(f"{counts[state]} {state}" for state in counts)

    @property
    def first(self) -> Sequence[NotCompared]:
        """The runs that the page names; the page of runs has the others."""
        return self.listed[:MOST_LISTED]


@dataclass(frozen=True)
class CompareChoices:
    """What the form of the page offers."""

    keys: Sequence[str]
    chosen_keys: Sequence[str]
    metrics: Sequence[str]
    baselines: Sequence[str]
    curves: Sequence[str]
    axes: Sequence[str]
    factors: Sequence[str]
    smoothings: Mapping[int, str]
    costs: Mapping[str, str]
    """The costs, and the titles of their axes."""


NO_OTHERS = OtherRuns()


def compare_page(
    report: Comparison | None,
    records: Mapping[str, Record],
    view: CompareView,
    keys: Sequence[str],
    served: ServedFrame,
    notice: str | None = None,
    others: OtherRuns = NO_OTHERS,
) -> str:
    """Return the page of a comparison; without one, its form and why there is none.

    `keys` are those in which the runs differ, and `others` are those that are not compared.
    """
    panels = report.panels if report else []
    sections = [
        replace(
            panel_section(panel),
            chart_groups=comparison_charts(panel, records, view, others.unfinished),
            parallel=_parallel(panel),
            runs=_run_by_arm_and_seed(panel),
        )
        for panel in panels
    ]
    return render_sections(
        "Compare",
        sections,
        report.notes if report else (),
        served=served,
        template="compare.html",
        notice=notice,
        view=view,
        choices=_choices(panels, records, view, keys),
        others=others,
        runs_address=address_of("/", {"where": view.where} if view.where else {}),
        num_compared=sum(len(group.runs) for panel in panels for group in panel.groups),
    )


def comparison_charts(
    panel: Panel,
    records: Mapping[str, Record],
    view: CompareView,
    unfinished: Sequence[UnfinishedRun] = (),
) -> list[ChartGroup]:
    """Return the charts of a panel under their headings; a heading without a chart is left out.

    Raises RequestError for what the address asks for and no chart has.
    """
    _check(view, panel)
    over = Over(view.x, view.log, view.log_y, view.smooth)
    if view.curve:
        split, _, column = view.curve.partition("/")
        names = [(split, column)]
    else:
        main = panel.metric.rpartition("/")[2]
        names = [
            (split, column) for split in TABLES[1:] for column in dict.fromkeys(("loss", main))
        ]
    dashed = [] if view.unfinished else [run for run in unfinished if belongs_to(run, panel)]
    curves = [
        learning_curve(
            *(panel, records, split, column),
            over=over,
            width="container",
            legend=False,
            unfinished=dashed,
        )
        for split, column in names
    ]
    groups = [
        ChartGroup("How sure is the difference", [*filter(None, [differences_chart(panel)])]),
        ChartGroup(LEARNING, [chart for chart in curves if chart is not None]),
        ChartGroup(
            "What made the difference",
            [*filter(None, [importance_chart(panel), factor_chart(panel, view.factor)])],
        ),
        ChartGroup("What it costs", [*filter(None, [tradeoff_chart(panel, view.cost)])]),
        ChartGroup("Where they succeed", [*evidence_curves(panel, legend=False).values()]),
    ]
    return [group for group in groups if group.charts]


def _check(view: CompareView, panel: Panel) -> None:
    """Raise RequestError for an axis, curve, key or cost that there is not."""
    split, _, column = view.curve.partition("/")
    curve_names = [f"{table}/" for table in TABLES]
    for name, value, expected in (
        ("x", view.x, list(AXES)),
        ("cost", view.cost, list(COSTS)),
        ("curve", f"{split}/" if column else view.curve, curve_names if view.curve else [""]),
        ("factor", view.factor, [*numeric_keys(panel), ""]),
        ("unfinished", view.unfinished, ["hidden", ""]),
    ):
        if value not in expected:
            raise RequestError(
                f"{name}={value}: expected one of {', '.join(filter(None, expected)) or 'none'}"
            )


def differences_chart(panel: Panel) -> Any:
    """Draw each arm's difference to the baseline; None without a baseline or a shared seed."""
    if panel.baseline is None:
        return None
    style_by_group = {
        id(group): style for group, style in zip(panel.groups, arm_styles(panel), strict=True)
    }
    rows = []
    for group, difference in panel.differences:
        if difference.mean is None:
            continue
        style = style_by_group[id(group)]
        rows.append(
            DifferenceRow(style.title, style.colour or GREY, *_difference_fields(difference))
        )
    if not rows:
        return None
    num_tests = sum(row.p is not None for row in rows)
    counts = sorted({row.n for row in rows})
    lines = [
        f"{panel.metric} minus that of {style_by_group[id(panel.baseline)].title}, paired by seed; "
        f"n = {' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))}",
        "line: 95 % t interval, not corrected"
        + (f"; p is Holm-corrected over {num_tests} arms" if num_tests > 1 else ""),
    ]
    return draw_differences(rows, "difference to the baseline", lines, width="container")


def importance_chart(panel: Panel) -> Any:
    """Draw how the variance of the main metric divides among the keys; None for one key alone."""
    found = importance(panel)
    if found is None:
        return None
    short_keys = shortest_endings([share.factor for share in found.shares])
    shares = [Share(short_keys[share.factor], share.share, True) for share in found.shares]
    if found.interactions is not None:
        shares.append(Share("interactions", found.interactions, False))
        division = "the bars sum to 1"
    else:
        division = "not every combination has equally many runs, so shares may overlap"
    shares.append(Share("seeds", found.seeds, False))
    return draw_importance(
        shares,
        f"what {panel.metric} depends on",
        [
            f"sum of squares between the values of a key, divided by the total; "
            f"n = {found.num_runs} runs",
            division,
        ],
        width="container",
    )


def factor_chart(panel: Panel, key: str) -> Any:
    """Draw the main metric over the values of a numeric key; None where no such key varies."""
    keys = numeric_keys(panel)
    if not keys:
        return None
    key = key if key in keys else DEPTH if DEPTH in keys else keys[0]
    bounds = panel.groups[0].bounds(panel.metric)
    arms = []
    for number, line in enumerate(factor_lines(panel, key)):
        intervals = [(x, group.over_seeds(panel.metric)) for x, group in line.groups]
        arms.append(
            ArmCurve(
                line.title,
                HIGHLIGHTS[number] if number < len(HIGHLIGHTS) else None,
                [
                    CurvePoint(x, i.n, i.mean, i.low, i.high)
                    for x, i in intervals
                    if i.mean is not None
                ],
                seeds=sorted({seed for _, group in line.groups for seed in group.seeds}),
            )
        )
    xs = [point.x for arm in arms for point in arm.points]
    return draw_curves(
        arms,
        f"{panel.metric} over {key}",
        describe_curves(arms, bounds, f"value of {shortest_endings([key])[key]}"),
        x=XAxis(key, log=min(xs) > 0 and max(xs) / min(xs) >= WIDE_RATIO),
        y=YAxis(panel.metric),
        width="container",
    )


def tradeoff_chart(panel: Panel, cost: str) -> Any:
    """Draw the main metric against a cost; None where runs did not measure it."""
    if cost not in COSTS or cost == panel.metric:
        return None
    points = []
    for group, style in zip(panel.groups, arm_styles(panel), strict=True):
        if any(getattr(run.result, cost) is None for run in group.runs):
            continue
        interval = group.over_seeds(panel.metric)
        if interval.mean is not None:
            points.append(
                TradeoffPoint(
                    style.title,
                    style.colour,
                    float(group.mean(cost)),
                    interval.n,
                    interval.mean,
                    interval.low,
                    interval.high,
                )
            )
    if len(points) < 2:
        return None
    method = describe_method(panel.groups[0].bounds(panel.metric))
    return draw_tradeoff(
        points,
        COSTS[cost],
        panel.metric,
        higher_is_better=panel.higher_is_better,
        caption=[f"mean over seeds; line: {method}", "dashed: no cheaper arm is better"],
        width="container",
    )


def _parallel(panel: Panel) -> Mapping[str, Any] | None:
    """Return what parallel coordinates of a panel's arms need; None for fewer than three arms."""
    if len(panel.groups) < FEWEST_PARALLEL:
        return None
    arms = [{"title": style.title, "colour": style.colour} for style in arm_styles(panel)]
    return {"axes": parallel_axes(panel, {"seconds": "seconds of training"}), "arms": arms}


def _run_by_arm_and_seed(panel: Panel) -> dict[str, dict[int, str]]:
    """Return the name of each run by its arm and seed; of several runs the first."""
    return {
        style.title: {run.result.seed: run.name for run in reversed(group.runs)}
        for group, style in zip(panel.groups, arm_styles(panel), strict=True)
    }


def _difference_fields(difference: Any) -> tuple[Any, ...]:
    return difference.n, difference.mean, difference.low, difference.high, difference.p


def _choices(
    panels: Sequence[Panel],
    records: Mapping[str, Record],
    view: CompareView,
    keys: Sequence[str],
) -> CompareChoices:
    """Return what the form offers for these panels."""
    groups = [group for panel in panels for group in panel.groups]
    metrics = dict.fromkeys(metric for group in groups for metric in group.metrics)
    first_runs = [panel.groups[0].runs[0].name for panel in panels]
    curves = dict.fromkeys(
        f"{table}/{column}"
        for name in first_runs
        for table in TABLES
        for column in records[name].rows(table).column_names
        if column != "step"
    )
    return CompareChoices(
        keys=keys,
        chosen_keys=view.by or keys,
        metrics=[*metrics, *COST_FIELDS],
        baselines=[BEST, *dict.fromkeys(group.label for group in groups)],
        curves=list(curves),
        axes=list(AXES),
        factors=list(dict.fromkeys(key for panel in panels for key in numeric_keys(panel))),
        smoothings={
            n: "none" if n == 1 else f"mean of {n} points"
            for n in sorted({*SMOOTHINGS, view.smooth})
        },
        costs=COSTS,
    )
