"""Learning curves of many runs, from the rows that they recorded."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import reduce
from math import ceil, isfinite
from typing import Any, NamedTuple

import numpy as np

from attnlab.analysis.arms import group_by_value, suggest_key
from attnlab.analysis.compare import Group, Panel
from attnlab.analysis.emergence import step_of_half
from attnlab.analysis.findings import read_findings
from attnlab.analysis.statistics import ENOUGH_SEEDS, describe_method, estimate
from attnlab.analysis.unfinished import UnfinishedRun, find_group
from attnlab.errors import RequestError
from attnlab.figures.base import MOST_BANDS
from attnlab.figures.curves import ArmCurve, CurvePoint, RunCurve, XAxis, YAxis, draw_curves
from attnlab.report.arm_styles import ArmStyle, arm_styles
from attnlab.run_record.bounds import SHARE, Bounds
from attnlab.run_record.direction import lower_is_better
from attnlab.run_record.evidence_history import EvidenceHistory, load_evidence
from attnlab.run_record.record import Record
from attnlab.run_record.row_preview import TABLES, num_recorded_rows, preview_rows, preview_stride

SPLITS = ("validation", "test")
AXES = {
    "steps": "step",
    "tokens": "training tokens",
    "flops": "training FLOPs (three times those of a forward pass)",
    "seconds": "seconds of training, at the mean pace of the arm's runs",
}
"""What curves are drawn over, and the title of the axis."""


class Over(NamedTuple):
    """What curves are drawn over, and how."""

    axis: str = "steps"
    log: bool = False
    """Whether x is logarithmic."""
    log_y: bool = False
    smooth: int = 1
    """The number of points of the running mean; 1 for the values as they were recorded."""


MOST_POINTS = 300
"""The most points of an arm's curve, beside the last."""
MOST_RUN_POINTS, FEWEST_RUN_POINTS = 3000, 10
"""The most points of all dashed curves of a chart, and how many each of them has at least."""
MOST_SEED_POINTS, FEWEST_SEED_POINTS = 1200, 40
"""The most points of the curves of all seeds of an arm, and how many each of them has at least."""


class _Course(NamedTuple):
    """What a run recorded of one quantity, in the order of its steps."""

    steps: np.ndarray
    values: np.ndarray
    num_recorded: int
    """The number of recorded rows, of which a preview has some."""


class _DrawnArm(NamedTuple):
    """The curve of an arm, and what its caption must say of it."""

    curve: ArmCurve
    num_recorded: int
    """The number of steps that its runs recorded."""
    num_diverged: int = 0
    """The number of seeds with values that are no finite numbers."""


NO_COURSE = _Course(np.array([], int), np.array([]), 0)


def learning_curves(panel: Panel, records: Mapping[str, Record]) -> list[Any]:
    """Draw the loss and the main metric over steps, for each split with recorded rows.

    Where the evidence was measured in training, the heads that pictures open at follow.
    """
    columns = dict.fromkeys(("loss", _main_metric(panel)))
    findings = read_findings(panel.groups[0].runs[0].result)
    metrics = [(split, column) for split in SPLITS for column in columns]
    metrics += [
        (evidence, head)
        for evidence, finding in findings.items()
        for head in finding.presentation.opens_at
    ]
    charts = [
        learning_curve(panel, records, table, column, width="container", legend=False)
        for table, column in metrics
    ]
    return [chart for chart in charts if chart is not None]


def learning_curve(
    panel: Panel,
    records: Mapping[str, Record],
    split: str = "test",
    column: str | None = None,
    *,
    over: Over | None = None,
    width: int | str = 420,
    legend: bool = True,
    unfinished: Sequence[UnfinishedRun] = (),
) -> Any:
    """Draw one column (None: the main metric) of a split's rows; None where there are no rows.

    `split` may be an evidence, and `column` one of its numbers, or of its heads, whose weight is
    drawn; the caption then says since when it stays above half of its last value. What `unfinished`
    runs of the panel recorded of a split so far is dashed, and in no mean.

    Raises RequestError for seconds of runs whose record has those of the last attempt only, and for
    an even number of points of the running mean, which is centred.
    """
    column, over = column or _main_metric(panel), over or Over()
    if over.smooth < 1 or over.smooth % 2 == 0:
        raise RequestError(f"smooth={over.smooth}: expected an odd number of points; 1 is none")
    bounds, title, y_title = (
        panel.groups[0].bounds(f"{split}/{column}"),
        f"{split} {column}",
        column,
    )
    if _is_head(panel, records, split, column):
        bounds, title, y_title = SHARE, f"weight of the head that {split} names {column}", "weight"
    arms = [
        _arm_curve(group, style, records, split, column, bounds, over)
        for group, style in zip(panel.groups, arm_styles(panel), strict=True)
    ]
    drawn_arms = [arm.curve for arm in arms if arm.curve.points]
    if not drawn_arms:
        return None
    caption = describe_curves(drawn_arms, bounds, legend=legend, smooth=over.smooth)
    caption += _describe_left_out(arms, over.smooth)
    runs: list[RunCurve] = []
    if split in TABLES:
        runs = _run_curves(panel, unfinished, split, column, over)
        caption += _describe_runs(runs)
    else:
        caption += _describe_emergence(panel, records, split, column)
    return draw_curves(
        drawn_arms,
        title,
        caption,
        x=XAxis(AXES[over.axis], over.log),
        y=YAxis(y_title.replace("_", " "), over.log_y),
        width=width,
        legend=legend,
        runs=runs,
    )


