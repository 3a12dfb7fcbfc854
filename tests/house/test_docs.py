"""The pages of docs/ are what the classes say, and name what exists."""

import importlib.util
import re
import shlex
from argparse import ArgumentParser
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

from attnlab.interp.circuits import gram_matrix
from attnlab.interp.head_stats import Tally
from attnlab.interp.pattern_stats import PatternRows
from attnlab.mixer.base import Mixer
from tests.choices import choices
from tests.house.test_house import LAYERS, RANK

ROOT = Path(__file__).parents[2]
MIXERS = choices("model/mixer")


def script(name: str) -> ModuleType:
    """Import a program of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / f"docs/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    return script("make")


def test_every_mixer_has_a_page_with_a_picture_and_no_page_is_left_over():
    pages = {path.stem for path in (ROOT / "docs/mixers").glob("*.md")} - {"README"}
    drawn = {path.stem for path in (ROOT / "docs/mixers").glob("*.png")}
    assert pages == drawn == set(MIXERS)


def test_every_mixer_states_a_formula_and_a_source(docs):
    for name in MIXERS:
        kind = docs.made(name).func
        first, formula, _ = docs.parted(kind)
        assert issubclass(kind, Mixer), name
        assert formula, name
        assert first.rstrip(".").endswith(")"), name
        assert any(year in first for year in map(str, range(1990, 2027))), name


@pytest.mark.slow
def test_a_page_is_what_its_class_says(docs):
    pages = {name: (ROOT / f"docs/mixers/{name}.md").read_text() for name in MIXERS}
    assert [n for n, page in pages.items() if page != docs.page(n)] == [], "run `make docs`"


@pytest.mark.slow
def test_the_list_of_pages_is_what_the_classes_say(docs):
    assert (ROOT / "docs/mixers/README.md").read_text() == docs.index(), "run `make docs`"


def test_what_is_drawn_is_causal_and_bounded_by_the_window(docs):
    for name in ("multihead", "short_convolution"):
        shares = docs.shares(name)
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(len(shares)))
        assert shares.triu(1).abs().max() == 0
    # A kernel of 4 reaches 3 positions back.
    assert docs.shares("short_convolution").tril(-4).abs().max() == 0


def test_every_dataset_stands_on_the_page():
    page = (ROOT / "docs/datasets/README.md").read_text()
    for name in choices("dataset"):
        assert f"| [{name}](#" in page or f"- **{name}**: " in page, "run `make docs`"


def test_every_dataset_that_reads_files_says_how_to_obtain_them(docs):
    page = (ROOT / "docs/datasets/README.md").read_text()
    names = [name for name in choices("dataset") if f"- **{name}**: " in page]
    assert {"text", "shakespeare"} <= set(names)
    for name in names:
        node = docs.dataset_node(name)
        entry = docs.obtaining(name, node)
        assert f"**{name}**: {docs.dataset_summary(name)[:20]}" in entry
        assert f"- {entry}\n" in page, "run `make docs`"
        # The others are for files of one's own.
        assert (" By hand: " in entry) == bool(node.get("obtain"))
        assert (node.get("obtain") or "")[:10] in entry


def test_a_section_has_the_docstring_and_the_first_example(docs):
    data = docs.drawn_dataset(docs.dataset_node("reversal"))
    lines = docs.dataset_section(["reversal"], {"reversal": data})
    assert lines[0] == "## reversal"
    assert '"d a c" is answered by "c a d \\<end>". Lengths are' in "\n".join(lines)
    assert data.split_names == ("test",)
    assert lines[lines.index("```text") + 1 : -1] == data.show("test", 0).splitlines()
    row = docs.dataset_row("reversal", data)
    assert row.startswith("| [reversal](#reversal) | Read letters")
    assert row.endswith(" | 0.0625 | 1 | 12 | 17 |")


def test_a_docstring_reads_in_markdown_as_in_the_code(docs):
    lines = ["Says <x> *twice* | `a*b` of _ and max_length:", "", "    k1 v1 <- *", "", "End."]
    assert docs.prose(lines) == [
        *("Says \\<x> \\*twice\\* \\| `a*b` of \\_ and max_length:", ""),
        *("```text", "k1 v1 <- *", "```", "", "End."),
    ]


def test_a_long_example_keeps_both_its_ends(docs):
    text = "\n".join(["word " * 30, *map(str, range(30))])
    lines = docs.shortened(text)
    assert len(lines) == 17
    assert all(len(line) <= 96 for line in lines)
    assert lines[7:10] == ["5", "... 16 more lines ...", "22"]
    assert lines[-1] == "29"
    assert docs.shortened("a\n\nb") == ["a", "", "b"]


@pytest.mark.slow
def test_the_page_of_datasets_is_what_the_classes_say(docs):
    assert (ROOT / "docs/datasets/README.md").read_text() == docs.dataset_page(), "run `make docs`"


def test_the_tables_of_evidence_are_those_of_the_judged_results():
    assert (ROOT / "docs/attention.md").read_text() == script("evidence").page(), "run `make docs`"


def test_the_page_of_measures_names_them_all():
    page = (ROOT / "docs/attention.md").read_text()
    table = page.split("## Measures of a head")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    valid = torch.ones(1, 3, dtype=torch.bool)
    pattern, tokens = torch.full((1, 2, 3, 3), 1 / 3), torch.zeros(1, 3, dtype=torch.long)
    tally = Tally()
    tally.add(PatternRows(pattern, valid, valid, torch.arange(3), tokens))
    tally.add_rank(gram_matrix(pattern, valid))
    assert set(re.findall(r"`(\w+)`", " ".join(cells))) == set(tally.means())


def test_every_command_of_the_page_of_measures_would_run():
    lines = re.findall(r"`(attnlab [^`]+)`", (ROOT / "docs/attention.md").read_text())
    assert lines
    for line in lines:
        _, command, *words = shlex.split(line.replace("\n", " "))
        parser = ArgumentParser()
        import_module(f"attnlab.commands.{command}").add_arguments(parser)
        parser.parse_intermixed_args(words)


def test_the_page_of_reports_is_what_the_classes_say():
    assert (ROOT / "docs/json.md").read_text() == script("reports").page(), "run `make docs`"


REFERENCE = re.compile(r"`([\w/]+\.(?:py|js|html))(?:: ([\w.]+))?`")
"""How the pages name a place: a file below src/attnlab, and a name in it."""


def places(page: str) -> list[tuple[str, str]]:
    """List the places that a page of docs/ names, as files and names ("" where it names none)."""
    return REFERENCE.findall((ROOT / "docs" / page).read_text())


def in_source(name: str, attribute: str) -> bool:
    """Return whether a file exists, below src/attnlab or at the root, and has what is named."""
    path = ROOT / "src/attnlab" / name
    if not attribute:
        return path.is_file() or (ROOT / name).is_file()
    if not path.is_file():
        return False
    value = import_module(".".join(("attnlab", *Path(name).with_suffix("").parts)))
    for part in attribute.split("."):
        fields = getattr(value, "__dataclass_fields__", {}) | getattr(value, "__annotations__", {})
        if not hasattr(value, part):
            return part in fields
        value = getattr(value, part)
    return True


@pytest.mark.parametrize("page", ["architecture.md", "glossary.md"])
def test_every_place_that_a_page_names_exists(page):
    named = places(page)
    assert len(named) > 50
    assert [f"{n}: {a}" for n, a in dict.fromkeys(named) if not in_source(n, a)] == []


def test_the_drawn_house_has_the_floors_that_the_imports_keep():
    block = re.search(r"```text\n(\+-.*?)```", (ROOT / "docs/architecture.md").read_text(), re.S)
    assert block
    floors = [set(re.findall(r"^\| (\w+)", floor, re.M)) for floor in block[1].split("+\n")]
    assert [floor for floor in floors if floor] == LAYERS[::-1]


def test_every_term_of_the_glossary_has_a_definition_and_a_place():
    lines = [line for line in (ROOT / "docs/glossary.md").read_text().splitlines() if "|" in line]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    terms = [row[0] for row in rows if row[0] != "term" and set(row[0]) != {"-"}]
    assert len(terms) >= 70
    assert len(set(terms)) == len(terms)
    assert [row for row in rows if len(row) != 4 or not (row[0] and row[1] and row[2])] == []


def test_the_index_lists_every_page_and_every_directory():
    docs = ROOT / "docs"
    linked = set(re.findall(r"\]\(([^)#]+)\)", (docs / "README.md").read_text()))
    missing = [link for link in linked if not (docs / link).exists()]
    pages = {path.name for path in docs.glob("*.md")} - {"README.md"}
    directories = {
        path.name for path in docs.iterdir() if path.is_dir() and path.name[0] not in "._"
    }
    listed = {link.split("/")[0] for link in linked}
    assert (missing, (pages | directories) - listed) == ([], set())


def test_the_readmes_map_is_in_the_order_of_the_imports():
    text = (ROOT / "README.md").read_text()
    block = text.split("  src/attnlab/\n")[1].split("  tests/ ")[0]
    entries = [line.split("#")[0].split() for line in block.splitlines()]
    ranks = [RANK[re.sub(r"/|\.py", "", name)] for names in entries for name in names]
    assert ranks == sorted(ranks)
