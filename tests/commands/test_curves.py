"""`attnlab curves` draws what runs recorded while they trained, and says of what."""

import json
from pathlib import Path

import pytest

from attnlab.analysis.compare import compare
from attnlab.cli import main
from attnlab.commands.curves import AXES
from attnlab.figures.curves import ArmCurve, CurvePoint
from attnlab.layers import HeadRef
from attnlab.report import learning_curves
from attnlab.report.arm_styles import arm_styles
from attnlab.report.learning_curves import Over, metric_curve
from attnlab.run_record.bounds import SHARE
from attnlab.run_record.evidence_history import EvidenceHistory, HeadAtStep
from attnlab.run_record.record import Record
from tests.drawn import rows_by_layer
from tests.fabricated import result
from tests.pictured import pictured, sweep
from tests.refusals import refusals


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory) -> Path:
    """Two variants with three seeds each."""
    path = tmp_path_factory.mktemp("curves") / "runs"
    for place, variant in enumerate(("multihead", "lstm")):
        for seed in range(3):
            started = f"2026-11-23T00:00:{place}{seed}Z"
            pictured(path, variant, 2, seed, steps=(500,), started=started)
    return path


def opened(runs_dir: Path):
    records = {path.name: Record(path) for path in runs_dir.iterdir()}
    (panel,) = compare({name: record.result for name, record in records.items()})  # pyright: ignore
    return panel, records


