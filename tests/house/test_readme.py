"""What the README prints is what happens."""

import re
import shlex
from argparse import ArgumentParser
from importlib import import_module
from pathlib import Path

from attnlab.cli import COMMANDS, main
from attnlab.config import sweep_overrides
from attnlab.run_record.record import find_runs, hash_in
from tests import child

TEXT = (Path(__file__).parents[2] / "README.md").read_text()
COMMAND_LINES = [
    line
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("attnlab ")
]


def test_the_readme_has_commands():
    assert len(COMMAND_LINES) >= 8


def test_every_command_of_the_readme_would_run(monkeypatch, once):
    monkeypatch.chdir(Path(__file__).parents[2])
    for line in COMMAND_LINES:
        _, command, *words = shlex.split(line, comments=True)
        assert command in COMMANDS
        parser = ArgumentParser()
        import_module(f"attnlab.commands.{command}").add_arguments(parser)
        parser.parse_intermixed_args(words)
        if command == "train" and "--config-dir" not in words:
            # Another seed is composed in no other way.
            for cell in sweep_overrides([word for word in words if "=" in word]):
                once(*(word for word in cell if not word.startswith("seed=")))


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    code = "\n".join(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
    words = ("dataset=pronoun", "model.num_layers=2", "model.d_model=64", "trainer.max_steps=2")
    assert (
        child.train(tmp_path, *words, "schedule.warmup_steps=1", "trainer.val_check_interval=2")
        == 0
    )
    # The tour's run has no fewer steps than usual, so its name does not say how many.
    (run,) = find_runs(tmp_path)
    run.path.rename(tmp_path / f"pronoun-multihead-2x64-s0-{hash_in(run.name)}")
    monkeypatch.setenv("ATTNLAB_RUNS", str(tmp_path))
    names: dict = {}
    exec(code, names)
    assert len(names["patterns"]) == 2
    assert names["batch"].inputs.shape == (8, 64)


def test_the_mistake_of_the_readme_gives_the_message_of_the_readme(capsys):
    command, message = re.findall(r"```console\n\$ attnlab (.*?)\n(.*?)```", TEXT, re.DOTALL)[0]
    assert main(shlex.split(command)) == 2
    assert capsys.readouterr().err == message
