"""A shell completes the words of attnlab, quickly, and offers nothing that is refused."""

import os
import pty
import resource
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
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
def test_other_shells_get_a_script_that_asks_attnlab(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "_ARGCOMPLETE" in capsys.readouterr().out


@pytest.fixture
def shell_environment(tmp_path) -> dict[str, str]:
    """A home of its own with a run, and `attnlab` on the path."""
    (tmp_path / "a-run").mkdir()
    (tmp_path / "a-run/config.yaml").write_text("")
    program = tmp_path / "bin" / "attnlab"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m attnlab.cli "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    changed = {"PATH": path, "HOME": str(tmp_path), "ATTNLAB_RUNS": str(tmp_path), "TERM": "dumb"}
    return {**os.environ, **changed}


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish here")
@pytest.mark.parametrize("line", LINES)
def test_fish_completes_each_word(tmp_path, shell_environment, line):
    script = f"attnlab completion fish | source; complete -C {shlex.quote(line)}"
    words = ["fish", "--no-config", "-c", script]
    done = subprocess.run(
        words, env=shell_environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    # A word is whole here, and not broken at its `=` as in bash.
    answers = [answer.split("\t")[0] for answer in done.stdout.splitlines()]
    assert all(any(answer.endswith(word) for answer in answers) for word in LINES[line])


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh here")
def test_zsh_completes_each_word(tmp_path, shell_environment):
    """On a terminal of its own, since zsh completes nowhere else."""
    script = tmp_path / "completion.zsh"
    completion = subprocess.run(
        ["attnlab", "completion", "zsh"], env=shell_environment, capture_output=True, check=True
    )
    script.write_bytes(b"autoload -U compinit; compinit -u -D\n" + completion.stdout)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execvpe("zsh", ["zsh", "-f", "-i"], shell_environment)
    try:
        # The marks are written in two parts, so that the echo of a command is none.
        _answer_of_terminal(terminal, f"source {script}; PS1=; echo do''ne\n", "done")
        for line, expected_words in LINES.items():
            # Instead of being run, what TAB has made of the line is printed with its candidates.
            text = _answer_of_terminal(terminal, f"{line}\t\x01echo do''ne '\x05'\n", "done")
            assert any(word in text for word in expected_words), (line, text)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def _answer_of_terminal(terminal: int, typed: str, mark: str) -> str:
    """Type into a terminal, and return what it shows up to a mark."""
    os.write(terminal, typed.encode())
    text, until = "", time.monotonic() + 60
    while mark not in text:
        assert time.monotonic() < until, text
        if select.select([terminal], [], [], 1)[0]:
            text += os.read(terminal, 65536).decode(errors="replace")
    return text


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
