"""The program works from a checkout's wheel, installed elsewhere."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from attnlab.config import conf_dir

ROOT = Path(__file__).parents[2]
TEXT = "The animal didn't cross the street because it was too wide."


RECIPE = {
    "seeds": 3,
    "common": ["dataset=text", "debug=tiny", "dataset.length=16", "trainer.threads=1"],
    "arms": {"lstm": ["variant=lstm", "trainer.max_steps=60"]},
    "metrics": ["test/loss"],
    "pictures": [],
    "curves": ["lstm"],
}
CLAIM = {
    "says": "It learns something",
    "theirs": "nothing",
    "source": "ours",
    "arms": ["lstm"],
    "measure": "test/loss",
    "at_most": 4.0,
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "-o", str(directory), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(directory.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_every_config_and_module(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"attnlab/conf/{p.relative_to(conf_dir())}" for p in conf_dir().rglob("*.yaml")}
    source = ROOT / "src"
    modules = {str(p.relative_to(source)) for p in source.rglob("*.py")}
    assets = {str(p.relative_to(source)) for p in source.rglob("assets/*")}
    recipes = {f"attnlab/{p.relative_to(ROOT)}" for p in ROOT.glob("experiments/*/*.yaml")}
    assert assets
    assert recipes
    assert configs | modules | assets | recipes <= names


@pytest.mark.slow
def test_an_installed_wheel_trains_compares_and_lists_without_the_checkout(wheel, tmp_path):
    # Its own package stands before the editable one, and the dependencies come from here.
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target"]
    subprocess.run([*install, str(site), str(wheel)], check=True)

    def attnlab(*words: str) -> str:
        script = (
            f"import sys; sys.path.insert(0, {str(site)!r}); import attnlab.cli as cli; "
            f"assert cli.__file__.startswith({str(site)!r}), cli.__file__; "
            "from attnlab.config import conf_dir; "
            f"assert str(conf_dir()).startswith({str(site)!r}), conf_dir(); "
            "sys.exit(cli.main(sys.argv[1:]))"
        )
        command = [sys.executable, "-c", script, *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    attnlab("train", "debug=tiny", "dataset.num_train=200", "trainer.threads=1")
    assert "multihead" in attnlab("list", "variant")
    assert "test/accuracy" in attnlab("compare")
    assert attnlab("report", "-o", "page.html").endswith("page.html\n")
    assert "<!doctype html>" in (tmp_path / "page.html").read_text()
    assert "pronoun, scale check" in attnlab("reproduce")
    assert "answer:" in attnlab("attend", "pronoun", TEXT)

    # Its recipes are those of the wheel; a short one of one's own reads a text by its path.
    text = f"dataset.path={ROOT / 'LICENSE'}"
    with pytest.raises(AssertionError, match="86c4e6aa"):
        attnlab("reproduce", "shakespeare", text)
    paper = tmp_path / "mine/license"
    paper.mkdir(parents=True)
    (paper / "check.yaml").write_text(yaml.safe_dump(RECIPE))
    (paper / "claims.yaml").write_text(yaml.safe_dump({"check": {"learns": CLAIM}}))
    (paper / "about.md").write_text("# `license`: a text of one's own")
    assert "holds" in attnlab("reproduce", "license", text, "--experiments", "mine", "-j", "1")
    assert "learns/lstm" in (paper / "README.md").read_text()
    run = sorted((tmp_path / "runs/reproduce/license-check").glob("text-lstm-*-s0-*"))[0]
    assert attnlab("generate", str(run), "--prompt", "The", "--tokens", "5").startswith("The")


def test_the_configs_are_those_of_the_checkout():
    assert conf_dir() == ROOT / "conf"
