"""The house stays in order: imports point down, files stay short, constructors have few knobs."""

import ast
import inspect
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import is_typeddict

import yaml

from attnlab.cli import COMMANDS
from attnlab.run_record.result import AttemptProvenance
from tests import fabricated

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/attnlab"
FILES = sorted(p for p in SOURCE.rglob("*.py") if p.stat().st_size)

# From the bottom up; a module may import what stands before its own line, and a folder's `base`;
# a command also what renders its answers.
LAYERS = [
    {"errors", "interruption", "layers", "printable", "padding", "ranges", "tap"},
    {"choices", "console", "environment", "places", "precision", "process_state"},
    {"position", "recurrence", "attend"},
    {"mixer", "ffn"},
    {"model"},
    {"init"},
    {"split", "draw", "tokenizer"},
    {"corpus"},
    {"dataset", "metric", "run_record", "logger", "figures"},
    {"objective", "optimizer", "schedule"},
    {"building"},
    {"interp", "generate", "matching", "measure", "signatures"},
    {"evaluation"},
    {"evidence"},
    {"training"},
    {"callbacks"},
    {"config"},
    {"experiment"},
    {"fit"},
    {"loaded_run"},
    {"analysis"},
    {"report"},
    {"launch"},
    {"reproduce", "api"},
    {"dashboard"},
    {"commands"},
    {"cli"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
# One component in several files; the others are made of parts that do not know each other.
WHOLE = {
    *("corpus", "run_record", "launch", "reproduce", "callbacks", "model", "interp", "evaluation"),
    *("analysis", "report", "config", "dashboard"),
}
# Folders of tests that no room of src answers to.
BESIDES = {"bench", "house", "records"}
LIBRARIES = {
    "pytorch_lightning": {"training", "callbacks", "fit", "logger"},
    "lightning_fabric": {"fit"},
    "hydra": {"config"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def test_imports_point_down():
    offenders = []
    for path in FILES:
        here = room(path)
        if here in ("__init__", "__main__"):
            continue
        for name in sorted(imports(path)):
            parts = name.split(".")
            if parts[0] in LIBRARIES and here not in LIBRARIES[parts[0]]:
                offenders.append(f"{path.relative_to(SOURCE)} imports {name}")
            if parts[0] != "attnlab" or len(parts) == 1:
                continue
            if parts[1] != here:
                allowed = RANK[parts[1]] < RANK[here]
            else:
                # A part may be a folder, whose own files are one component.
                own = path.relative_to(SOURCE).parts[1]
                allowed = here in WHOLE or parts[2] in (
                    "base",
                    "options",
                    "overrides",
                    "render",
                    own,
                )
            if not allowed:
                offenders.append(f"{path.relative_to(SOURCE)} imports {name}")
    assert offenders == []


def test_models_know_torch_einops_and_jaxtyping_only():
    allowed = set(sys.stdlib_module_names) | {"torch", "einops", "jaxtyping", "attnlab"}
    offenders = [
        f"{path.relative_to(SOURCE)} imports {name}"
        for path in FILES
        if room(path) in ("position", "recurrence", "mixer", "ffn", "model")
        for name in imports(path)
        if name.split(".")[0] not in allowed
    ]
    assert offenders == []


def test_what_is_printed_goes_through_one_function():
    """Whatever is foreign in it then cannot reach a terminal as it is."""
    offenders = []
    for path in FILES:
        here = path.relative_to(SOURCE)
        calls = (n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call))
        prints = any(isinstance(called, ast.Name) and called.id == "print" for called in calls)
        if prints and here.name != "printable.py":
            offenders.append(f"{here} calls print; use attnlab.printable.say")
        if "rich.console" in imports(path) and here.name != "console.py":
            offenders.append(f"{here} imports rich.console; use attnlab.console")
    assert offenders == []


def test_a_command_is_short_and_its_arguments_go_nowhere_else():
    """It parses, asks the analysis and renders; what is asked is plain values."""
    folder = SOURCE / "commands"
    lengths = {path: len(path.read_text().splitlines()) for path in folder.rglob("*.py")}
    long = {
        str(path.relative_to(folder)): lines
        for path, lines in lengths.items()
        if lines > (300 if path.parent.name == "render" else 150)
    }
    offenders = []
    for path in FILES:
        if path.parent == folder and path.stem in COMMANDS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                continue
            name = f"{path.relative_to(SOURCE)}: {getattr(node, 'name', 'lambda')}"
            parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            annotations = [ast.unparse(p.annotation) for p in parameters if p.annotation]
            if any(re.search(r"\bNamespace\b", a) for a in annotations):
                offenders.append(name)
    assert (long, offenders) == ({}, [])


def test_a_path_of_a_module_is_cut_in_two_places_only():
    """The model says what its layers are; records of 0.1 are inferred from what rows are called."""
    cuts = re.compile(
        r"\b(path|source)\.(r?split\(\"\.\"|r?partition\(\"\.\"|removesuffix\()"
        r"|\.endswith\(\"\.(pattern|mixing)"
    )
    allowed = {"model/base.py", "run_record/layers.py"}
    offenders = [
        f"{path.relative_to(SOURCE)}: {line.strip()}"
        for path in FILES
        if str(path.relative_to(SOURCE)) not in allowed
        for line in path.read_text().splitlines()
        if cuts.search(line)
    ]
    assert offenders == []


def test_no_file_is_longer_than_600_lines():
    python = [p for folder in ("src", "tests", "bench") for p in (ROOT / folder).rglob("*.py")]
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in python}
    assert {name: lines for name, lines in lengths.items() if lines > 600} == {}


def test_no_constructor_has_more_than_eight_knobs():
    knobs = {}
    for path in FILES:
        name = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
        for _, kind in inspect.getmembers(import_module(name), inspect.isclass):
            makes_something = not issubclass(kind, BaseException) and not is_typeddict(kind)
            # What run.json holds are facts, of which nobody sets one.
            makes_something = makes_something and not issubclass(kind, AttemptProvenance)
            if kind.__module__ == name and makes_something:
                parameters = inspect.signature(kind).parameters.values()
                keywords = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
                knobs[f"{name}.{kind.__name__}"] = len(keywords)
    assert len(knobs) > 20
    assert {name: count for name, count in knobs.items() if count > 8} == {}


def test_tests_mirror_the_source():
    """Each folder of tests is a room of src, and each loose file the tests of a loose module."""
    tests = ROOT / "tests"
    folders = {p.name for p in tests.iterdir() if (p / "__init__.py").exists()}
    rooms = {p.name for p in SOURCE.iterdir() if p.is_dir()}
    assert folders - rooms - BESIDES == set()
    modules = {p.stem for p in SOURCE.glob("*.py")}
    loose = {p.stem.removeprefix("test_") for p in tests.glob("test_*.py")}
    strangers = {n for n in loose if not any(n == m or n.startswith(f"{m}_") for m in modules)}
    assert strangers == set()


def test_every_text_of_the_prose_belongs_to_a_test():
    text = "".join(p.read_text() for p in (ROOT / "tests").rglob("*.py"))
    keys = yaml.safe_load((ROOT / "tests/prose.yaml").read_text())
    # A test of several texts ends its key with what it is given: `room.topic_{number}`.
    lonely = [
        key
        for key in keys
        if key not in text
        and not any(key[at] in "._" and f"{key[: at + 1]}{{" in text for at in range(len(key)))
    ]
    assert lonely == []


def test_the_readmes_map_is_what_is_on_the_disk():
    text = (ROOT / "README.md").read_text()
    block = re.search(r"```text\n(attnlab/.*?)```", text, re.DOTALL)
    assert block, "README.md has no map"
    shown = set()
    folders: list[str] = []
    for line in block[1].splitlines()[1:]:
        entry = line.split("#")[0].rstrip()
        depth = (len(entry) - len(entry.lstrip())) // 2 - 1
        names = entry.split()
        folders[depth:] = [names[0]] if names[0].endswith("/") else []
        above = "".join(folders[:depth])
        shown |= {above + name for name in names}
    for name in shown:
        assert (ROOT / name).exists(), f"the map shows {name}, which does not exist"
    rooms = {
        f"src/attnlab/{p.name}{'/' if p.is_dir() else ''}"
        for p in SOURCE.iterdir()
        if p.name not in ("__init__.py", "__main__.py", "__pycache__")
    }
    assert rooms - shown == set(), "the map leaves these out"


def test_training_on_generated_data_imports_only_what_it_needs(tmp_path):
    # transformers too, but torchmetrics, which Lightning imports, takes it where it is installed.
    script = (
        "import sys; from attnlab.cli import main; "
        f"code = main(['train', 'debug=tiny', 'dataset.num_train=100', 'runs_dir={tmp_path}']); "
        "heavy = {'wandb', 'datasets', 'altair', 'starlette', 'optuna'}; "
        "sys.exit(code or ' '.join(heavy & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_imports_nothing_heavy():
    script = (
        "import sys; from attnlab.cli import main; main(['--help']); "
        "sys.exit(' '.join({'torch', 'numpy', 'hydra', 'rich', 'yaml'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: attnlab COMMAND" in done.stdout


WITHOUT_TORCH = {
    "runs": [["runs"], ["runs", "show", "a"], ["runs", "diff", "a", "b"]],
    "compare": [["compare"]],
    "sweep": [["sweep", "list"], ["sweep", "status", "nothing"]],
    "list": [["list"], ["list", "variant"]],
    "completion": [["completion", "bash"]],
    "train": [["train", "datset=x"], ["train", "dataset=mqr", "variant=moe", "seed=0.5"]],
    "curves": [["curves", "nothing"]],
    "ui": [["ui", "nothing"], ["ui", "--port", "0", "--host", "nowhere.invalid"]],
    "report": [["report", "nothing"]],
    "sync": [["sync", "nothing", "--to", "csv"]],
    "reproduce": [["reproduce", "nothing"]],
    "data": [["data", "shwo", "mqar"]],
}
"""Of each command, what it answers without torch, whose import takes seconds: what it reads from
records and YAMLs alone, and requests that are wrong."""
WITH_TORCH = {"bench", "evaluate", "heads", "experts", "attend", "generate", "embed", "ablate"}
"""The commands that look into a model, and import torch whatever they answer."""


def test_commands_import_torch_only_where_they_need_it(tmp_path):
    assert WITHOUT_TORCH.keys() | WITH_TORCH == COMMANDS.keys()
    assert WITHOUT_TORCH.keys() & WITH_TORCH == set()
    for number, name in enumerate("ab"):
        fabricated.write(tmp_path, name, fabricated.result(seed=number))
    lines = [*(line for lines in WITHOUT_TORCH.values() for line in lines), ["trian"]]
    script = f"""
import contextlib, io, os, sys
from attnlab.cli import main
for line in {lines}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(line)
        except SystemExit:
            pass
    if "torch" in sys.modules:
        sys.exit(f"torch is imported by {{' '.join(line)}}")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "ATTNLAB_RUNS": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr


def test_the_environment_and_the_users_home_are_read_in_one_place():
    """An empty variable then is an unset one everywhere, and `~` is a home in every path."""
    # What tells a library or a test something of its own.
    others = {"run_record/write.py", "launch/machine.py", "measure.py", "environment.py"}
    offenders = []
    for path in FILES:
        here = str(path.relative_to(SOURCE))
        text = path.read_text()
        reads = ("environ.get", "getenv", "expanduser", "Path.home")
        offenders += [f"{here} has {word}" for word in reads if word in text and here not in others]
    assert offenders == []