def metric_curve(
    panel: Panel,
    records: Mapping[str, Record],
    metric: str | None,
    over: Over,
    *,
    width: int | str = 560,
    legend: bool = True,
) -> Any:
    """Draw a metric such as `validation/loss`, by default the main one on validation, for a file.

    Raises RequestError where no run recorded it, with the nearest one that runs recorded.
    """
    name = f"validation/{_main_metric(panel)}" if metric is None else metric
    split, _, column = name.partition("/")
    chart = (
        learning_curve(panel, records, split, column, over=over, width=width, legend=legend)
        if column
        else None
    )
    if chart is None:
        recorded_metrics = {
            f"{table}/{column_name}"
            for group in panel.groups
            for run in group.runs
            for table in TABLES
            for column_name in records[run.name].rows(table).column_names
            if column_name != "step"
        }
        recorded_metrics |= {
            f"{evidence}/{name}"
            for group in panel.groups
            for run in group.runs
            for evidence, history in load_evidence(records[run.name]).items()
            for name in (*history.scalars, *history.heads)
        }
        raise RequestError(
            f"no run on {panel.dataset} recorded {name!r} while it trained; "
            f"{suggest_key(name, recorded_metrics)}"
        )
    return chart


def describe_curves(
    arms: Sequence[ArmCurve],
    bounds: Bounds,
    point_name: str = "step",
    *,
    legend: bool = True,
    smooth: int = 1,
) -> list[str]:
    """Return the lines of a caption: how many seeds, what a band is, and what is grey."""
    coloured_arms = [arm for arm in arms if arm.colour is not None]
    smoothing = "unsmoothed" if smooth <= 1 else f"running mean of {smooth} points"
    lines = [f"mean at each {point_name}, {smoothing}; n = {_describe_seeds(arms)}"]
    if any(arm.seed_curves for arm in coloured_arms):
        lines[0] += "; thin: single seeds"
    arms_with_interval = [
        arm for arm in coloured_arms if any(point.low is not None for point in arm.points)
    ]
    if not arms_with_interval:
        lines.append(f"no interval: it needs {ENOUGH_SEEDS} seeds")
    elif len(coloured_arms) <= MOST_BANDS or not legend:
        band_name = "band" if len(coloured_arms) <= MOST_BANDS else "band of a chosen arm"
        lines.append(f"{band_name}: {describe_method(bounds)}")
    else:
        lines.append(f"no bands: more than {MOST_BANDS} would cover each other")
    if len(coloured_arms) < len(arms):
        lines.append(
            f"in colour: the best {len(coloured_arms)} of {len(arms)} arms by the main metric"
        )
    return lines


def _describe_left_out(arms: Sequence[_DrawnArm], smooth: int) -> list[str]:
    """Return lines on recorded values that are not drawn; none where all are."""
    num_drawn = max(len(arm.curve.points) for arm in arms)
    num_recorded = max(arm.num_recorded for arm in arms)
    num_diverged = sum(arm.num_diverged for arm in arms)
    lines = []
    if num_diverged:
        who = f"{num_diverged} seed{'s have' if num_diverged > 1 else ' has'}"
        lines.append(f"{who} values that are no finite numbers; there is no mean there")
    if num_drawn < num_recorded and not num_diverged:
        lines.append(f"drawn: {num_drawn:,} of {num_recorded:,} recorded steps, evenly spread")
    if smooth > 1 and preview_stride(num_recorded) > 1:
        lines.append(f"the running mean is over steps 1 in {preview_stride(num_recorded)}")
    return lines


