"""The vectors of a run's tokens: which are alike, where they lie, and the files they fill."""

import csv
import json

import numpy as np
import pytest
import torch

from attnlab.analysis.embedding_report import embedding_report
from attnlab.cli import main
from attnlab.errors import RequestError
from attnlab.figures.embedding_plane import FRAME, HEIGHT, WIDTH, draw_plane
from attnlab.interp.embeddings import Embeddings, principal_components
from attnlab.run_record import vectors as kept
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.record import Record
from tests.prose import refuses, says
from tests.refusals import refusals, refused

SQUARE = Embeddings(
    ["east", "north", "far east", "west", "north-east"],
    torch.tensor([[1.0, 0], [0, 2], [5, 0.5], [-3, 0], [2, 2]]),
)


def test_neighbours_point_the_same_way_whatever_their_length():
    found = SQUARE.neighbours("east", 3)
    assert [token for token, _ in found] == ["far east", "north-east", "north"]
    expected = [5 / 25.25**0.5, 0.5**0.5, 0]
    assert [cosine for _, cosine in found] == pytest.approx(expected, abs=1e-6)
    assert len(SQUARE.neighbours("west", 99)) == 4
    assert SQUARE.neighbours("west")[-1] == ("east", pytest.approx(-1))


def test_what_is_no_token_is_refused_with_near_ones():
    with refuses(RequestError, "commands.embed.near_token"):
        SQUARE.neighbours("nort")
    with refuses(RequestError, "commands.embed.no_near_token"):
        SQUARE.neighbours("zzz")
    with refuses(RequestError, "commands.embed.count"):
        SQUARE.neighbours("west", 0)


def test_components_are_eigenvectors_of_the_covariance():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(40, 6)) @ random.normal(size=(6, 6)) + 7
    places, shares = principal_components(torch.from_numpy(vectors))
    values, directions = np.linalg.eigh(np.cov(vectors.T))
    assert shares.tolist() == pytest.approx((values[::-1] / values.sum())[:2].tolist())
    for which in range(2):
        direction = directions[:, -1 - which]
        direction = direction * np.sign(direction[np.abs(direction).argmax()])
        expected = (vectors - vectors.mean(axis=0)) @ direction
        assert places[:, which].tolist() == pytest.approx(expected.tolist())


def test_what_has_no_plane_is_refused_and_one_point_has_no_variance():
    with refuses(ValueError, "commands.embed.no_plane"):
        principal_components(torch.ones(5, 1))
    same, none = principal_components(torch.ones(5, 3))
    assert not same.any()
    assert not none.any()


def test_a_run_gives_the_vectors_that_its_model_reads(offer):
    run = offer("objective=masked", "evidence=none")
    tokens, vectors = run.embeddings.tokens, run.embeddings.vectors
    assert tokens == [*run.dataset.tokens, "[MASK]"]
    embedded = run.model(torch.arange(9)[None])
    assert len(embedded) == 2
    assert torch.equal(vectors, run.model.get_parameter("embedding.weight"))


def drawn(count: int, spread: float = 1.0):
    random = np.random.default_rng(0)
    tokens = [f"token{n:03}"[: 4 + n % 5] + str(n) for n in range(count)]
    places = random.normal(size=(count, 2)) * [spread, 1]
    return tokens, places, draw_plane(tokens, places, [0.4, 0.25], "<run>")


def test_every_point_is_where_it_is_and_distances_can_be_compared():
    tokens, places, figure = drawn(30, spread=9.0)
    spec = figure.to_dict()
    data = spec["data"]["values"]
    assert [row["token"] for row in data] == tokens
    assert [row["x"] for row in data] == pytest.approx(places[:, 0], abs=1e-6)
    assert [row["y"] for row in data] == pytest.approx(places[:, 1], abs=1e-6)
    encoding = spec["layer"][0]["encoding"]
    spans = [np.diff(encoding[axis]["scale"]["domain"])[0] for axis in ("x", "y")]
    assert spans / FRAME == pytest.approx([spans[0] / FRAME[0]] * 2)
    titles = [encoding[axis]["title"] for axis in ("x", "y")]
    says("commands.embed.axes", ", ".join(titles))


