"""The house stays in order: imports point down, files stay short, constructors have few knobs."""

import ast
import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/attnlab"
FILES = sorted(p for p in SOURCE.rglob("*.py") if p.stat().st_size)

# From the bottom up; a module may import what stands before its own line, and a folder's `base`.
LAYERS = [
    {"errors", "tap"},
    {"position", "recurrence", "attend"},
    {"mixer", "ffn"},
    {"model"},
    {"init"},
    {"split", "draw", "tokenizer"},
    {"corpus"},
    {"dataset", "metric", "runs", "logger", "figures"},
    {"objective", "optimizer", "schedule"},
    {"evidence", "generate", "matching", "measure", "signatures"},
    {"config", "training"},
    {"callbacks"},
    {"assemble"},
    {"trained"},
    {"ui"},
    {"sweep"},
    {"reproduce"},
    {"commands"},
    {"cli"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
# One component in several files; the others are made of parts that do not know each other.
WHOLE = {"corpus", "runs", "sweep", "reproduce", "callbacks", "model", "evidence", "ui"}
LIBRARIES = {
    "pytorch_lightning": {"training", "callbacks", "assemble", "logger"},
    "lightning_fabric": {"assemble"},
    "hydra": {"config", "signatures", "assemble", "sweep", "cli"},
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


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path):
    here = room(path)
    if here == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "attnlab" and len(parts) > 1:
            there = parts[1]
            if there != here:
                assert RANK[there] < RANK[here], f"{here} imports {name}"
            elif here not in WHOLE:
                # A part may be a folder, whose own files are one component.
                own = path.relative_to(SOURCE).parts[1]
                assert parts[2] in ("base", own), f"{path.name} imports its sibling {name}"
        elif parts[0] in LIBRARIES:
            assert here in LIBRARIES[parts[0]], f"{here} imports {name}"


@pytest.mark.parametrize("folder", ["position", "recurrence", "mixer", "ffn", "model"])
def test_models_know_torch_einops_and_jaxtyping_only(folder):
    allowed = set(sys.stdlib_module_names) | {"torch", "einops", "jaxtyping", "attnlab"}
    for path in (SOURCE / folder).glob("*.py"):
        assert {name.split(".")[0] for name in imports(path)} <= allowed, path.name


@pytest.mark.parametrize(
    "path",
    [p for folder in ("src", "tests", "bench") for p in sorted((ROOT / folder).rglob("*.py"))],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_no_file_is_longer_than_400_lines(path):
    assert len(path.read_text().splitlines()) <= 400


def test_no_constructor_has_more_than_eight_knobs():
    seen = 0
    for path in FILES:
        name = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
        for _, kind in inspect.getmembers(import_module(name), inspect.isclass):
            if kind.__module__ == name and not issubclass(kind, BaseException):
                knobs = [
                    p
                    for p in inspect.signature(kind).parameters.values()
                    if p.kind is inspect.Parameter.KEYWORD_ONLY
                ]
                assert len(knobs) <= 8, f"{name}.{kind.__name__}: {len(knobs)} knobs"
                seen += 1
    assert seen > 20


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
        if p.name not in ("__init__.py", "__pycache__")
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
