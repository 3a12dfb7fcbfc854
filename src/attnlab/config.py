"""Find, compose and check a config: every fault at once, before anything is built or written."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from inspect import Parameter, isclass, signature
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import hydra
from beartype import BeartypeConf
from beartype.door import is_bearable
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from attnlab.errors import ConfigError, RequestError

RESERVED = {"_target_", "_partial_", "_args_", "_recursive_", "_convert_"}
ROOT_KNOBS = {"seed": int, "batch_size": int, "runs_dir": str, "rerun": bool, "extend": bool}
SECTIONS = ("model", "objective", "optimizer", "schedule", "trainer", "dataset")
COLLECTIONS = ("metric", "callbacks")
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, TypeError)


@dataclass(frozen=True)
class Config:
    """A composed and checked config: plain values, and which choice was made in each group."""

    values: dict[str, Any]
    choices: Mapping[str, Any]
    trusted: tuple[str, ...]

    def build(self, key: str, *wiring: Any) -> Any:
        """Make what stands at a dotted key; `wiring` are its positional arguments."""
        node: Any = self.values
        for part in key.split("."):
            node = node[part]
        try:
            return _instantiate(node, self.trusted, *wiring)
        except ValueError as error:
            raise ConfigError([f"{key}: {error}"]) from error

    def parts(self, section: str) -> dict[str, Any]:
        """Make everything in a collection such as `metric`."""
        names = (name for name, node in self.values[section].items() if node is not None)
        return {name: self.build(f"{section}.{name}") for name in names}


def conf_dir() -> Path:
    """Give the directory of attnlab's own configs, in a wheel or beside the source."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parents[1] / "conf"


@contextmanager
def search_path(config_dir: Path | None = None) -> Iterator[tuple[str, ...]]:
    """Let Hydra find the user's configs, then ours; gives the packages that may be instantiated."""
    directories, trusted = [conf_dir()], ["attnlab"]
    if config_dir is not None:
        config_dir = config_dir.resolve()
        if not config_dir.is_dir():
            raise RequestError(f"--config-dir {config_dir} is not a directory")
        directories.insert(0, config_dir)
        trusted += _packages(config_dir)
        # The user's own package usually lies where the command is typed.
        sys.path.insert(0, str(Path.cwd()))
    outer, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with hydra.initialize_config_search_path([d.as_uri() for d in directories], "attnlab"):
            yield tuple(trusted)
    finally:
        # Not the instance of before: Hydra puts another one in its place.
        GlobalHydra.instance().hydra = outer
        if config_dir is not None:
            sys.path.remove(str(Path.cwd()))


def cells(overrides: Sequence[str]) -> list[list[str]]:
    """Give the overrides of each run of a sweep, inside `search_path`."""
    state = GlobalHydra.instance()
    parser = OverridesParser.create(config_loader=state.config_loader())
    try:
        parsed = parser.parse_overrides(list(overrides))
        return BasicSweeper.split_arguments(parsed, None)[0]
    except HydraException as error:
        raise ConfigError([_first_line(error)]) from error


def compose(overrides: Sequence[str], trusted: Sequence[str] = ("attnlab",)) -> Config:
    """Compose the train config, and check it against the code, inside `search_path`.

    Raises ConfigError with every fault.
    """
    composed, faults = _compose(overrides)
    config, found = check(composed, composed.hydra.runtime.choices, trusted)
    faults += found
    if not faults:
        faults += _impossible(config)
    if faults:
        raise ConfigError(faults)
    return config


def check(
    composed: DictConfig, choices: Mapping[Any, Any], trusted: Sequence[str]
) -> tuple[Config, list[str]]:
    """Hold a composed config against the signatures of what it names; gives it and its faults."""
    values, faults = {}, []
    for key in composed:
        if key != "hydra":
            try:
                node = composed[key]
                values[key] = OmegaConf.to_container(node, resolve=True) if _is_node(node) else node
            except OmegaConfBaseException as error:
                faults.append(f"{key}: {_first_line(error)}")
    faults += list(_section_faults(values, trusted))
    names = {str(group): choice for group, choice in choices.items()}
    return Config(values, names, tuple(trusted)), faults


