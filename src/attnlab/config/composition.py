"""Compose a config by Hydra, and say of each override that does not fit what would."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, RangeSweep, Sweep
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from attnlab.building import NO_USER_TARGETS, UserTargets, first_line
from attnlab.config import hints
from attnlab.config.config import ROOT_KNOBS, UNPACKED
from attnlab.config.paths import unreadable_yaml, yaml_files
from attnlab.errors import ConfigError
from attnlab.signatures import nearest_hint

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, TypeError, ValueError)
MOST_CELLS = 100_000
"""Runs of a sweep; more than that was hardly meant."""
ADDED_EXPERIMENTS = tuple(f"+{group}=" for group in UNPACKED)


def sweep_overrides(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each run of a sweep, inside `search_path`.

    Raises ConfigError for what cannot be read, stands for no value, or for far too many.
    """
    override_by_text, faults = parse_overrides(overrides)
    alternatives: list[list[str]] = []
    key_counts = Counter(override.get_key_element() for override in override_by_text.values())
    for text, override in override_by_text.items():
        if override.is_sweep_override() and key_counts[override.get_key_element()] > 1:
            faults.append(f"{text}: {override.key_or_group} is given twice; leave one")
            continue
        if not override.is_sweep_override():
            alternatives.append([text])
        elif any(isinstance(value, (Glob, Sweep)) for value in _listed_values(override)):
            faults.append(f"{text}: a function stands alone, as in glob([a*,b*]) or range(1,5)")
        elif override.is_interval_sweep():
            faults.append(f"{text}: {hints.INTERVAL}")
        else:
            # One more than too many: a range can be longer than the memory.
            alternatives.append(list(islice(_single_overrides(override), MOST_CELLS + 1)))
            if not alternatives[-1]:
                faults.append(f"{text}: {_no_value_text(override)}")
    if not faults and math.prod(map(len, alternatives)) > MOST_CELLS:
        faults.append(f"the sweep has more than {MOST_CELLS:,} runs; sweep over fewer values")
    if faults:
        raise ConfigError(faults)
    return [list(cell) for cell in product(*alternatives)]


class ParsedOverrides(NamedTuple):
    """Overrides as Hydra reads them."""

    by_text: dict[str, Override]
    """Those that can be read, by their text."""
    faults: list[str]
    """A line for each of the others."""


def parse_overrides(overrides: Sequence[str]) -> ParsedOverrides:
    """Read overrides; those that cannot be read, or change nothing here, become faults."""
    instance = GlobalHydra.instance()
    loader = instance.config_loader() if instance.is_initialized() else None
    parser = OverridesParser.create(config_loader=loader)
    override_by_text: dict[str, Override] = {}
    faults: list[str] = []
    for index, word in enumerate(overrides):
        # As Hydra's users write it where the defaults list has no experiment.
        text = word[1:] if word.startswith(ADDED_EXPERIMENTS) else word
        try:
            (override,) = parser.parse_overrides([text])
        except hints.UNREADABLE:
            quoted_override = hints.quote_home_path(text)
            if quoted_override is None:
                previous_word = overrides[index - 1] if index else ""
                faults.append(hints.unreadable_override_fault(text, parser, previous_word))
                continue
            text = quoted_override
            (override,) = parser.parse_overrides([text])
        fault = _override_fault(text, override)
        if fault is None:
            override_by_text[text] = override
        else:
            faults.append(fault)
    return ParsedOverrides(override_by_text, faults)


def _override_fault(text: str, override: Override) -> str | None:
    """Return why an override that can be read is refused; None where it is not."""
    value: Any = override.value()
    if isinstance(value, Sweep) and value.tags:
        return f"{text}: {hints.TAG}"
    if override.is_hydra_override():
        return hints.hydra_setting_fault(text)
    if not override.key_or_group:
        return f"{text}: the key is missing; expected KEY=VALUE, with no spaces around ="
    return None


