"""What the README prints is what happens."""

import re
import shlex
import shutil
import sys
from argparse import ArgumentParser
from importlib import import_module
from pathlib import Path

import pytest

from attnlab.cli import COMMANDS, main
from attnlab.config import conf_dir, sweep_overrides
from attnlab.errors import ConfigError
from attnlab.run_record.record import find_runs, hash_in_name
from docs import tour
from tests import child

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
COMMANDS_PAGE = (ROOT / "docs/commands.md").read_text()
COMMAND_LINES = [
    line
    for block in re.findall(r"```sh\n(.*?)```", TEXT + COMMANDS_PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("attnlab ")
]


def test_the_readme_has_commands():
    assert len(COMMAND_LINES) >= 8


def test_every_command_of_the_readme_would_run(monkeypatch, once):
    monkeypatch.chdir(ROOT)
    for line in COMMAND_LINES:
        _, command, *words = shlex.split(line, comments=True)
        assert command in COMMANDS
        parser = ArgumentParser()
        import_module(f"attnlab.commands.{command}").add_arguments(parser)
        parser.parse_intermixed_args(words)
        if command == "train" and "--config-dir" not in words:
            # Another seed is composed in no other way.
            for cell in sweep_overrides([word for word in words if "=" in word]):
                try:
                    once(*(word for word in cell if not word.startswith("seed=")))
                except ConfigError as error:
                    if not (error.is_impossible and "skip_impossible=true" in words):
                        raise


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    code = "\n".join(re.findall(r"```python\n(.*?)```", TEXT + COMMANDS_PAGE, re.DOTALL))
    words = ("dataset=pronoun", "model.num_layers=2", "model.d_model=64", "trainer.max_steps=2")
    assert (
        child.train(tmp_path, *words, "schedule.warmup_steps=1", "trainer.val_check_interval=2")
        == 0
    )
    # The tour's run has no fewer steps than usual, so its name does not say how many.
    (run,) = find_runs(tmp_path)
    run.path.rename(tmp_path / f"pronoun-multihead-2x64-s0-{hash_in_name(run.name)}")
    monkeypatch.setenv("ATTNLAB_RUNS", str(tmp_path))
    names: dict = {}
    exec(code, names)
    assert len(names["patterns"]) == 2
    assert names["batch"].inputs.shape == (8, 64)


def test_the_mistake_of_the_readme_gives_the_message_of_the_readme(capsys):
    command, message = re.findall(r"```console\n\$ attnlab (.*?)\n(.*?)```", TEXT, re.DOTALL)[0]
    assert main(shlex.split(command)) == 2
    assert capsys.readouterr().err == message


@pytest.fixture
def few_steps(tmp_path, monkeypatch):
    """Make every choice of conf/ train four steps; what is printed needs no other words for it."""
    small = tmp_path / "conf"
    shutil.copytree(conf_dir(), small)
    for path in small.rglob("*.yaml"):
        text = re.sub(r"\bmax_steps: \d+", "max_steps: 4", path.read_text())
        path.write_text(re.sub(r"\b(val_check_interval|warmup_steps): \d+", r"\1: 2", text))
    for command in COMMANDS:
        import_module(f"attnlab.commands.{command}")
    for module in list(sys.modules.values()):
        if getattr(module, "conf_dir", None) is conf_dir:
            monkeypatch.setattr(module, "conf_dir", lambda: small)


@pytest.mark.slow
def test_the_tour_works_in_its_order_after_the_demo(few_steps, tmp_path, monkeypatch, capsys):
    place = tmp_path / "clone"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.delenv("ATTNLAB_RUNS", raising=False)
    assert main(tour.demo_words((ROOT / "Makefile").read_text())) == 0
    lines = tour.tour_lines(TEXT)
    assert len(lines) > 20
    for line in lines:
        assert main(shlex.split(line, comments=True)[1:]) == 0, (line, capsys.readouterr())
    for name in ("report.html", "curves.svg", "it.pdf"):
        assert (place / name).stat().st_size > 1000
    # What the demo trained is what the tour looks at.
    assert {record.annotations.sweeps for record in find_runs(place / "runs")} == {
        ("demo",),
        ("recall",),
    }
