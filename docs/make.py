"""Write the pages of what can be chosen from the classes, so that they say what the code does.

A page for each mixer, with a picture of what its form lets through, and one page of all datasets.
`make docs` writes docs/mixers/ and docs/datasets/, and a word after docs/make.py only that one; a
test holds the pages against the classes.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from textwrap import dedent, wrap
from typing import Any

import torch
import yaml
from hydra import compose
from hydra.utils import get_object, instantiate
from jaxtyping import Float
from omegaconf import OmegaConf
from torch import Tensor

from attnlab.config import conf_dir, search_path
from attnlab.dataset.base import Dataset
from attnlab.mixer.base import Mixer, build_mixer
from attnlab.model.base import parameters
from attnlab.model.cost import flops
from attnlab.position.base import Position

PLACE = Path(__file__).parent / "mixers"
DATASETS = Path(__file__).parent / "datasets"
D_MODEL, LENGTHS, SHOWN = 64, (64, 256, 1024), 48


def mixers() -> list[str]:
    """Name the mixers that conf/ offers."""
    return sorted(path.stem for path in (conf_dir() / "model/mixer").glob("*.yaml"))


def page(name: str) -> str:
    """Write the page of a mixer."""
    kind, knobs = made(name).func, stated(name)
    _, formula, rest = parted(kind)
    lines = [f"# {name}", "", summary(name), ""]
    lines += ["```text", *formula, "```", ""] if formula else []
    lines += [*rest, "", "## Use", "", "```sh", f"attnlab train model/mixer={name}", "```", ""]
    lines += ["| knob | default |", "|---|---|", *(f"| `{k}` | `{v}` |" for k, v in knobs), ""]
    lines += ["## Cost", "", *cost(name), ""]
    lines += ["## What its form lets through", "", f"![{name}]({name}.png)", "", *caption()]
    return "\n".join(lines).rstrip() + "\n"


def index() -> str:
    """Write the list of the pages."""
    lines = [
        "# Mixers",
        "",
        "Every layer that moves information between positions: `attnlab train model/mixer=NAME`.",
        "These pages are made from the classes by `make docs`.",
        "",
        "| mixer | what it is | state after 256 tokens |",
        "|---|---|---|",
    ]
    for name in mixers():
        state_size = build(name).state_size(256)
        state_text = "none" if state_size is None else f"{state_size:,}"
        lines.append(f"| [{name}]({name}.md) | {summary(name)} | {state_text} |")
    return "\n".join(
        [
            *lines,
            "",
            f"The state is numbers for one sequence in one layer, d_model = {D_MODEL}.",
            "",
        ]
    )


def summary(name: str) -> str:
    """Say what a mixer is, as `attnlab list` does: by its YAML's comment, else by its class."""
    said = (conf_dir() / f"model/mixer/{name}.yaml").read_text().splitlines()[0]
    return said.removeprefix("# ") if said.startswith("#") else parted(made(name).func)[0]


def parted(kind: type) -> tuple[str, list[str], list[str]]:
    """Part a docstring into its first line, its formula (indented, in second place), and the rest.

    What is indented behind the formula, a table of initial values, keeps its lines.
    """
    first, *paragraphs = inspect.cleandoc(kind.__doc__ or "").split("\n\n")
    formula = [p for p in paragraphs[:1] if p.startswith("    ")]
    rest = [_tabled(p) for p in paragraphs[len(formula) :]]
    return first, dedent("".join(formula)).splitlines(), "\n\n".join(rest).splitlines()


def _tabled(paragraph: str) -> str:
    said, *rows = paragraph.split("\n    ")
    head = ["", "| parameter | starts as |", "|---|---|"] if rows else []
    return "\n".join([said, *head, *(f"| {row.replace('*', chr(92) + '*')} |" for row in rows)])


def cost(name: str) -> Iterator[str]:
    """Count at three lengths."""
    mixer = build(name)
    yield (
        f"One causal layer at d_model = {D_MODEL} has {parameters(mixer):,} parameters. FLOPs are "
        "those of a forward pass; the state is numbers that one sequence keeps while it decodes."
    )
    yield from ("", "| tokens | FLOPs a token | state |", "|---|---|---|")
    for length in LENGTHS:
        each = flops(mixer, torch.zeros(1, length, D_MODEL)) / length
        yield f"| {length:,} | {each:,.0f} | {mixer.state_size(length):,} |"


def caption() -> list[str]:
    """Say what the picture is."""
    return [
        f"One causal layer as it starts, {SHOWN} random tokens, the mean of 64 draws: how much the",
        "output at each position moves with each input (the norm of the gradient; each row by its",
        "largest). It shows what the form allows, not what training makes of it.",
    ]


