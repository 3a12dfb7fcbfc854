"""`attnlab data`: a dataset without the trainer, to read by eye or to use elsewhere.

    attnlab data show NAME [KEY=VALUE ...]           # what it is, and examples
    attnlab data export NAME -o DIR [KEY=VALUE ...]  # a file for each split, with a data card

`show --format json` prints one object:

    {"schema": 1, "name", "summary", "class", "vocabulary" (number of tokens), "classes" (null where
     a label is a token), "max_length", "splits" {SPLIT: examples}, "notes" (sentences: what was
     left out, and why), "data_hash", "chance", "best" (accuracies, null for a corpus), "examples":
     [EXAMPLE]}
    EXAMPLE   split, index, text (what is shown to people), and the columns of an export
"""

import json
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnlab.commands.options import add_config_dir, path_option
from attnlab.config import Config, compose, conf_dir, search_path
from attnlab.errors import RequestError
from attnlab.printable import say
from attnlab.signatures import nearest

if TYPE_CHECKING:
    from attnlab.dataset.base import Dataset

SCHEMA = 1
SHOWING = {"split": "train", "index": 0, "count": 3}
"""What is shown, unless it is given; an export has none of it."""
FORMATS = {"show": ("text", "json"), "export": ("parquet", "jsonl")}
EPILOG = """\
examples:
  attnlab data show mqar dataset.num_pairs=4 --split test
  attnlab data export pronoun -o pronoun
  attnlab data export text dataset.path=book.txt -o book --format jsonl
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab data`."""
    from argparse import RawDescriptionHelpFormatter

    parser.formatter_class, parser.epilog = RawDescriptionHelpFormatter, EPILOG
    parser.add_argument("action", choices=FORMATS, help="print examples, or write all to files")
    parser.add_argument("name", metavar="NAME", help="a dataset of `attnlab list dataset`")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="its knobs")
    add_config_dir(parser)
    showing = parser.add_argument_group("show")
    showing.add_argument("--split", metavar="S", help="default: train")
    showing.add_argument("--index", type=int, metavar="I", help="the first example; default: 0")
    showing.add_argument("--count", type=int, metavar="N", help="how many; default: 3")
    exporting = parser.add_argument_group("export")
    exporting.add_argument(
        "-o", "--output", type=path_option, metavar="DIR", help="a new or empty directory"
    )
    parser.add_argument(
        "--format",
        choices=[kind for kinds in FORMATS.values() for kind in kinds],
        help="show: text (the default) or json; export: parquet (the default) or jsonl",
    )


def run(arguments: Namespace) -> int:
    """Show a dataset, or export it."""
    kind = _require_fitting(arguments)
    config = _composed(arguments)
    # torch takes seconds to import, and composing has done it.
    dataset = config.build("dataset")
    if arguments.action == "show":
        return _show(arguments, dataset, kind)
    return _export(arguments, config, dataset, kind)


def _require_fitting(arguments: Namespace) -> str:
    """Refuse options of the other action, and a place that cannot be written; give the format."""
    action = arguments.action
    kinds = FORMATS[action]
    kind = arguments.format or kinds[0]
    if kind not in kinds:
        raise RequestError(f"--format {kind} is not for {action}; give {' or '.join(kinds)}")
    if action == "show":
        if arguments.output is not None:
            raise RequestError("--output is not for show, which prints; use attnlab data export")
        return kind
    if given := [f"--{name}" for name in SHOWING if getattr(arguments, name) is not None]:
        raise RequestError(f"export writes all; leave out {', '.join(given)}")
    if arguments.output is None:
        raise RequestError("export needs -o DIR, a new or empty directory")
    from attnlab.dataset.export import require_free

    try:
        require_free(arguments.output)
    except ValueError as error:
        raise RequestError(f"--output {error}") from error
    return kind


def _composed(arguments: Namespace) -> Config:
    """Compose and check as for training, then refuse what has nothing to do with the data."""
    with search_path(arguments.config_dir) as own:
        config = compose([f"dataset={arguments.name}", *arguments.overrides], own)
    of_data = ("dataset.", "dataset/")
    if other := [w for w in arguments.overrides if not w.lstrip("+~").startswith(of_data)]:
        raise RequestError(f"{', '.join(other)}: changes no data; give dataset.KEY=VALUE only")
    return config


def _sizes(dataset: "Dataset") -> dict[str, int]:
    """Draw all splits. Raises RequestError where the task cannot give so many examples."""
    from attnlab.dataset.export import sizes

    try:
        return sizes(dataset)
    except ValueError as error:
        raise RequestError(f"dataset: {error}") from error