def compose_with_faults(
    overrides: Sequence[str], user_targets: UserTargets = NO_USER_TARGETS
) -> tuple[DictConfig, list[str]]:
    """Compose; where that fails, drop what is at fault and say why, so that the rest is checked.

    Raises ConfigError for a YAML of the user's that cannot be read.
    """
    composable, faults = parse_overrides(overrides)
    for text, override in list(composable.items()):
        if hint := hints.deletion_hint(override) or hints.choice_value_hint(override):
            faults.append(f"{text}: {hint}")
            del composable[text]
    # Hydra stops at its first fault. So the override at fault is left out and the others are
    # composed again; without that, a command line with three faults would take three calls to mend.
    failures: list[tuple[str, Override, Exception]] = []
    while True:
        try:
            composed_config = _hydra_compose(list(composable))
            break
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            config_dir = user_targets.config_dir
            user_files = yaml_files(Path(config_dir)) if config_dir else ()
            raise ConfigError(list(unreadable_yaml(user_files)) or [first_line(error)]) from error
        except COMPOSITION_ERRORS as error:
            text = _find_override_at_fault(composable, error)
            failures.append((text, composable.pop(text), error))
    groups = _group_names() if failures else set()
    for text, override, error in failures:
        faults.append(_fault_text(text, override, error, composed_config, groups, user_targets))
    return composed_config, faults


def overrides_only_choose(composed_config: DictConfig) -> bool:
    """Return whether each override that was composed is a choice, as `variant=moe`, or at the root.

    No knob of a component then differs from what conf/ states.
    """
    # Not resolved, since an override may hold an interpolation that cannot be.
    overrides = OmegaConf.to_container(composed_config.hydra.overrides.task, resolve=False)
    assert isinstance(overrides, list)
    keys = {str(override).partition("=")[0] for override in overrides}
    return keys <= {*ROOT_KNOBS, *(name for name in _group_names() if "/" not in name)}


def _single_overrides(override: Override) -> Iterator[str]:
    """Yield the overrides that a sweep over values stands for; a range without a step has none."""
    values: Any = override.value()
    if isinstance(values, RangeSweep) and values.step == 0:
        return iter(())
    key = override.get_key_element()
    return (f"{key}={value}" for value in override.sweep_string_iterator())


def _listed_values(override: Override) -> list[Any]:
    values: Any = override.value()
    return list(values.list) if isinstance(values, ChoiceSweep) else []


def _no_value_text(override: Override) -> str:
    choices = GlobalHydra.instance().config_loader().get_group_options(override.key_or_group)
    if choices:
        return f"none of its choices fits; there is {', '.join(choices)}"
    return "it stands for no value, so there would be nothing to train"


def _find_override_at_fault(overrides: Mapping[str, Override], error: Exception) -> str:
    """Return the text of the override that an error is about."""
    missing_choice = getattr(error, "missing_cfg_file", None) or ""
    match = re.search(r"Could not override '([^']+)'|argument '([^']+)'", str(error))
    names_in_error = {missing_choice.rpartition("/")[0], *(match.groups() if match else ())}
    # Two may choose from one group: a mixer, and one of its own (`model/mixer@model.mixer.a`).
    for text, override in overrides.items():
        if missing_choice == f"{override.key_or_group}/{override.value()}":
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


def _group_names() -> set[str]:
    """Return the groups that choices are made from, `model/mixer` among them."""
    loader = GlobalHydra.instance().config_loader()

    def subgroups(group: str) -> Iterator[str]:
        for name in loader.list_groups(group):
            path = f"{group}/{name}" if group else name
            yield path
            yield from subgroups(path)

    return {group for group in subgroups("") if group.split("/")[0] != "hydra"}


def _fault_text(
    text: str,
    override: Override,
    error: Exception,
    composed_config: DictConfig,
    groups: set[str],
    user_targets: UserTargets,
) -> str:
    """Return why Hydra cannot compose a config with an override, and what was probably meant.

    `composed_config` is composed without it.
    """
    if override.is_sweep_override():
        return f"{text}: several values make a sweep; add -m, or write a list as [a,b]"
    if hint := hints.addition_hint(override, composed_config):
        return f"{text}: {hint}"
    if isinstance(error, MissingConfigException) and error.options is not None:
        missing_choice = error.missing_cfg_file or ""
        if missing_choice != f"{override.key_or_group}/{override.value()}":
            # The choice is there, and asks for another one that is not.
            hint = nearest_hint(missing_choice.rpartition("/")[2], error.options)
            return f"{text}: it asks for {missing_choice}, and there is none{hint}"
        hint = hints.unknown_choice_hint(override, error.options, user_targets.config_dir)
        return f"{text}: {hint}"
    hint = hints.unknown_key_hint(text, override, composed_config, groups)
    return hint or f"{text}: {hints.missing_group_hint(error) or first_line(error)}"
