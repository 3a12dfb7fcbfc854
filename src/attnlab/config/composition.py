"""Compose a config by Hydra, and say of each override that does not fit what would."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, RangeSweep, Sweep
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from attnlab.building import NOTHING, UserTargets, first_line
from attnlab.config import hints
from attnlab.config.config import UNPACKED
from attnlab.config.paths import unreadable_yaml, yaml_files
from attnlab.errors import ConfigError
from attnlab.signatures import nearest

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, TypeError, ValueError)
MOST_CELLS = 100_000
"""Runs of a sweep; more than that was hardly meant."""
ADDED_EXPERIMENTS = tuple(f"+{group}=" for group in UNPACKED)


def sweep_overrides(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each run of a sweep, inside `search_path`.

    Raises ConfigError for what cannot be read, stands for no value, or for far too many.
    """
    words, faults = parsed(overrides)
    choices: list[list[str]] = []
    keys = Counter(override.get_key_element() for override in words.values())
    for text, override in words.items():
        if override.is_sweep_override() and keys[override.get_key_element()] > 1:
            faults.append(f"{text}: {override.key_or_group} is given twice; leave one")
            continue
        if not override.is_sweep_override():
            choices.append([text])
        elif any(isinstance(value, (Glob, Sweep)) for value in _listed(override)):
            faults.append(f"{text}: a function stands alone, as in glob([a*,b*]) or range(1,5)")
        elif override.is_interval_sweep():
            faults.append(f"{text}: {hints.INTERVAL}")
        else:
            # One more than too many: a range can be longer than the memory.
            choices.append(list(islice(_values(override), MOST_CELLS + 1)))
            if not choices[-1]:
                faults.append(f"{text}: {_no_value(override)}")
    if not faults and math.prod(map(len, choices)) > MOST_CELLS:
        faults.append(f"the sweep has more than {MOST_CELLS:,} runs; sweep over fewer values")
    if faults:
        raise ConfigError(faults)
    return [list(cell) for cell in product(*choices)]


def parsed(overrides: Sequence[str]) -> tuple[dict[str, Override], list[str]]:
    """Read overrides; gives those that can be read by their text, and a fault for each other."""
    instance = GlobalHydra.instance()
    loader = instance.config_loader() if instance.is_initialized() else None
    parser = OverridesParser.create(config_loader=loader)
    words: dict[str, Override] = {}
    faults: list[str] = []
    for index, text in enumerate(overrides):
        # As Hydra's users write it where the defaults list has no experiment.
        text = text[1:] if text.startswith(ADDED_EXPERIMENTS) else text
        try:
            override = parser.parse_overrides([text])[0]
        except hints.UNREADABLE:
            if not (quoted := hints.quoted_home(text)):
                before = overrides[index - 1] if index else ""
                faults.append(hints.unreadable_override(text, parser, before))
                continue
            text, override = quoted, parser.parse_overrides([quoted])[0]
        swept: Any = override.value()
        if isinstance(swept, Sweep) and swept.tags:
            faults.append(f"{text}: {hints.TAG}")
        elif override.is_hydra_override():
            faults.append(hints.of_hydra(text))
        elif not override.key_or_group:
            hint = "the key is missing; expected KEY=VALUE, with no spaces around ="
            faults.append(f"{text}: {hint}")
        else:
            words[text] = override
    return words, faults


def composition(
    overrides: Sequence[str], own: UserTargets = NOTHING
) -> tuple[DictConfig, list[str]]:
    """Compose; where that fails, drop what is at fault and say why, so that the rest is checked.

    Raises ConfigError for a YAML of the user's that cannot be read.
    """
    good, faults = parsed(overrides)
    for text, override in list(good.items()):
        if hint := hints.deleted(override) or hints.no_name_of_a_choice(override):
            faults.append(f"{text}: {hint}")
            del good[text]
    # Hydra stops at its first fault. So the override at fault is left out and the others are
    # composed again; without that, a command line with three faults would take three calls to mend.
    bad: list[tuple[str, Override, Exception]] = []
    while True:
        try:
            composed = _hydra_compose(list(good))
            break
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            own_files = yaml_files(Path(own.config_dir)) if own.config_dir else ()
            raise ConfigError(list(unreadable_yaml(own_files)) or [first_line(error)]) from error
        except COMPOSITION_ERRORS as error:
            text = _culprit(good, error)
            bad.append((text, good.pop(text), error))
    groups = _groups() if bad else set()
    for text, override, error in bad:
        faults.append(_fault(text, override, error, composed, groups))
    return composed, faults


def _values(override: Override) -> Iterator[str]:
    """Yield the overrides that a sweep over values stands for; a range without a step has none."""
    swept: Any = override.value()
    if isinstance(swept, RangeSweep) and swept.step == 0:
        return iter(())
    key = override.get_key_element()
    return (f"{key}={value}" for value in override.sweep_string_iterator())


def _listed(override: Override) -> list[Any]:
    swept: Any = override.value()
    return list(swept.list) if isinstance(swept, ChoiceSweep) else []


def _no_value(override: Override) -> str:
    options = GlobalHydra.instance().config_loader().get_group_options(override.key_or_group)
    if options:
        return f"none of its choices fits; there is {', '.join(options)}"
    return "it stands for no value, so there would be nothing to train"


def _culprit(overrides: Mapping[str, Override], error: Exception) -> str:
    """Find the override that an error is about."""
    missing = getattr(error, "missing_cfg_file", None) or ""
    match = re.search(r"Could not override '([^']+)'|argument '([^']+)'", str(error))
    names_in_error = {missing.rpartition("/")[0], *(match.groups() if match else ())}
    # Two may choose from one group: a mixer, and one of its own (`model/mixer@model.mixer.a`).
    for text, override in overrides.items():
        if missing == f"{override.key_or_group}/{override.value()}":
            return text
    for text, override in overrides.items():
        if names_in_error & {text, override.key_or_group}:
            return text
    # The error does not say which it is: it is the first without which composing succeeds, or fails
    # otherwise. Another one would be blamed although it is good, and the error would come again.
    for text in overrides:
        try:
            _hydra_compose([remaining for remaining in overrides if remaining != text])
            return text
        except COMPOSITION_ERRORS as error_without:
            if str(error_without) != str(error):
                return text
    raise error


def _hydra_compose(overrides: Sequence[str]) -> DictConfig:
    return hydra.compose("train", list(overrides), return_hydra_config=True)


def _groups() -> set[str]:
    """Return the groups that choices are made from, `model/mixer` among them."""
    loader = GlobalHydra.instance().config_loader()

    def below(group: str) -> Iterator[str]:
        for name in loader.list_groups(group):
            path = f"{group}/{name}" if group else name
            yield path
            yield from below(path)

    return {group for group in below("") if group.split("/")[0] != "hydra"}


def _fault(
    text: str, override: Override, error: Exception, composed: DictConfig, groups: set[str]
) -> str:
    if override.is_sweep_override():
        return f"{text}: several values make a sweep; add -m, or write a list as [a,b]"
    if hint := hints.added(override, composed):
        return f"{text}: {hint}"
    if isinstance(error, MissingConfigException) and error.options is not None:
        missing = error.missing_cfg_file or ""
        if missing != f"{override.key_or_group}/{override.value()}":
            # The choice is there, and asks for another one that is not.
            name = missing.rpartition("/")[2]
            return f"{text}: it asks for {missing}, and there is none{nearest(name, error.options)}"
        return f"{text}: {hints.no_choice(override, error.options)}"
    hint = hints.no_key(text, override, composed, groups)
    return hint or f"{text}: {hints.asked_for(error) or first_line(error)}"
