"""What conf/ and a directory of the user's own configs offer, read from the YAMLs alone.

Hydra is not asked, and nothing heavy is imported: a shell that completes a word waits for this.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from attnlab.errors import RequestError

# The loader in C, where PyYAML was built with it, is ten times as fast.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Files = Mapping[str, Mapping[str, Path]]
"""The files of each group, by the name of the choice."""


def conf_dir() -> Path:
    """Return the directory of attnlab's own configs, in a wheel or beside the source."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parents[1] / "conf"


def choice_files(config_dir: Path | None = None) -> Files:
    """Return the files of each group; the user's replace attnlab's of the same name.

    Raises RequestError if there is no such directory.
    """
    directories = [conf_dir()]
    if config_dir is not None:
        if not config_dir.is_dir():
            raise RequestError(f"--config-dir {config_dir} is not a directory")
        directories.append(config_dir)
    paths_by_group: dict[str, dict[str, Path]] = {}
    for directory in directories:
        for path in directory.rglob("*.yaml"):
            group = path.parent.relative_to(directory).as_posix()
            if group != ".":
                paths_by_group.setdefault(group, {})[path.stem] = path
    return paths_by_group


class Offer(NamedTuple):
    """What may be overridden in a config."""

    groups: Mapping[str, Sequence[str]]
    """The choices of each group, by what is written before the `=`: `model/mixer@model.mixer.a`."""
    knobs: Mapping[str, Any]
    """The values of the other keys, as the YAMLs state them."""


def offer(overrides: Sequence[str], files: Files) -> Offer:
    """Return what may be overridden in a config with some overrides.

    Their choices, and those of defaults lists, are followed as Hydra does.
    """
    tree = _Tree(overrides, files)
    stated = dict(tree.knobs())
    # What is null in one YAML may be a section in a later one.
    sections = {key[:end] for key in stated for end in range(len(key)) if key[end] == "."}
    knobs = {key: value for key, value in stated.items() if key not in sections}
    groups = {word: sorted(files.get(_group(word), ())) for word in tree.words}
    return Offer({word: choices for word, choices in groups.items() if choices}, knobs)


class _Tree:
    """The defaults lists from conf/train.yaml on, with the choices that overrides make."""

    def __init__(self, overrides: Sequence[str], files: Files) -> None:
        self.files, self.root = files, _load(conf_dir() / "train.yaml")
        self.words: list[str] = []
        # Of the values of a sweep, the first.
        words = (word.lstrip("+").partition("=") for word in overrides)
        self.choices: dict[str, Any] = {
            key: value.split(",")[0] for key, _, value in words if _group(key) in files
        }
        # Of two that override a group, the later one in the list decides, and the words above all.
        for entry in reversed(self.root["defaults"]):
            for group, choice in _entries(entry):
                self._override(group, self.choices.get(group, choice))

    def knobs(self) -> Iterator[tuple[str, Any]]:
        """Yield every key and its value, those of the later YAMLs last."""
        yield from _leaves({k: v for k, v in self.root.items() if k != "defaults"}, "")
        for entry in self.root["defaults"]:
            for group, choice in _entries(entry):
                self.words.append(group)
                yield from self._knobs(group, self.choices.get(group, choice), group)

    def _override(self, group: str, choice: Any) -> None:
        """Make the choices that the defaults list of a choice makes for other groups."""
        for entry in self._defaults(group, choice):
            if isinstance(entry, str) and entry != "_self_":
                self._override(group, entry)
            elif isinstance(entry, dict):
                for key, value in entry.items():
                    if key.startswith("override "):
                        name = key.removeprefix("override ")
                        word = name[1:] if name.startswith("/") else f"{group}/{name}"
                        self.choices.setdefault(_short(word), value)

    def _knobs(self, group: str, choice: Any, place: str) -> Iterator[tuple[str, Any]]:
        """Yield the keys of a choice, and of those that its defaults list makes; `place` as a/b."""
        path = self.files.get(group, {}).get(str(choice))
        if path is None:
            return
        first_line = path.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0]
        _, has_package, package = first_line.partition("@package ")
        if has_package:
            package = package.strip()
            place = "" if package == "_global_" else package.replace(".", "/")
        for entry in self._defaults(group, choice):
            if isinstance(entry, str) and entry != "_self_":
                yield from self._knobs(group, entry, place)
            elif isinstance(entry, dict):
                for key, value in entry.items():
                    if not key.startswith("override "):
                        yield from self._nested(group, key, value, place)
        content = {key: value for key, value in _load(path).items() if key != "defaults"}
        yield from _leaves(content, place.replace("/", "."))

    def _nested(self, group: str, key: str, choice: Any, place: str) -> Iterator[tuple[str, Any]]:
        """Yield the keys of an entry such as `mixer: lstm` or `/model/mixer@a: lstm`."""
        name, at, package = key.partition("@")
        nested_group = name[1:] if name.startswith("/") else f"{group}/{name}"
        nested_place = "/".join(part for part in (place, package if at else name) if part)
        word = _short(f"{nested_group}@{nested_place.replace('/', '.')}")
        self.words.append(word)
        yield from self._knobs(nested_group, self.choices.get(word, choice), nested_place)

    def _defaults(self, group: str, choice: Any) -> list[Any]:
        path = self.files.get(group, {}).get(str(choice))
        entries = _load(path).get("defaults") if path else None
        return entries if isinstance(entries, list) else []


def _load(path: Path) -> dict[str, Any]:
    # One that cannot be read is refused where it is chosen.
    with suppress(yaml.YAMLError, ValueError, OSError):
        content = yaml.load(path.read_text(encoding="utf-8"), LOADER)
        return content if isinstance(content, dict) else {}
    return {}


def _entries(entry: Any) -> Iterator[tuple[str, Any]]:
    """Yield group and choice of an entry of the root's defaults list."""
    if isinstance(entry, dict):
        yield from ((key, value) for key, value in entry.items() if not key.startswith("override "))


def _group(key: str) -> str:
    return key.partition("@")[0]


def _short(word: str) -> str:
    """Return GROUP@PLACE as Hydra wants it: without the place, where that is the usual one."""
    group, _, place = word.partition("@")
    return word if place and place != group.replace("/", ".") else group


def _leaves(node: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of a YAML and their values, without directives such as `_target_`."""
    for name, value in node.items():
        key = f"{above}.{name}" if above else str(name)
        if isinstance(value, dict) and value:
            yield from _leaves(value, key)
        elif not str(name).startswith("_"):
            yield key, value