@pytest.mark.parametrize(
    ("ending", "begins"), [("svg", b"<svg"), ("pdf", b"%PDF"), ("png", b"\x89PNG")]
)
def test_a_figure_is_a_file_of_the_kind_of_its_name(runs_dir, tmp_path, capsys, ending, begins):
    output = tmp_path / f"curves.{ending}"
    assert main(["curves", "--runs-dir", str(runs_dir), "-o", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    assert output.read_bytes().startswith(begins)


def test_the_figure_says_arms_seeds_and_method(runs_dir, tmp_path):
    output = tmp_path / "curves.svg"
    assert main(["curves", "--runs-dir", str(runs_dir), "-o", str(output)]) == 0
    text = output.read_text()
    seeds = "n = 3 seeds (0, 1, 2)"
    for words in ("pronoun: validation accuracy", seeds, "logit scale", "multihead", "lstm"):
        assert words in text
    assert ">accuracy</text>" in text


def test_evidence_that_was_measured_in_training_is_drawn_with_the_step_since_when(
    runs_dir, tmp_path, monkeypatch, capsys
):
    weights = {0: 0.1, 100: 0.3, 200: 0.2, 300: 0.8, 400: 0.6}
    heads = {step: HeadAtStep(HeadRef(1, 2), weight) for step, weight in weights.items()}
    history = EvidenceHistory({"twins": {0: 0.0, 400: 1.0}}, {"it": heads})
    monkeypatch.setattr(learning_curves, "load_evidence", lambda record: {"pronoun": history})
    panel, records = opened(runs_dir)
    chart = metric_curve(panel, records, "pronoun/it", Over()).to_dict()
    rows = rows_by_layer(chart)[-1]
    assert {row["x"]: row["mean"] for row in rows} == pytest.approx(weights)
    assert chart["title"]["text"] == "weight of the head that pronoun names it"
    assert "multihead: above half of its last value since step 300, 300, 300" in "\n".join(
        chart["title"]["subtitle"]
    )
    number = metric_curve(panel, records, "pronoun/twins", Over()).to_dict()
    assert number["title"]["text"] == "pronoun twins"
    # A page draws the heads that its pictures open at, and refuses none that is not there.
    titles = [c.title.text for c in learning_curves.learning_curves(panel, records)]
    assert titles[-1] == "weight of the head that pronoun names it"


def caption(*arms: tuple[str, list[int]]) -> list[str]:
    """Give the caption of arms with these seeds."""
    curves = []
    for title, seeds in arms:
        bounds = (0.4, 0.6) if len(seeds) > 2 else (None, None)
        curves.append(
            ArmCurve(title, "#000", [CurvePoint(1, len(seeds), 0.5, *bounds)], seeds=seeds)
        )
    return learning_curves.describe_curves(curves, SHARE)


def test_a_caption_says_which_seeds_how_many_and_what_a_band_is_or_why_there_is_none():
    band = "band: 95 % t-interval on the logit scale"
    assert caption(("a", [0, 1, 2]), ("b", [0, 1, 2])) == [
        "mean at each step, unsmoothed; n = 3 seeds (0, 1, 2)",
        band,
    ]
    assert caption(("a", [0, 1, 2]), ("b", [3, 4, 5])) == [
        "mean at each step, unsmoothed; n = 3 seeds",
        band,
    ]
    assert caption(("a", [0, 1, 2]), ("b", [0])) == [
        "mean at each step, unsmoothed; n = 1 (b) to 3 seeds",
        band,
    ]
    assert caption(("a", [7])) == [
        "mean at each step, unsmoothed; n = 1 seed (7)",
        "no interval: it needs 3 seeds",
    ]


def test_a_page_of_curves_has_a_legend_that_can_be_chosen(runs_dir, tmp_path):
    output = tmp_path / "curves.html"
    words = ["--metric", "validation/loss", "--x", "tokens", "--log-x"]
    assert main(["curves", "--runs-dir", str(runs_dir), *words, "-o", str(output)]) == 0
    text = output.read_text("utf-8")
    assert text.count('<button type="button" data-arm=') == 2
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    (chart,) = data["sections"][0]["charts"]
    assert chart["layer"][-1]["encoding"]["x"]["scale"]["type"] == "log"


@pytest.mark.parametrize("axis", AXES)
def test_x_is_the_step_in_the_unit_of_the_axis(runs_dir, axis):
    panel, records = opened(runs_dir)
    chart = metric_curve(panel, records, None, Over(axis)).to_dict()
    rows = rows_by_layer(chart)[-1]
    result = panel.groups[0].runs[0].result
    tokens = result.tokens / result.steps
    flops = 3 * tokens * result.flops_per_token
    unit = {"steps": 1, "tokens": tokens, "flops": flops, "seconds": result.seconds / result.steps}
    assert rows[0]["x"] == pytest.approx(50 * unit[axis])
    assert axis in learning_curves.AXES


@pytest.mark.parametrize(
    ("fields", "is_timed"),
    [
        ({}, True),
        ({"attempt": 2, "seconds_before": 1.0}, True),
        ({"attempt": 2, "seconds_before": 0.0}, True),
        ({"attempt": 2}, False),
        ({"knobs": {"parent": "shorter"}}, False),
        ({"knobs": {"parent": "shorter"}, "seconds_before": 1.0}, True),
    ],
)
def test_only_runs_whose_seconds_are_all_known_have_an_axis_of_seconds(fields, is_timed):
    assert result(**fields).has_seconds_of_all_steps is is_timed


def test_of_24_arms_the_best_8_have_colours_of_their_own(tmp_path):
    panel, _ = opened(sweep(tmp_path / "runs", seeds=1, steps=(500,)))
    styles = arm_styles(panel)
    means = [group.over_seeds(panel.metric).mean for group in panel.groups]
    in_colour = [style for style in styles if style.colour is not None]
    assert len(styles) == len({style.title for style in styles}) == 24
    assert len({style.colour for style in in_colour}) == 8
    best = sorted(zip(means, styles, strict=True), key=lambda pair: -(pair[0] or 0))[:8]
    assert {style for _, style in best} == set(in_colour)


def test_a_wrong_request_is_refused(runs_dir, tmp_path, capsys):
    at = ["curves", "--runs-dir", str(runs_dir), "-o"]
    good = [*at, str(tmp_path / "c.svg")]
    requests = {
        "ending": [*at, str(tmp_path / "c.doc")],
        "metric": [*good, "--metric", "validation/accurcy"],
        "table": [*good, "--metric", "accuracy"],
    }
    refusals(capsys, "commands.curves.{}", requests, tmp_path, runs_dir)
    assert not list(tmp_path.glob("c.*"))
