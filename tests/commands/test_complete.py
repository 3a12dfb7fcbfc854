"""A shell completes the words of attnlab, quickly, and offers nothing that is refused."""

import os
import resource
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from importlib import import_module

import pytest

from attnlab.cli import COMMANDS, main
from attnlab.commands.complete import (
    complete_overrides,
    complete_run_names,
    parser_for_completion,
)

ARGUMENTS = Namespace(overrides=[], config_dir=None, runs_dir=None)


def offered(prefix: str, *words: str) -> list[str]:
    return complete_overrides(prefix, Namespace(overrides=list(words), config_dir=None))


def options(parser: ArgumentParser) -> set[str]:
    actions = (a for a in parser._actions if a.help != "==SUPPRESS==")
    return {option for action in actions for option in action.option_strings}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_that_are_offered_are_those_of_the_command(command):
    """They are read from its source; here they are held against the parser itself."""
    real = ArgumentParser()
    import_module(f"attnlab.commands.{command}").add_arguments(real)
    (parsers,) = (a.choices for a in parser_for_completion(command, COMMANDS)._actions if a.choices)
    assert isinstance(parsers, Mapping)
    assert options(parsers[command]) == options(real) | {"--traceback"}


def test_groups_choices_and_keys_are_offered():
    assert offered("model/mix") == ["model/mixer="]
    assert offered("variant=mu") == [
        f"variant={name}" for name in ("lstm", "lstm_attention", "moe", "multihead", "vanilla")
    ]
    assert offered("model/mixer@model.b") == ["model/mixer@model.block.cross="]
    assert {"variant=", "seed=", "experiment="} <= {*offered("")}
    assert offered("optimizer.l") == ["optimizer.lr="]
    assert "dataset.num_pairs=" in offered("dataset.", "dataset=mqar")
    assert "dataset.num_pairs=" not in offered("dataset.", "dataset=parity")
    assert offered("rerun=") == ["rerun=false", "rerun=true"]
    assert "variant=lstm,moe" in offered("variant=lstm,")
    assert offered("+exp") == ["+experiment="]


def test_the_runs_of_the_directory_are_offered(tmp_path, monkeypatch):
    for name in ("b-run", "a-run", ".hidden", "bad\nname", "no-run"):
        (tmp_path / name).mkdir()
        if name != "no-run":
            (tmp_path / name / "config.yaml").write_text("")
    monkeypatch.setenv("ATTNLAB_RUNS", str(tmp_path))
    assert complete_run_names(ARGUMENTS) == ["a-run", "b-run"]
    assert complete_run_names(Namespace(runs_dir=str(tmp_path / "nowhere"))) == []


LINES = {
    "attnlab tr": {"train"},
    "attnlab train model/mix": {"model/mixer="},
    "attnlab train variant=mu": {"multihead"},
    "attnlab train -m variant=lstm,mu": {"lstm,multihead"},
    "attnlab train dataset=mqar dataset.num_p": {"dataset.num_pairs="},
    "attnlab train --dry": {"--dry-run"},
    "attnlab train --cfg jo": {"job"},
    "attnlab completion z": {"zsh"},
    "attnlab attend a-": {"a-run"},
    "attnlab help gen": {"generate"},
}


def test_bash_completes_each_word(tmp_path, capsys):
    (tmp_path / "a-run").mkdir()
    (tmp_path / "a-run/config.yaml").write_text("")
    assert main(["completion", "bash"]) == 0
    program = f"{shlex.quote(sys.executable)} -m attnlab.cli"
    script = [capsys.readouterr().out, f'attnlab() {{ {program} "$@"; }}']
    for line in LINES:
        script += [
            f"COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)} COMP_TYPE=9 COMPREPLY=()",
            "_python_argcomplete attnlab",
            'printf "%s\\n" "${COMPREPLY[*]}"',
        ]
    environment = {**os.environ, "ATTNLAB_RUNS": str(tmp_path)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    bash = ["bash", "--norc", "-c", "\n".join(script)]
    done = subprocess.run(bash, capture_output=True, text=True, env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    answers = dict(zip(LINES, done.stdout.splitlines(), strict=True))
    assert {line: {*answer.split()} for line, answer in answers.items()} == LINES
    # Of the processor, since others may use it too; a sixth of that is usual.
    assert after.ru_utime - before.ru_utime < 0.5 * len(LINES)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_the_script(shell, capsys, tmp_path):
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert "_ARGCOMPLETE" in text
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    (tmp_path / "script").write_text(text)
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_an_answer_imports_nothing_heavy():
    script = (
        "import sys; from attnlab.commands.complete import *; from argparse import Namespace; "
        "import argcomplete; parser_for_completion('attend', {'attend': ''}); "
        "complete_overrides('model.', Namespace(overrides=[])); "
        "heavy = {'torch', 'numpy', 'hydra', 'omegaconf', 'rich', 'pyarrow'}; "
        "sys.exit(' '.join(heavy & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