@pytest.mark.parametrize("count", [12, 300])
def test_no_name_hides_another_or_a_point(count):
    tokens, _, figure = drawn(count)
    spec = figure.to_dict()
    data = spec["data"]["values"]
    scales = spec["layer"][0]["encoding"]
    low, high = (
        np.array([scales[axis]["scale"]["domain"][end] for axis in ("x", "y")]) for end in (0, 1)
    )

    def pixel(x: float, y: float) -> np.ndarray:
        share = (np.array([x, y]) - low) / (high - low)
        return share * FRAME * [1, -1] + [0, FRAME[1]]

    boxes, points = [], [pixel(row["x"], row["y"]) for row in data]
    for row in data:
        if "align" in row:
            x, y = pixel(row["name_x"], row["name_y"])
            width = WIDTH * len(row["token"])
            left = x - {"left": 0, "right": width, "center": width / 2}[row["align"]]
            boxes.append((left, y - HEIGHT / 2, left + width, y + HEIGHT / 2))
    for at, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0
        assert right <= FRAME[0]
        others = boxes[:at] + boxes[at + 1 :]
        assert not any(
            o[0] < right and left < o[2] and o[1] < bottom and top < o[3] for o in others
        )
        assert not any(left < x < right and top < y < bottom for x, y in points)
    named = [row["token"] for row in data if "align" in row]
    subtitle = spec["title"].get("subtitle")
    if count == 12:
        assert named == tokens
        assert not subtitle
    else:
        assert len(named) > 60
        says("commands.embed.names_left_out", subtitle, len(named), count)


def test_of_several_names_for_one_place_the_first_is_written():
    places = np.array([[0.0, 0.0]] * 9 + [[1.0, 1.0]])
    spec = draw_plane([f"the {n}th of many" for n in range(10)], places, [1.0, 0.0], "").to_dict()
    data = spec["data"]["values"]
    assert [at for at, row in enumerate(data) if "align" in row] == [0, 9]
    assert draw_plane(["alone"], places[:1], [0.0, 0.0], "").to_dict()["data"]["values"][0]["align"]