def _describe_seeds(arms: Sequence[ArmCurve]) -> str:
    """Return how many seeds the arms have and, where all have the same, which."""
    counts = sorted({point.n for arm in arms for point in arm.points})
    if len(counts) == 1:
        seed_lists = {tuple(sorted(arm.seeds)) for arm in arms}
        plural = "s" if counts[0] > 1 else ""
        numbers = ", ".join(map(str, *seed_lists)) if len(seed_lists) == 1 else ""
        return f"{counts[0]} seed{plural}{f' ({numbers})' if numbers else ''}"
    fewest = [arm.title for arm in arms if any(point.n == counts[0] for point in arm.points)]
    named_arms = "; ".join(fewest) if len(fewest) <= 2 else f"{len(fewest)} arms"
    return f"{counts[0]} ({named_arms}) to {counts[-1]} seeds"


def _main_metric(panel: Panel) -> str:
    return panel.metric.rpartition("/")[2]


def _arm_curve(
    group: Group,
    style: ArmStyle,
    records: Mapping[str, Record],
    split: str,
    column: str,
    bounds: Bounds,
    over: Over,
) -> _DrawnArm:
    """Return the curve of a group at each step that all of its runs recorded.

    Other steps are left out, so that every mean is over the same runs; of many, every k-th and the
    last are drawn.
    """
    courses = {
        run.name: _read_course(records[run.name], split, column, over.smooth) for run in group.runs
    }
    if not all(len(course.steps) for course in courses.values()):
        return _DrawnArm(ArmCurve(style.title, style.colour, [], style.dash), 0)
    common_steps = reduce(np.intersect1d, [course.steps for course in courses.values()])
    runs_by_seed = group_by_value(group.runs, lambda run: run.result.seed)
    seed_values = [
        _smooth(_mean_course([courses[run.name] for run in seed_runs], common_steps), over.smooth)
        for seed_runs in runs_by_seed
    ]
    xs = common_steps * _x_per_step(group, over.axis)
    points = []
    for index in spread(len(xs), MOST_POINTS):
        n, mean, low, high = estimate([float(values[index]) for values in seed_values], bounds)
        if mean is not None:
            points.append(CurvePoint(float(xs[index]), n, mean, low, high))
    seed_curves = []
    if style.colour is not None and len(seed_values) > 1:
        kept = spread(len(xs), max(FEWEST_SEED_POINTS, MOST_SEED_POINTS // len(seed_values)))
        seed_curves = [
            [
                (x, value)
                for x, value in zip(xs[kept].tolist(), values[kept].tolist(), strict=True)
                if isfinite(value)
            ]
            for values in seed_values
        ]
    seeds = [seed_runs[0].result.seed for seed_runs in runs_by_seed]
    curve = ArmCurve(style.title, style.colour, points, style.dash, seed_curves, seeds)
    num_recorded = max(course.num_recorded for course in courses.values())
    return _DrawnArm(curve, num_recorded, sum(not np.isfinite(v).all() for v in seed_values))


def _run_curves(
    panel: Panel, unfinished: Sequence[UnfinishedRun], split: str, column: str, over: Over
) -> list[RunCurve]:
    """Return what each unfinished run recorded so far, in the colour of the arm that it is of.

    One of an arm without a finished run is drawn over steps only: what its steps cost is not known.
    """
    style_by_group = {
        id(group): style for group, style in zip(panel.groups, arm_styles(panel), strict=True)
    }
    most_points = max(FEWEST_RUN_POINTS, MOST_RUN_POINTS // max(1, len(unfinished)))
    curves = []
    for run in unfinished:
        course = _read_course(run.record, split, column, over.smooth)
        group = find_group(run, panel)
        if not len(course.steps) or (group is None and over.axis != "steps"):
            continue
        style = None if group is None else style_by_group[id(group)]
        xs = course.steps * (1.0 if group is None else _x_per_step(group, over.axis))
        values = _smooth(course.values, over.smooth)
        kept = [place for place in spread(len(xs), most_points) if isfinite(values[place])]
        curves.append(
            RunCurve(
                run.name,
                run.state,
                *((None, None) if style is None else (style.title, style.colour)),
                points=[(float(xs[place]), float(values[place])) for place in kept],
            )
        )
    return curves


def _describe_runs(runs: Sequence[RunCurve]) -> list[str]:
    """Return a line that says how many runs in which state are dashed; none without such runs."""
    if not runs:
        return []
    counts = Counter(run.state for run in runs)
    state_texts = [f"{counts[state]} {STATE_TEXTS.get(state, state)}" for state in counts]
    return [f"dashed: single runs that are in no mean; {', '.join(state_texts)}"]


STATE_TEXTS = {
    "running": "still training (○)",
    "failed": "failed (✚)",
    "interrupted": "interrupted (□)",
    "killed": "killed (◇)",
}
"""What a caption calls the runs in a state, with the mark at the end of their curves."""


def spread(num_places: int, most: int) -> list[int]:
    """Return every k-th place and the last, so that at most `most` and one are left."""
    stride = max(1, ceil(num_places / most))
    return [*range(0, num_places - 1, stride), num_places - 1] if num_places else []


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Return the running mean of a curve over a window around each point; 1 leaves it as it is.

    At the ends the window is cut, on both sides alike, so that the ends stay as they are.
    """
    if window <= 1:
        return values
    sums = np.concatenate(([0.0], np.cumsum(values)))
    places = np.arange(len(values))
    half = np.minimum(window // 2, np.minimum(places, len(values) - 1 - places))
    return (sums[places + half + 1] - sums[places - half]) / (2 * half + 1)


def _read_course(record: Record, table: str, column: str, smooth: int = 1) -> _Course:
    """Return what a run recorded of a split or an evidence; no step for nothing.

    What is smoothed are the rows of previews, so that a page, which has no others, and a command
    draw the same curve.
    """
    if table in TABLES:
        rows = record.rows(table) if smooth <= 1 else preview_rows(record.rows(table))
        if column not in rows.column_names:
            return NO_COURSE
        values = rows[column].to_numpy().astype(float)
        return _Course(rows["step"].to_numpy(), values, num_recorded_rows(rows))
    history = load_evidence(record).get(table, EvidenceHistory())
    value_by_step = history.scalars.get(column) or {
        step: at_step.weight for step, at_step in history.heads.get(column, {}).items()
    }
    steps = sorted(value_by_step)
    values = np.array([value_by_step[step] for step in steps], float)
    return _Course(np.array(steps, int), values, len(steps))


def _is_head(panel: Panel, records: Mapping[str, Record], evidence: str, name: str) -> bool:
    """Return whether an evidence names a head so, and has no number of that name."""
    if evidence in TABLES:
        return False
    histories = [
        load_evidence(records[run.name]).get(evidence, EvidenceHistory())
        for group in panel.groups
        for run in group.runs
    ]
    has_number = any(name in history.scalars for history in histories)
    return not has_number and any(name in history.heads for history in histories)


MOST_EMERGENCES = 4
"""The number of arms up to which a caption has room for the step since when of each."""


def _describe_emergence(
    panel: Panel, records: Mapping[str, Record], evidence: str, column: str
) -> list[str]:
    """Return lines on the step since when each arm's number stays above half of its last value."""
    result = panel.groups[0].runs[0].result
    if len(panel.groups) > MOST_EMERGENCES or lower_is_better(
        f"{evidence}/{column}", result.lower_is_better
    ):
        return []
    lines = []
    for group, style in zip(panel.groups, arm_styles(panel), strict=True):
        courses = [_read_course(records[run.name], evidence, column) for run in group.runs]
        steps = [
            step_of_half(dict(zip(course.steps.tolist(), course.values.tolist(), strict=True)))
            for course in courses
            if len(course.steps)
        ]
        if steps:
            step_text = ", ".join("-" if step is None else str(step) for step in steps)
            lines.append(f"{style.title}: above half of its last value since step {step_text}")
    return lines


def _mean_course(courses: Sequence[_Course], steps: np.ndarray) -> np.ndarray:
    """Return the mean over some runs at each of some steps, which all of them recorded."""
    values = [course.values[np.searchsorted(course.steps, steps)] for course in courses]
    return values[0] if len(values) == 1 else np.mean(values, axis=0)


def _x_per_step(group: Group, axis: str) -> float | int:
    """Return what one optimizer step counts on an axis."""
    if axis == "steps":
        return 1.0
    if axis == "seconds":
        partly_timed = [r.name for r in group.runs if not r.result.has_seconds_of_all_steps]
        if partly_timed:
            raise RequestError(
                f"--x seconds: {partly_timed[0]} was resumed by an attnlab that kept the seconds "
                "of the last attempt only; use steps, tokens or flops"
            )
        return group.mean("seconds") / group.mean("steps")
    tokens_per_step = group.mean("tokens") / group.mean("steps")
    if axis == "tokens":
        return tokens_per_step
    return 3 * tokens_per_step * group.mean("flops_per_token")
