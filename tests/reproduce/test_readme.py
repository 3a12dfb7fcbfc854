"""A paper's README says what was claimed, what came out, and who made it where."""

from attnlab.reproduce import readme
from tests.prose import says
from tests.reproduce.recipes import accuracies, claim, folder, read, results


def test_the_readme_shows_verdicts_provenance_arms_and_curves(tmp_path):
    slow = claim("steps until test.accuracy >= 0.9", ["b"], minus="a", at_least=0)
    path = folder(tmp_path, {"high": claim(at_least=0.5), "slow": slow})
    (path / "figures").mkdir()
    (path / "figures/check-curves.png").touch()
    tiny = read(tmp_path)
    runs = {"a": accuracies(0.5, 0.6, 0.7), "b": accuracies(0.5, 0.6, 0.7)}
    for arm, values in (("a", [0.5, 0.95]), ("b", [0.2, 0.4])):
        for measured in runs[arm]:
            measured["tables"] = {"test": {"step": [25, 50], "accuracy": values}}
    text = readme.text({"check": tiny}, {"check": results(tiny, runs)}, path)
    lines = text.splitlines()
    assert lines[0] == "# tiny"
    assert "6 runs of 2026-01-01, with python 3.11 and torch 2.13." in lines
    # 0.6 and the t quantile 4.3027 times .1 / sqrt(3).
    heads = "| claim | theirs | tolerance | ours | seeds | commit | hardware | verdict |"
    assert lines[lines.index(heads) + 2] == (
        "| high/a: `test/accuracy` | they say | >= .5 | .60 [.35, .85] | 0-2 | 0123456789 "
        "| x86_64 cpu, 1 thread | holds |"
    )
    (late,) = (line for line in lines if line.startswith("| slow/b"))
    assert "450 [450, 450]" in late
    says("reproduce.readme.note", late.rpartition("holds ")[2])
    assert "| a | `variant=vanilla` | 1,000 | test/accuracy .60 [.35, .85] | 1 |" in lines
    assert lines[lines.index("| step | a | b |") + 2 :][:2] == [
        "| 25 | .5000 [.5000, .5000] | .2000 [.2000, .2000] |",
        "| 50 | .9500 [.9500, .9500] | .4000 [.4000, .4000] |",
    ]


def test_seeds_are_written_short():
    written = [readme.spans(seeds) for seeds in ([], [3], [0, 1], [0, 1, 2], [0, 2, 3, 4, 7, 8])]
    assert written == ["-", "3", "0, 1", "0-2", "0, 2-4, 7, 8"]


def test_each_recipe_has_its_own_heading_command_and_figures(tmp_path):
    claims = {"high": claim(at_least=0.5)}
    path = folder(tmp_path, claims)
    folder(tmp_path, claims, scale="arms", title="The arms")
    (path / "figures").mkdir()
    for scale in ("check", "arms"):
        (path / f"figures/{scale}-curves.png").touch()
    found = {scale: read(tmp_path, scale) for scale in ("check", "arms")}
    kept = {"check": None, "arms": results(found["arms"], {"a": accuracies(0.6, 0.7)})}
    lines = readme.text(found, kept, path).splitlines()
    check, arms = lines.index("## The check: on a CPU"), lines.index("## The arms")
    for at, command in ((check, "reproduce tiny"), (arms, "reproduce tiny --scale arms")):
        assert lines[at + 3] == f"attnlab {command}"
    unrun, seen = (n for n, line in enumerate(lines) if line.startswith("| high/a"))
    assert lines[unrun].endswith("| - | - | - | - | not_run |")
    assert "| 0, 1 (2 of 3) | 0123456789 | x86_64 cpu, 1 thread | not_run |" in lines[seen]
    first, second = (n for n, line in enumerate(lines) if line.startswith("![Learning"))
    assert "(figures/check-curves.png)" in lines[first]
    assert "(figures/arms-curves.png)" in lines[second]
    assert check < unrun < first < arms < seen < second
