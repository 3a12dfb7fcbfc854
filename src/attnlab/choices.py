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
FilesByGroup = Mapping[str, Mapping[str, Path]]
"""The files of each group, by the name of the choice."""


def conf_dir() -> Path:
    """Return the directory of attnlab's own configs, in a wheel or beside the source."""
    package = Path(__file__).resolve().parent
    packaged_dir = package / "conf"
    return packaged_dir if packaged_dir.is_dir() else package.parents[1] / "conf"


def no_config_dir(config_dir: Path) -> RequestError:
    """Return the error for a --config-dir that is not there."""
    return RequestError(
        f"--config-dir {config_dir} is not a directory; give the one that has your YAMLs in "
        "folders of their groups: DIR for DIR/optimizer/mine.yaml"
    )


def choice_files(config_dir: Path | None = None) -> FilesByGroup:
    """Return the files of each group; the user's replace attnlab's of the same name.

    Raises RequestError if there is no such directory.
    """
    directories = [conf_dir()]
    if config_dir is not None:
        if not config_dir.is_dir():
            raise no_config_dir(config_dir)
        directories.append(config_dir)
    paths_by_group: dict[str, dict[str, Path]] = {}
    for directory in directories:
        for path in directory.rglob("*.yaml"):
            group = path.parent.relative_to(directory).as_posix()
            if group != ".":
                paths_by_group.setdefault(group, {})[path.stem] = path
    return paths_by_group


class OverridableKeys(NamedTuple):
    """What may be overridden in a config."""

    groups: Mapping[str, Sequence[str]]
    """The choices of each group, by what is written before the `=`: `model/mixer@model.mixer.a`."""
    knobs: Mapping[str, Any]
    """The values of the other keys, as the YAMLs state them."""


def overridable_keys(overrides: Sequence[str], files: FilesByGroup) -> OverridableKeys:
    """Return what may be overridden in a config with some overrides.

    Their choices, and those of defaults lists, are followed as Hydra does.
    """
    group_keys, stated_values = _DefaultsTree(overrides, files).group_keys_and_values()
    # What is null in one YAML may be a section in a later one.
    sections = {key[:end] for key in stated_values for end in range(len(key)) if key[end] == "."}
    knobs = {key: value for key, value in stated_values.items() if key not in sections}
    choices_by_key = {key: sorted(files.get(_group(key), ())) for key in group_keys}
    return OverridableKeys({key: names for key, names in choices_by_key.items() if names}, knobs)


class _DefaultsTree:
    """The defaults lists from conf/train.yaml on, with the choices that overrides make."""

    def __init__(self, overrides: Sequence[str], files: FilesByGroup) -> None:
        self.files, self.root = files, _load(conf_dir() / "train.yaml")
        key_value_pairs = (override.lstrip("+").partition("=") for override in overrides)
        # Of the values of a sweep, the first.
        self.choices: dict[str, Any] = {
            key: value.split(",")[0] for key, _, value in key_value_pairs if _group(key) in files
        }
        # Of two that override a group, the later one in the list decides, and the overrides of the
        # command line above all.
        for entry in reversed(self.root["defaults"]):
            for group, choice in _choices_of_entry(entry):
                self._follow_overrides(group, self.choices.get(group, choice))

    def group_keys_and_values(self) -> tuple[list[str], dict[str, Any]]:
        """Return the keys of all groups, as written before `=`, and the values of all other keys.

        Of two values of a key, that of the later YAML counts.
        """
        group_keys: list[str] = []
        root_values = {key: value for key, value in self.root.items() if key != "defaults"}
        values = dict(_leaves(root_values, ""))
        for entry in self.root["defaults"]:
            for group, choice in _choices_of_entry(entry):
                group_keys.append(group)
                self._add_choice(group, self.choices.get(group, choice), group, group_keys, values)
        return group_keys, values

    def _follow_overrides(self, group: str, choice: Any) -> None:
        """Make the choices that the defaults list of a choice makes for other groups."""
        for entry in self._defaults_list(group, choice):
            if isinstance(entry, str) and entry != "_self_":
                self._follow_overrides(group, entry)
            elif isinstance(entry, dict):
                for key, overriding_choice in entry.items():
                    if key.startswith("override "):
                        name = key.removeprefix("override ")
                        group_key = name[1:] if name.startswith("/") else f"{group}/{name}"
                        self.choices.setdefault(_without_usual_place(group_key), overriding_choice)

    def _add_choice(
        self, group: str, choice: Any, place: str, group_keys: list[str], values: dict[str, Any]
    ) -> None:
        """Add the keys of a choice, and of those that its defaults list makes; `place` as a/b."""
        path = self.files.get(group, {}).get(str(choice))
        if path is None:
            return
        first_line = path.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0]
        _, has_package, package = first_line.partition("@package ")
        if has_package:
            package = package.strip()
            place = "" if package == "_global_" else package.replace(".", "/")
        for entry in self._defaults_list(group, choice):
            if isinstance(entry, str) and entry != "_self_":
                self._add_choice(group, entry, place, group_keys, values)
            elif isinstance(entry, dict):
                for key, nested_choice in entry.items():
                    if not key.startswith("override "):
                        self._add_nested(group, key, nested_choice, place, group_keys, values)
        content = {key: value for key, value in _load(path).items() if key != "defaults"}
        values.update(_leaves(content, place.replace("/", ".")))

    def _add_nested(
        self,
        group: str,
        key: str,
        choice: Any,
        place: str,
        group_keys: list[str],
        values: dict[str, Any],
    ) -> None:
        """Add the keys of an entry such as `mixer: lstm` or `/model/mixer@a: lstm`."""
        name, at, package = key.partition("@")
        nested_group = name[1:] if name.startswith("/") else f"{group}/{name}"
        nested_place = "/".join(part for part in (place, package if at else name) if part)
        group_key = _without_usual_place(f"{nested_group}@{nested_place.replace('/', '.')}")
        group_keys.append(group_key)
        nested_choice = self.choices.get(group_key, choice)
        self._add_choice(nested_group, nested_choice, nested_place, group_keys, values)

    def _defaults_list(self, group: str, choice: Any) -> list[Any]:
        path = self.files.get(group, {}).get(str(choice))
        entries = _load(path).get("defaults") if path else None
        return entries if isinstance(entries, list) else []


def _load(path: Path) -> dict[str, Any]:
    """Return the keys of a YAML; none of one that cannot be read or holds something else."""
    # One that cannot be read is refused where it is chosen.
    with suppress(yaml.YAMLError, ValueError, OSError):
        content = yaml.load(path.read_text(encoding="utf-8"), LOADER)
        return content if isinstance(content, dict) else {}
    return {}


def _choices_of_entry(entry: Any) -> Iterator[tuple[str, Any]]:
    """Yield group and choice of an entry of the root's defaults list."""
    if isinstance(entry, dict):
        yield from ((key, value) for key, value in entry.items() if not key.startswith("override "))


def _group(key: str) -> str:
    return key.partition("@")[0]


def _without_usual_place(group_key: str) -> str:
    """Return GROUP@PLACE as Hydra wants it: without the place, where that is the usual one."""
    group, _, place = group_key.partition("@")
    return group_key if place and place != group.replace("/", ".") else group


def _leaves(node: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of a YAML and their values, without directives such as `_target_`."""
    for name, value in node.items():
        key = f"{above}.{name}" if above else str(name)
        if isinstance(value, dict) and value:
            yield from _leaves(value, key)
        elif not str(name).startswith("_"):
            yield key, value