def _section_faults(values: dict[str, Any], trusted: Sequence[str]) -> Iterator[str]:
    known = {*ROOT_KNOBS, *SECTIONS, *COLLECTIONS}
    for key in [key for key in values if key not in known]:
        yield f"{key}: no such key at the root{_nearest(key, known)}"
    for key, kind in ROOT_KNOBS.items():
        if key in values:
            yield from _value_faults(values, key, kind, key)
    for key in SECTIONS:
        node = values.get(key)
        if not isinstance(node, dict) or "_target_" not in node:
            yield f"{key}: expected a choice with a _target_, got {node!r}"
        else:
            yield from _target_faults(node, key, trusted)
    for section in COLLECTIONS:
        for name, node in (values.get(section) or {}).items():
            if node is not None:
                yield from _target_faults(node, f"{section}.{name}", trusted)


def _target_faults(node: Any, path: str, trusted: Sequence[str]) -> Iterator[str]:
    if not isinstance(node, dict) or "_target_" not in node:
        yield f"{path}: expected a choice with a _target_, got {node!r}"
        return
    name = str(node["_target_"])
    if name.split(".")[0] not in trusted:
        yield (
            f"{path}._target_: {name} is in no package that may be built "
            f"({', '.join(trusted)}); name it in a YAML of your own --config-dir"
        )
        return
    try:
        target = get_object(name)
    except Exception as error:  # Importing somebody's module can fail in any way.
        yield f"{path}._target_: cannot import {name}: {_first_line(error)}"
        return
    parameters = signature(target).parameters
    hints = get_type_hints(target.__init__ if isclass(target) else target)
    knobs = {n for n, p in parameters.items() if p.kind is Parameter.KEYWORD_ONLY}
    loose = any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())
    for key in [key for key in node if key not in RESERVED]:
        where = f"{path}.{key}"
        if key in parameters and key not in knobs:
            yield f"{where}: `{key}` is set by the code, not by the config"
        elif key not in parameters:
            if not loose:
                yield f"{where}: {name} takes no `{key}`{_nearest(key, knobs)}"
        elif isinstance(node[key], dict) and "_target_" in node[key]:
            yield from _target_faults(node[key], where, trusted)
        else:
            yield from _value_faults(node, key, hints.get(key, Any), where)
    for key in sorted(knobs - node.keys()):
        yield f"{path}.{key}: missing; {name} has this knob, so state it"


def _value_faults(node: dict[str, Any], key: str, hint: Any, path: str) -> Iterator[str]:
    """Check one value, and write a whole number as the float that its knob asks for."""
    value = node[key]
    kinds = set(_members(hint))
    if isinstance(value, int) and not isinstance(value, bool) and float in kinds - {int}:
        node[key] = value = float(value)
    boolean = isinstance(value, bool) and not kinds & {bool, Any, object}
    if boolean or not is_bearable(value, hint, conf=BeartypeConf()):
        yield f"{path}: expected {_name(hint)}, got {value!r}"


def _impossible(config: Config) -> list[str]:
    """Build everything once where it costs nothing, to refuse in words what cannot work."""
    import torch

    faults, built = [], {}
    plan: list[tuple[str, Any]] = [("dataset", ()), ("optimizer", ()), ("schedule", ())]
    for key, wiring in [*plan, ("trainer", ())]:
        try:
            built[key] = config.build(key, *wiring)
        except ConfigError as error:
            faults += error.faults
    if config.values["batch_size"] < 1:
        faults.append(f"batch_size: {config.values['batch_size']} must be at least 1")
    if config.values["seed"] < 0:
        faults.append(f"seed: {config.values['seed']} must not be negative")
    try:
        if "trainer" in built:
            settings = built["trainer"]
            wiring = (settings.max_steps, settings.val_check_interval)
            config.build("callbacks.clock")(*wiring)
    except (ConfigError, ValueError) as error:
        faults += getattr(error, "faults", [f"callbacks.clock: {error}"])
    if "dataset" in built:
        dataset = built["dataset"]
        try:
            objective = config.build("objective")(dataset)
        except ValueError as error:
            return [*faults, f"objective: {error}"]
        try:
            with torch.device("meta"):
                config.build(
                    "model",
                    len(dataset.tokens),
                    objective.num_outputs,
                    dataset.max_length,
                    objective.causal,
                )
        except ConfigError as error:
            faults += error.faults
    return faults