def shares(name: str) -> Float[Tensor, "query key"]:
    """Give how much each output moves with each input; rows sum to 1."""
    torch.manual_seed(0)
    mixer = build(name)
    x = torch.randn(64, SHOWN, D_MODEL, requires_grad=True)
    out, rows = mixer(x), []
    for at in range(SHOWN):
        (moved,) = torch.autograd.grad(
            (out[:, at] * torch.randn(64, D_MODEL)).sum(), x, retain_graph=True
        )
        rows.append(moved.norm(dim=-1).mean(dim=0))
    moves = torch.stack(rows)
    return moves / moves.sum(dim=1, keepdim=True)


def build(name: str) -> Mixer:
    """Make a causal layer in evaluation mode."""
    torch.manual_seed(0)
    return build_mixer(made(name), D_MODEL, Position(D_MODEL, max(LENGTHS)), True, 0).eval()


def made(name: str) -> "partial[Mixer]":
    """Make a choice as it is composed."""
    with search_path():
        node: Any = OmegaConf.to_container(compose(f"model/mixer/{name}").model.mixer, resolve=True)
    return instantiate(node, _execution_whitelist_=["attnlab.*"], _convert_="all")


def stated(name: str) -> list[tuple[str, str]]:
    """List the knobs, as the YAML states them."""
    node = yaml.safe_load((conf_dir() / f"model/mixer/{name}.yaml").read_text())
    chosen = [one for one in node.pop("defaults", []) if isinstance(one, dict)]
    groups = {key.partition("@")[2]: value for one in chosen for key, value in one.items()}
    knobs = {k: yaml.safe_dump(v, default_flow_style=True).split("\n")[0] for k, v in node.items()}
    return [(k, str(v)) for k, v in {**groups, **knobs}.items() if not k.startswith("_") and k]


def dataset_page() -> str:
    """Write the page of all datasets."""
    names = sorted(path.stem for path in (conf_dir() / "dataset").glob("*.yaml"))
    nodes = {name: dataset_node(name) for name in names}
    read = {name: node for name, node in nodes.items() if "path" in node}
    drawn = {name: drawn_dataset(node) for name, node in nodes.items() if name not in read}
    lines = [*DATASETS_OPENING, "", "| dataset | what it asks | chance | best | length | tokens |"]
    lines.append("|---|---|---|---|---|---|")
    lines += [dataset_row(name, data) for name, data in drawn.items()]
    lines += ["", "## From files or the hub", "", *READING, ""]
    lines += [f"- {obtaining(name, node)}" for name, node in read.items()]
    order = sorted(drawn, key=lambda name: (_module(drawn[name]), name))
    for _, same in groupby(order, key=lambda name: type(drawn[name])):
        lines += ["", *dataset_section(list(same), drawn)]
    return "\n".join(lines).rstrip() + "\n"


DATASETS_OPENING = """\
# Datasets

`attnlab train dataset=NAME` trains on one, `attnlab data show NAME` shows it, `attnlab data export
NAME -o DIR` writes it as Parquet or JSON lines. Without the trainer, in Python:

```python
from attnlab.dataset.export import to_hub_dataset
from attnlab.dataset.mqar import MQAR

data = MQAR(num_pairs=4)
data.splits["test"][:8]  # tensors: inputs, targets, at, valid
data.splits["train"].batches(64)  # an iterator of such
to_hub_dataset(data, "test")  # a datasets.Dataset: inputs and targets (-100: not asked)
```

Example i of a split depends on `dataset.seed`, the split and i alone, and no split shares an
example with another; `data_hash` in a run's record covers all of them. Chance is the accuracy of
whoever knows the task but has not found what is asked. This page is made from the classes by
`make docs`, with the values of conf/dataset/.

## Without a file or network
""".splitlines()


READING = """\
[Your own data](../data.md) has an example of each kind. A file's name says what it is, in small or
capital letters. `.csv`, `.tsv`, `.json`, `.jsonl`, `.ndjson` and `.parquet` are tables, of which
`text` and `documents` read `dataset.column`; any other name is a plain text. Each but Parquet may
be packed too: `.gz`, `.bz2`, `.xz`, `.zst`.

- A cell is what stands there: `NA`, `null` and `nan` in a CSV or TSV are words, and an empty cell
  is an empty text. CSV quotes cells; TSV has no quotes. JSON is an object on each line, an array of
  objects or of texts, or an object of columns.
- A column NAME.KEY is the entry KEY of a column NAME of objects.
- Files are UTF-8; a byte order mark is no part of the text. `sentences` takes another
  `dataset.layout.encoding`.
- Rows without a text (null) are left out, and so are examples that an earlier split holds: test
  before validation before training. `attnlab data show` says how many as notes, the card of an
  export has them, and `Dataset.notes` gives them in Python.
- Refused, in words: a cell that is no text, with its line or row; a line that is torn; rows of
  unlike length; archives, documents and UTF-16; a `dataset.column` where there is no table; data
  with nothing to learn from: no text at all, one token alone, one class alone.
""".splitlines()