def test_the_table_names_the_most_frequent_tokens_and_fits_80_columns(offer, capsys):
    run = offer("dataset=pronoun")
    for words in ([], ["-k", "11"]):
        assert main(["embed", "untrained", *words]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        assert lines[3].split()[0] == "the"
    assert main(["embed", "untrained", "--neighbours", "street", "-k", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split()[0] for line in lines[3:]]
    assert shown == [token for token, _ in run.embeddings.neighbours("street", 4)]


def test_json_has_the_cosines(offer, capsys):
    run = offer("dataset=pronoun")
    assert main(["embed", "untrained", "--neighbours", "street", "--format", "json"]) == 0
    near = run.embeddings.neighbours("street", 10)
    assert json.loads(capsys.readouterr().out) == {
        "schema": 2,
        "run": "untrained",
        "step": 7,
        "neighbours": [
            {"token": "street", "near": [{"token": t, "cosine": c} for t, c in near]},
        ],
    }
    assert main(["embed", "untrained", "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [len(token["near"]) for token in printed["neighbours"]] == [3] * 12
    assert printed == embedding_report(run).to_json()


@pytest.fixture(scope="module")
def of_bytes(tmp_path_factory) -> tuple[str, ...]:
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text("to be,\tor not\u00a0to be?\n" * 60)
    return ("dataset=text", f"dataset.path={text}", "dataset.length=8", "evidence=none")


def test_control_characters_are_shown_and_found_by_what_is_shown(offer, of_bytes, capsys):
    offer(*of_bytes, "dataset/tokenizer=bytes")
    for name in ("\n", "\\n", "\u21b5"):
        assert main(["embed", "untrained", "--neighbours", name]) == 0
        says("commands.embed.printed_of_one", capsys.readouterr().out.splitlines()[2])
    assert main(["embed", "untrained", "--neighbours", "\\x00", "-k", "255"]) == 0
    shown = capsys.readouterr().out
    assert "\\x00" in shown.splitlines()[2]
    assert "\\x1b" in shown
    assert all(character.isprintable() for character in shown.replace("\n", ""))
    assert len(shown.splitlines()) == 3 + 255


@pytest.mark.parametrize("tokenizer", ["bytes", "characters"])
def test_exports_hold_every_token_and_vector(offer, of_bytes, tmp_path, capsys, tokenizer):
    run = offer(*of_bytes, f"dataset/tokenizer={tokenizer}")
    vectors = run.embeddings.vectors.detach().numpy()
    read = {}
    for ending, delimiter in ((".csv", ","), (".tsv", "\t"), (".npz", "")):
        path = tmp_path / f"vectors{ending}"
        assert main(["embed", "untrained", "--export", str(path)]) == 0
        assert capsys.readouterr().out == f"{path}\n"
        if delimiter:
            header, *rows = csv.reader(path.read_text().splitlines(), delimiter=delimiter)
            assert header == ["token", *map(str, range(16))]
            tokens, numbers = [r[0] for r in rows], [list(map(float, r[1:])) for r in rows]
        else:
            content = np.load(path)
            tokens, numbers = content["tokens"].tolist(), content["vectors"]
        assert np.array_equal(np.array(numbers, np.float32), vectors)
        read[ending] = tokens
    assert read[".csv"] == read[".tsv"] == read[".npz"]
    assert len(set(read[".csv"])) == len(run.dataset.tokens)
    assert {"\\n", "\\t", " ", "t"} <= set(read[".csv"])


@pytest.mark.parametrize("ending", ["html", "svg"])
def test_a_projection_is_written_beside_an_export(offer, tmp_path, capsys, ending):
    offer("dataset=pronoun")
    picture, table = tmp_path / f"plane.{ending}", tmp_path / "vectors.npz"
    words = ["--project", str(picture), "--export", str(table)]
    assert main(["embed", "untrained", *words]) == 0
    assert capsys.readouterr().out == f"{picture}\n{table}\n"
    content = picture.read_bytes()
    assert content.startswith({"html": b"<!DOCTYPE", "svg": b"<svg"}[ending])
    assert b"street" in content


@pytest.mark.parametrize("ending", ["html", "png"])
def test_the_course_of_recorded_vectors_is_drawn_and_told(offer, tmp_path, capsys, ending):
    run = offer("dataset=pronoun")
    last = run.embeddings.vectors[:30].detach().numpy()
    attempt = Attempt.claim(tmp_path / "run", {"seed": 0})
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0]
    other = np.random.default_rng(1).normal(size=last.shape)
    attempt.append(
        kept.TABLE, [kept.vectors_row(s, v) for s, v in ((0, other), (5, last @ turn), (7, last))]
    )
    attempt.close()
    object.__setattr__(run, "record", Record(tmp_path / "run"))
    picture = tmp_path / f"course.{ending}"
    assert main(["embed", "untrained", "--history", str(picture)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == str(picture)
    told = [line.split() for line in said if line.split()[0] in ("0", "5", "7")]
    assert [float(drift) for _, drift, _ in told][1:] == [0, 0]
    assert float(told[0][1]) > 0.2
    assert [float(lost) < 0.1 for _, _, lost in told] == [False, True, True]
    content = picture.read_bytes()
    assert content.startswith({"png": b"\x89PNG", "html": b"<!DOCTYPE"}[ending])


def test_what_cannot_be_embedded_is_refused(offer, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    run = offer("dataset=pronoun", "variant=lstm")
    wrong = {
        "token": ["--neighbours", "streat"],
        "k": ["-k", "0"],
        "project_ending": ["--project", "plane.gif"],
        "course_of_no_steps": ["--history", "c.png"],
        "export_ending": ["--export", "vectors"],
        "export_directory": ["--export", "nowhere/vectors.csv"],
        "export_and_json": ["--export", "v.csv", "--format", "json"],
    }
    requests = {name: ["embed", "untrained", *words] for name, words in wrong.items()}
    refusals(capsys, "commands.embed.{}", requests)
    table = run.model.get_submodule("embedding")
    table.weight = torch.nn.Parameter(table.weight[:, :1])  # pyright: ignore
    refused(capsys, "commands.embed.project_a_line", ["embed", "untrained", "--project", "p.svg"])
    assert not list(tmp_path.iterdir())