def _summary(name: str, config_dir: Path | None, dataset: "Dataset") -> str:
    """Say what a dataset is: its YAML's comment, else its class's first line."""
    directories = [conf_dir()] if config_dir is None else [config_dir, conf_dir()]
    paths = [directory / f"dataset/{name}.yaml" for directory in directories]
    text = next(path.read_text() for path in paths if path.is_file())
    said = (line[1:].strip() for line in text.splitlines() if line.startswith("#"))
    own = next((line for line in said if not line.startswith("@package")), None)
    return own or (type(dataset).__doc__ or "").split("\n")[0]


def _show(arguments: Namespace, dataset: "Dataset", kind: str) -> int:
    sizes = _sizes(dataset)
    split, index, count = (
        default if getattr(arguments, name) is None else getattr(arguments, name)
        for name, default in SHOWING.items()
    )
    if split not in sizes:
        raise RequestError(f"--split {split}: the data have no such split{nearest(split, sizes)}")
    if not 0 <= index < sizes[split]:
        raise RequestError(f"--index {index} must lie in 0..{sizes[split] - 1} for {split}")
    if count < 1:
        raise RequestError(f"--count {count} must be at least 1")
    shown = range(index, min(index + count, sizes[split]))
    whole = {
        "schema": SCHEMA,
        "name": arguments.name,
        "summary": _summary(arguments.name, arguments.config_dir, dataset),
        "class": f"{type(dataset).__module__}.{type(dataset).__qualname__}",
        "vocabulary": len(dataset.tokens),
        "classes": dataset.classes,
        "max_length": dataset.max_length,
        "splits": sizes,
        "notes": dataset.notes,
        "data_hash": dataset.data_hash,
        "chance": getattr(dataset, "chance", None),
        "best": getattr(dataset, "best", None),
        "examples": [_example(dataset, split, at) for at in shown],
    }
    if kind == "json":
        say(json.dumps(whole, indent=2, allow_nan=False))
    else:
        say(_text(dataset, whole))
    return 0


def _example(dataset: "Dataset", split: str, index: int) -> dict[str, Any]:
    from attnlab.dataset.export import columns

    found = columns(dataset, dataset.splits[split][index])
    row = {name: column[0].as_py() for name, column in found.items()}
    return {"split": split, "index": index, "text": dataset.show(split, index), **row}


def _text(dataset: "Dataset", whole: dict[str, Any]) -> str:
    sizes = ", ".join(f"{split} {size:,}" for split, size in whole["splits"].items())
    lines = [f"{whole['name']}: {whole['summary']}", ""]
    lines.append(f"vocabulary  {_names(dataset.tokens)}")
    lines += [f"classes     {_names(dataset.classes)}"] if dataset.classes else []
    lines += [f"length      {whole['max_length']:,}", f"splits      {sizes}"]
    lines += [f"note        {note}" for note in whole["notes"]]
    if whole["chance"] is not None:
        lines.append(f"accuracy    chance {whole['chance']:.3g}, at best {whole['best']:.3g}")
    lines.append(f"data_hash   {whole['data_hash']}")
    for example in whole["examples"]:
        lines += ["", f"{example['split']} {example['index']}", example["text"]]
    return "\n".join(lines)


def _names(names: Sequence[str], count: int = 8) -> str:
    """Count names and give some of both ends, on one line."""
    shown = [name if name.isprintable() and name.strip() else repr(name) for name in names]
    if len(shown) > 2 * count:
        shown = [*shown[:count], "...", *shown[-count:]]
    return f"{len(names):,}: {' '.join(shown)}"


def _export(arguments: Namespace, config: Config, dataset: "Dataset", kind: str) -> int:
    from attnlab.dataset.export import Origin, export

    sizes = _sizes(dataset)
    # Where a text lay on somebody's disk tells nobody anything; its SHA-256 does.
    values = {**config.values["dataset"], **dataset.located}
    knobs = {knob: value for knob, value in values.items() if not knob.startswith("_")}
    words = ["attnlab", "data", "export", arguments.name, *arguments.overrides]
    words += ["-o", arguments.output.name, "--format", kind]
    summary = _summary(arguments.name, arguments.config_dir, dataset)
    origin = Origin(arguments.name, summary, knobs, shlex.join(words))
    try:
        export(dataset, arguments.output, kind, origin)
    except ValueError as error:
        raise RequestError(f"--output {error}") from error
    for split, size in sizes.items():
        say(f"{split}: {size:,} examples")
    for note in dataset.notes:
        say(note)
    say(arguments.output)
    return 0