def dataset_node(name: str) -> dict[str, Any]:
    """Compose a choice as training does."""
    with search_path():
        node: Any = OmegaConf.to_container(compose("train", [f"dataset={name}"]).dataset)
    return node


def drawn_dataset(node: dict[str, Any]) -> Dataset:
    """Make a dataset that draws no more than the split that is reported."""
    data: Dataset = instantiate(node, _execution_whitelist_=["attnlab.*"], _convert_="all")
    data.split_names = (data.report_split,)
    return data


def dataset_row(name: str, data: Dataset) -> str:
    """Write a row of the table."""
    known = (getattr(data, "chance", None), getattr(data, "best", None))
    chance, best = ("" if value is None else f"{value:.3g}" for value in known)
    link = f"[{name}](#{_anchor(_module(data))})"
    said = prose([dataset_summary(name)])[0].replace("|", "\\|")
    return f"| {link} | {said} | {chance} | {best} | {data.max_length:,} | {len(data.tokens):,} |"


def dataset_summary(name: str) -> str:
    """Say what a dataset is, as `attnlab list` does."""
    text = (conf_dir() / f"dataset/{name}.yaml").read_text()
    said = [line[1:].strip() for line in text.splitlines() if line.startswith("#")]
    if own := [line for line in said if not line.startswith("@package")]:
        return own[0]
    return (inspect.getdoc(get_object(dataset_node(name)["_target_"])) or "").splitlines()[0]


def obtaining(name: str, node: dict[str, Any]) -> str:
    """Say what a corpus is and where it comes from."""
    said = [f"**{name}**: {' '.join(prose([dataset_summary(name)]))}"]
    if node["path"]:
        said.append(f"`{node['path']}`.")
    if node.get("obtain"):
        said.append(f"By hand: {' '.join(prose([node['obtain']]))}")
    return " ".join(said)


def dataset_section(names: list[str], drawn: dict[str, Dataset]) -> list[str]:
    """Say what a class says, and show an example of the choice that has its name."""
    data = drawn[names[0]]
    title = _module(data)
    shown = title if title in names else names[0]
    lines = [f"## {title}", "", *prose((inspect.getdoc(type(data)) or "").splitlines())]
    if others := [f"`{name}`" for name in names if name != shown]:
        lines += ["", f"The same class with other knobs: {', '.join(others)}."]
    example = shortened(drawn[shown].show(data.report_split, 0))
    heading = f"`{shown}`, the first example of {data.report_split}:"
    return [*lines, "", heading, "", *fenced(example)]


def prose(lines: list[str]) -> list[str]:
    """Write a docstring as Markdown: what is indented stays as it stands, marks mean nothing."""
    written: list[str] = []
    for indented, block in groupby(lines, key=lambda line: line.startswith("  ")):
        if indented:
            written += ["", *fenced(dedent("\n".join(block)).splitlines()), ""]
        else:
            written += [MARKS.sub(_harmless, line) for line in block]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(written)).strip().splitlines()


MARKS = re.compile(r"(`+[^`]*`+)|([<*|\\]|(?<![^\W_])_|_(?![^\W_]))")
"""What Markdown would take for its own, and code, which it leaves alone."""


def _harmless(found: re.Match[str]) -> str:
    return found[1] or f"\\{found[2]}"


def fenced(lines: list[str]) -> list[str]:
    """Set lines apart, to be shown as they are."""
    return ["```text", *lines, "```"]


def shortened(text: str, most: int = 16) -> list[str]:
    """Break long lines, and leave out the middle of what is longer than a page shows."""
    lines = [part for line in text.splitlines() for part in wrap(line, 96) or [""]]
    if len(lines) <= most + 1:
        return lines
    ends = most // 2
    return [*lines[:ends], f"... {len(lines) - 2 * ends} more lines ...", *lines[-ends:]]


def _module(data: Dataset) -> str:
    return type(data).__module__.rpartition(".")[2]


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def main(words: list[str]) -> None:
    """Write all pages and pictures, or those of one folder."""
    if not words or "datasets" in words:
        DATASETS.mkdir(exist_ok=True)
        (DATASETS / "README.md").write_text(dataset_page())
    if not words or "mixers" in words:
        write_mixers()


def write_mixers() -> None:
    """Write the pages of the mixers and their pictures."""
    from attnlab.figures.base import render_png
    from attnlab.figures.mixing import draw_mixing

    PLACE.mkdir(exist_ok=True)
    (PLACE / "README.md").write_text(index())
    for name in mixers():
        (PLACE / f"{name}.md").write_text(page(name))
        drawn = draw_mixing(shares(name).detach().numpy(), f"Input to output of {name}")
        (PLACE / f"{name}.png").write_bytes(render_png(drawn))
        print(name)


if __name__ == "__main__":
    main(sys.argv[1:])
