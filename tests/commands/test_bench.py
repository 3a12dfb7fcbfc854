"""`attnlab bench`, from the words that are typed to the files that it writes."""

import errno
import json
from functools import partial
from typing import Any

import pytest
import torch
from PIL import Image

from attnlab import measure
from attnlab.analysis import cost_report
from attnlab.analysis.cost_arms import cost_arms
from attnlab.cli import main
from attnlab.commands.render.costs import TITLES
from attnlab.figures import base, scaling
from attnlab.mixer.multihead import MultiHead
from attnlab.run_record import write
from tests.refusals import refusals, refused

SMALL = (
    *("model.d_model=16", "model.num_layers=1", "trainer.threads=1", "trainer.accelerator=cpu"),
    *("--lengths", "8", "4", "--tokens", "16", "--rounds", "2"),
)
ARMS = "model/mixer=multihead,min_lstm"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Any clock will do for what is tested here."""
    monkeypatch.setattr(measure, "take_turns", partial(measure.take_turns, least_seconds=0.0))


def bench(*words: str) -> int:
    return main(["bench", *words])


def test_the_files_are_of_the_documented_form_and_the_table_fits_80_columns(tmp_path, capsys):
    place = tmp_path / "a" / "b"
    assert bench(ARMS, *SMALL, "-o", str(place)) == 0
    printed = capsys.readouterr().out
    assert {path.name for path in place.iterdir()} == {"bench.json", "bench.svg", "bench.png"}
    assert "min_lstm" in (place / "bench.svg").read_text()
    with Image.open(place / "bench.png") as image:
        assert image.width > image.height > 400
    shown: dict[str, Any] = json.loads((place / "bench.json").read_text())
    assert set(shown) == {
        *("schema", "date", "machine", "least_seconds", "tokens", "rounds", "arms"),
    }
    assert shown["schema"] == 2
    assert set(shown["machine"]) == {"device", "threads", "torch", "matmul_precision"}
    assert shown["machine"]["torch"] == torch.__version__
    assert shown["machine"]["threads"] == 1
    assert [arm["name"] for arm in shown["arms"]] == ["multihead", "min_lstm"]
    for arm in shown["arms"]:
        assert set(arm) == {
            *("name", "overrides", "precision", "parameters", "active_parameters", "modes")
        }
        assert arm["overrides"][0] == f"model/mixer={arm['name']}"
        assert list(arm["modes"]) == ["forward", "backward", "decode"]
        for mode, found in arm["modes"].items():
            assert set(found["exponents"]) == {"time", "memory", "flops"}
            assert [row["length"] for row in found["lengths"]] == [4, 8]
            assert [row["batch"] for row in found["lengths"]] == (
                [1, 1] if mode == "decode" else [4, 2]
            )
            for row in found["lengths"]:
                assert set(row) == {
                    *("length", "batch", "seconds", "low", "high", "rounds"),
                    *("tokens_per_second", "peak_bytes", "flops", "state_size"),
                }
                assert row["low"] <= row["seconds"] <= row["high"]
                read = row["batch"] * (1 if mode == "decode" else row["length"])
                assert row["tokens_per_second"] == pytest.approx(read / row["seconds"])
                assert len(row["rounds"]) == 2
    # The table has every arm, length and mode, and the place is the last line.
    assert printed.splitlines()[-1] == str(place)
    table = printed.rpartition("\n" + str(place))[0]
    assert max(map(len, table.splitlines())) <= 80
    for mode in ("forward", "backward", "decode"):
        part = table[table.index(f"{mode}: ") :].split("\n\n")[0]
        for arm in ("multihead", "min_lstm"):
            rows = part[part.index(arm) :].splitlines()[:3]
            assert rows[0].split()[1] == "4"
            assert [row.split()[0] for row in rows[1:]] == ["8", "power"]


def test_a_long_name_is_folded_no_number_is_cut_and_old_files_are_replaced(tmp_path, capsys):
    (tmp_path / "bench.json").write_text("old")
    words = ("model/mixer=selective_state_space", *SMALL, "--modes", "decode")
    assert bench(*words, "-o", str(tmp_path)) == 0
    *lines, path = capsys.readouterr().out.splitlines()
    assert path == str(tmp_path)
    assert json.loads((tmp_path / "bench.json").read_text())["arms"]
    shown = "\n".join(lines)
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    (row,) = (line.split() for line in shown.splitlines() if line.split()[:1] == ["8"])
    # Length, time, its spread, tokens, memory, FLOPs and state, some with a unit.
    assert len(row) >= 7


def test_precision_may_differ_between_arms_and_json_is_that_of_the_file(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(base, "render_svg", lambda _: "")
    monkeypatch.setattr(base, "render_png", lambda _: b"")
    words = ("trainer.precision=64-true,bf16-mixed", *SMALL, "--modes", "backward")
    assert bench(*words, "--format", "json", "-o", str(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "bench.json").read_text() == printed
    double, mixed = json.loads(printed)["arms"]
    assert (double["precision"], mixed["precision"]) == ("64-true", "bf16-mixed")
    double_bytes, mixed_bytes = (
        arm["modes"]["backward"]["lengths"][0]["peak_bytes"] for arm in (double, mixed)
    )
    assert double_bytes > 1.5 * mixed_bytes


def test_json_is_the_report_of_python_but_for_the_times(capsys):
    words = SMALL[: SMALL.index("--lengths")]
    assert bench(ARMS, *SMALL, "--modes", "forward", "--format", "json") == 0
    printed = json.loads(capsys.readouterr().out)
    arms = cost_arms([ARMS, *words], longest=8, modes=["forward"])
    name = printed["machine"]["device"]
    report = cost_report.cost_report(
        arms, [8, 4], ["forward"], tokens=16, rounds=2, device_name=name
    ).to_json()
    assert without_times(report) == without_times(printed)


def without_times(answer: Any) -> Any:
    """Leave out what another measurement makes another."""
    if isinstance(answer, dict):
        timed = ("date", "seconds", "low", "high", "rounds", "tokens_per_second", "time")
        return {name: without_times(part) for name, part in answer.items() if name not in timed}
    return [without_times(part) for part in answer] if isinstance(answer, list) else answer


def test_a_wrong_request_is_refused_and_measures_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cost_report, "measure", None)
    wrong = {
        "lengths": ["--lengths", "8", "1"],
        "rounds": ["--rounds", "0"],
        "tokens": ["--tokens", "0"],
        "choice": ["model/mixer=multihaed,lstm"],
        "heads": ["model.mixer.num_heads=3,5"],
        "match": ["match=parameters"],
        "same_arms": ["seed=0,1"],
        "threads": ["trainer.threads=1,2"],
        "config_dir": ["--config-dir", "nowhere"],
    }
    out = ("-o", str(tmp_path / "out"))
    requests = {name: ["bench", *words, *out] for name, words in wrong.items()}
    (tmp_path / "file").write_text("mine")
    requests["output_file"] = ["bench", "-o", str(tmp_path / "file" / "out")]
    refusals(capsys, "commands.bench.{}", requests, tmp_path)

    def denied(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("attnlab.places.tempfile.TemporaryFile", denied)
    refused(capsys, "commands.bench.output_denied", ["bench", *out], tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_step_is_refused_where_decoding_is_asked_for(capsys, monkeypatch):
    monkeypatch.setattr(MultiHead, "state_size", lambda self, length: None)
    refused(capsys, "commands.bench.no_step", ["bench", ARMS, *SMALL])
    assert bench(ARMS, *SMALL, "--modes", "forward", "--format", "json") == 0
    first, second = json.loads(capsys.readouterr().out)["arms"]
    assert first["modes"]["forward"]["lengths"][0]["state_size"] is None
    assert second["modes"]["forward"]["lengths"][0]["state_size"] == 16


def test_an_interrupted_bench_exits_130_and_leaves_what_was_measured_whole(tmp_path, monkeypatch):
    out = tmp_path / "out"

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(measure.Reader, "flops", interrupt)
        assert bench(*SMALL, "--modes", "forward", "-o", str(out)) == 130
    assert not out.exists()
    monkeypatch.setattr(base, "render_png", interrupt)
    assert bench(*SMALL, "--modes", "forward", "-o", str(out)) == 130
    assert json.loads((out / "bench.json").read_text())["arms"]
    assert {path.name for path in out.iterdir()} <= {"bench.json", "bench.svg"}


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTNLAB_FAULT", "file.write:full:1")
    write._pass_counts.clear()
    assert bench(*SMALL, "--modes", "forward", "-o", str(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


def point(length: int, value: float) -> scaling.ScalingPoint:
    return scaling.ScalingPoint(length, value, 0.9 * value, 1.1 * value)


def test_a_figure_has_every_point_and_its_legend_follows_the_lines():
    lines = [
        scaling.ScalingLine("flat", "0.00 ± .01", [point(n, 5.0) for n in (8, 16, 32)]),
        scaling.ScalingLine("steep", "2.00 ± .01", [point(n, n**2 / 100) for n in (8, 16, 32)]),
        scaling.ScalingLine("lost", "", []),
    ]
    panels = [
        scaling.ScalingPanel("Forward", "ms", lines),
        scaling.ScalingPanel("Decode", "ms", lines[:1]),
    ]
    spec = scaling.draw_scaling(panels).to_dict()
    first, second = spec["concat"]
    drawn = spec["datasets"][first["data"]["name"]]
    assert [(row["length"], row["value"]) for row in drawn] == [
        *((8, 0.64), (16, 2.56), (32, 10.24), (8, 5), (16, 5), (32, 5)),
    ]
    colour = first["layer"][1]["encoding"]["color"]["scale"]
    assert colour["domain"] == ["2.00 ± .01\N{EN SPACE}steep", "0.00 ± .01\N{EN SPACE}flat"]
    assert colour["range"] == [base.VARIANTS[1], base.VARIANTS[0]]
    assert second["layer"][1]["encoding"]["color"]["scale"]["range"] == [base.VARIANTS[0]]
    assert base.render_png(scaling.draw_scaling(panels), pixels_per_unit=1).startswith(b"\x89PNG")


@pytest.mark.parametrize("values", [[3.3], [3.3, 3.4], [1e-4, 1e4], [2.0, 50.0]])
def test_an_axis_is_wider_than_noise_and_has_a_few_round_ticks(values):
    lowest, highest = scaling._axis_ends(values)
    assert lowest < min(values) <= max(values) < highest
    assert highest / lowest >= scaling.LEAST_RANGE
    ticks = scaling._ticks(lowest, highest)
    assert 2 <= len(ticks) <= 9
    assert all(lowest <= tick <= highest for tick in ticks)
    assert all(float(f"{tick:.2g}") == tick for tick in ticks)


def test_the_commands_modes_are_those_that_are_measured():
    assert list(TITLES) == list(measure.MODES)


def test_every_precision_of_the_trainer_can_be_measured():
    from attnlab.precision import TYPES
    from attnlab.training import CHOICES

    assert set(TYPES) == set(CHOICES["precision"])