def _compose(overrides: Sequence[str]) -> tuple[DictConfig, list[str]]:
    """Compose; where that fails, drop what is at fault and say why, so that the rest is checked."""
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    faults: list[str] = []
    good: dict[str, Override] = {}
    bad: list[tuple[str, Override, Exception]] = []
    for text in overrides:
        try:
            good[text] = parser.parse_overrides([text])[0]
        except HydraException as error:
            faults.append(f"{text}: cannot be read as KEY=VALUE ({_first_line(error)})")
    while True:
        try:
            composed = _hydra_compose(list(good))
            break
        except COMPOSITION_ERRORS as error:
            text = _culprit(good, error)
            bad.append((text, good.pop(text), error))
    for text, override, error in bad:
        faults.append(_composition_fault(text, override, error, composed))
    return composed, faults


def _culprit(overrides: Mapping[str, Override], error: Exception) -> str:
    """Find the override that an error is about."""
    missing = getattr(error, "missing_cfg_file", None) or ""
    named = re.search(r"Could not override '([^']+)'|argument '([^']+)'", str(error))
    wanted = {missing.rpartition("/")[0], *(named.groups() if named else ())}
    for text, override in overrides.items():
        if wanted & {text, override.key_or_group}:
            return text
    # The error does not say: it is the first without which something changes.
    for text in overrides:
        try:
            _hydra_compose([other for other in overrides if other != text])
            return text
        except COMPOSITION_ERRORS as other:
            if str(other) != str(error):
                return text
    raise error


def _hydra_compose(overrides: Sequence[str]) -> DictConfig:
    return hydra.compose("train", list(overrides), return_hydra_config=True)


def _composition_fault(
    text: str, override: Override, error: Exception, composed: DictConfig
) -> str:
    key = override.key_or_group
    groups = set(GlobalHydra.instance().config_loader().list_groups(""))
    if override.is_sweep_override():
        return f"{text}: several values make a sweep; add -m, or write a list as [a,b]"
    if isinstance(error, MissingConfigException) and error.options is not None:
        options = [option for option in error.options if option]
        return f"{text}: no such choice{_nearest(str(override.value()), options)}"
    node: Any = composed
    path = []
    for part in re.split(r"[./]", key):
        if not isinstance(node, DictConfig) or part not in node:
            there = sorted(str(k) for k in node if k != "hydra") if _is_node(node) else []
            there += sorted(groups - {"hydra"}) if not path else []
            above = ".".join(path) or "the root"
            because = f" (variant={composed.hydra.runtime.choices.variant})" if path else ""
            return f"{key}: {above} has no `{part}` here{because}{_nearest(part, set(there))}"
        path.append(part)
        node = node[part]
    return f"{text}: {_first_line(error)}"


def _instantiate(node: Any, trusted: Sequence[str], *wiring: Any) -> Any:
    if "_target_" not in node:
        raise ValueError(f"expected a choice with a _target_, got {node!r}")
    allowed = [f"{package}.*" for package in trusted]
    return instantiate(node, *wiring, _execution_whitelist_=allowed, _convert_="all")


@lru_cache
def _packages(config_dir: Path) -> list[str]:
    """List the packages that the user's own YAMLs name: what they wrote, they trust."""
    found = (
        re.findall(r"^\s*_target_:\s*['\"]?(\w+)\.", path.read_text(), re.MULTILINE)
        for path in sorted(config_dir.rglob("*.yaml"))
    )
    return sorted({name for names in found for name in names} - {"attnlab"})


def _nearest(given: str, names: Any) -> str:
    names = sorted(names)
    near = get_close_matches(given, names, n=1)
    if near:
        return f"; did you mean `{near[0]}`?"
    return f"; there is {', '.join(names)}" if names else "; there is none"


def _members(hint: Any) -> Iterator[Any]:
    if get_origin(hint) in (Union, UnionType):
        for member in get_args(hint):
            yield from _members(member)
    else:
        yield hint


def _name(hint: Any) -> str:
    names = {type(None): "null"}
    return " or ".join(
        names.get(h) or (h.__name__ if isclass(h) and not get_args(h) else str(h))
        for h in _members(hint)
    )


def _is_node(node: Any) -> bool:
    return OmegaConf.is_config(node)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
