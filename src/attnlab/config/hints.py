"""What was probably meant by an override that does not fit."""

import re
import shlex
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher, get_close_matches
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from attnlab.building import DIRECTIVES
from attnlab.config.config import ROOT_KNOBS, SECTIONS
from attnlab.signatures import nearest_hint

UNREADABLE = (HydraException, OmegaConfBaseException)
"""What Hydra raises for an override that it cannot read."""
HYDRA_ALTERNATIVES = {
    "hydra.run": "runs_dir=DIR says where runs go",
    "hydra.sweep": "runs_dir=DIR says where runs go",
    "hydra.launcher": "launcher=processes (or -j N) trains several runs at once",
    "hydra.searchpath": "--config-dir DIR adds your own configs",
    "hydra.sweeper": (
        "a sweep is a grid: write the values as KEY=1,2 or range(1,5); for a search, call "
        "`attnlab.train` in Python from a study of Optuna or another library"
    ),
}
"""What does for attnlab what a setting of Hydra's does elsewhere."""
LOCAL_LAUNCHERS = ("basic", "joblib", "loky", "multiprocessing")
CLUSTER = (
    "there is no launcher for a cluster; put the same `attnlab train -m` command into several "
    "jobs: those with one runs_dir share its runs, and train each once"
)
FUNCTIONS = {
    "choice": "choice(a,b)",
    "range": "range(1,5)",
    "glob": "glob(l*)",
    "sort": "sort(2,1)",
    "shuffle": "shuffle(1,2)",
    "interval": "",
    "tag": "",
}
"""The functions by which Hydra writes several values, and how; empty: of no use here."""
INTERVAL = "an interval is a range to search in; write values as 0.1,0.2 or range(1,5)"
TAG = "a tag is for a search, and a sweep here is a grid; write its values alone, as in 0.1,0.2"
REQUIRED = (*SECTIONS, "variant", "depth", "size")
"""The groups of which a run needs a choice."""


OTHER_NAMES = {
    "learning_rate": "lr",
    "hidden_size": "d_model",
    "dim": "d_model",
    "n_embd": "d_model",
    "n_head": "num_heads",
    "n_layer": "num_layers",
    "n_heads": "num_heads",
    "n_layers": "num_layers",
    "epochs": "max_steps",
}
"""What other libraries call a knob."""
LIKE_ENOUGH = 0.75
"""How like a name elsewhere must be, from 0 to 1, to be the one that was meant."""
MOST_LISTED = 6
"""How many choices of a group are listed."""
MOST_NAMED = 4
"""How many choices that have a knob are named."""


def hydra_setting_fault(override: str) -> str:
    """Return why a setting of Hydra itself is refused."""
    key, _, value = override.lstrip("+~").partition("=")
    setting = ".".join(re.split(r"[./]", key)[:2])
    advice = HYDRA_ALTERNATIVES.get(setting, "leave it out")
    if setting == "hydra.launcher" and "/" in key and value not in LOCAL_LAUNCHERS:
        advice = CLUSTER
    return (
        f"{override}: attnlab composes by Hydra, but does not run by it, so this changes nothing; "
        f"{advice}"
    )


def unreadable_override_fault(text: str, parser: OverridesParser, previous_word: str = "") -> str:
    """Return how an override that cannot be read is written; `previous_word` stands before it."""
    key, equals, value = text.partition("=")
    if not equals:
        return f"{text}: expected KEY=VALUE{_space_hint(text, previous_word, parser)}"
    if not key.lstrip("+~"):
        return f"{text}: the key is missing; expected KEY=VALUE, with no spaces around ="
    if value.rstrip().endswith(",") and _is_readable(f"{key}={value.rstrip().rstrip(',')}", parser):
        return (
            f"{text}: it ends in a comma; leave that out, and a sweep's values are 1,2 (no spaces)"
        )
    function_match = re.match(r"(\w+)\(", value)
    function_hint = _function_hint(function_match[1]) if function_match else ""
    if function_hint:
        return f"{text}: {function_hint}"
    quoted_override = _quote_value(key, value)
    if value[:1] not in ("[", "{") and _is_readable(quoted_override, parser):
        in_quotes = shlex.quote(quoted_override)
        return f"{text}: a text with such characters stands in quotes: {in_quotes}"
    example = f"""'{key}=["one, two","three"]'"""
    return (
        f"{text}: cannot be read as KEY=VALUE; a text with one of ,:'()[]{{}} or a space around it "
        f"stands in quotes, as in {example}"
    )


def missing_group_hint(error: Exception) -> str | None:
    """Return which group a choice makes a choice in, where the rest of the config has none such."""
    match = re.search(r"In '([^']+)': Invalid Defaults List override '/?([^:']+)", str(error))
    return f"{match[1]} makes a choice of {match[2]}, and there is none here" if match else None


def deletion_hint(override: Override) -> str | None:
    """Return what to do instead of deleting what a run needs; None for what it does not need."""
    group = override.key_or_group
    is_needed = override.is_delete() and group.split("/")[0] in REQUIRED
    if not is_needed or "." in group or not _choice_names(group):
        return None
    choices = _choice_names(group)
    is_short = len(choices) <= MOST_LISTED
    choices_text = _join_with_or(choices) if is_short else f"one of `attnlab list {group}`"
    return f"a run needs a choice of {group}; leave it out, or choose {choices_text}"


def addition_hint(override: Override, composed_config: DictConfig) -> str | None:
    """Return how a choice is made of a group that has one; None where nothing else is added."""
    group = override.key_or_group
    is_added = override.is_add() or override.is_force_add()
    if not is_added or group not in composed_config.hydra.runtime.choices:
        return None
    return f"{group} has a choice already; write {group}={override.value()} to make another"


def quote_home_path(text: str) -> str | None:
    """Return an override that gives a path below `~` in quotes, without which Hydra has no `~`."""
    key, _, value = text.partition("=")
    return _quote_value(key, value) if value.startswith("~/") else None


def choice_value_hint(override: Override) -> str | None:
    """Return what to write where a group is given a number, or a key a choice; None elsewhere.

    Hydra itself fails on a number.
    """
    group, value = override.key_or_group, override.value()
    if override.is_sweep_override() or override.is_delete():
        return None
    group_path = group.replace(".", "/")
    choices = _choice_names(group_path)
    if value is None:
        is_choice = choices and group_path == group
        return (
            f"{group} is a choice of {', '.join(choices)}; or leave it out" if is_choice else None
        )
    if isinstance(value, str):
        is_key = group_path != group and value in choices
        return f"a choice is made with a slash: {group_path}={value}" if is_key else None
    if isinstance(value, (list, dict)) or not choices or group_path != group:
        return None
    number_overrides = [f"{key}={value}" for key in _number_keys(group, choices[0])]
    alternative_text = (
        f"; for a number, {' or '.join(number_overrides)}" if number_overrides else ""
    )
    return f"{group} is a choice of {', '.join(choices)}{alternative_text}"


def unknown_choice_hint(override: Override, choices: Sequence[str], config_dir: str | None) -> str:
    """Return which choice was probably meant; `config_dir` is that of the user's own."""
    sorted_choices = sorted(choice for choice in choices if choice)
    if not sorted_choices:
        group = override.key_or_group
        return f"no such choice; {group}/NAME.yaml below your --config-dir would make one"
    hint = nearest_hint(str(override.value()), sorted_choices)
    is_meant = "did you mean" in hint
    own_hint = "" if is_meant or config_dir else "; one of your own needs --config-dir DIR"
    return f"no such choice{hint}{own_hint}"


def unknown_key_hint(
    text: str, override: Override, composed_config: DictConfig, groups: set[str]
) -> str | None:
    """Return that a config lacks a key, and which was probably meant; None where it has it."""
    key = override.key_or_group
    node, path, missing_name = _follow_key(composed_config, key)
    if missing_name is None:
        return None
    if node is None:
        null_hint = _null_key_hint(path, groups)
        return (
            f"{key}: {'.'.join(path)} is null here{_cause_text(path, composed_config)}{null_hint}"
        )
    if not path and key in composed_config.hydra.runtime.choices:
        if override.value() in _choice_names(key):
            # The choice is there; what it asks for is not.
            return None
        return f"{text}: {unknown_choice_hint(override, [], None)}"
    siblings = sorted(map(str, node)) if isinstance(node, DictConfig) else []
    siblings = [name for name in siblings if name not in {"hydra", *DIRECTIVES}]
    siblings += [] if path else sorted(group for group in groups if "/" not in group)
    keys = list(_dotted_keys(composed_config))
    hint = (
        _knob_elsewhere_hint(path, missing_name, groups)
        or _similar_key_hint(override, missing_name, siblings, keys, groups)
        or nearest_hint(missing_name, {*siblings} - {missing_name})
    )
    section = ".".join(path) or "the root"
    cause = _cause_text(path, composed_config)
    return f"{key}: {section} has no `{missing_name}` here{cause}{hint}"


def _follow_key(composed_config: DictConfig, key: str) -> tuple[Any, list[str], str | None]:
    """Return the last node on the way to a key, its path, and the name that it lacks, if any."""
    node: Any = composed_config
    path: list[str] = []
    for name in re.split(r"[./]", key):
        if not isinstance(node, (DictConfig, ListConfig)) or not _has_child(node, name):
            return node, path, name
        path.append(name)
        node = _child(node, name)
    return node, path, None


def _similar_key_hint(
    override: Override,
    missing_name: str,
    siblings: Sequence[str],
    keys: Sequence[str],
    groups: set[str],
) -> str:
    """Return the key or group that was probably meant, here or elsewhere in the config.

    It is a group that has this choice, else the same name elsewhere, a similar one here, a similar
    one elsewhere.
    """
    key = override.key_or_group
    last_name = re.split(r"[./]", key)[-1]
    for group in sorted(groups):
        choice = override.value()
        if group != key and group.split("/")[-1] == last_name and choice in _choice_names(group):
            return f"; did you mean `{group}={choice}`?"
    last_name = OTHER_NAMES.get(last_name, last_name)
    # `steps` is meant for `max_steps`, and `layers` for `num_layers` rather than one far away.
    candidates = [key for key in keys if _is_called(key, last_name)]
    if not candidates:
        names = {key.split(".")[-1] for key in keys}
        likeness_of_siblings = max(
            (_likeness(missing_name, name) for name in siblings), default=0.0
        )
        similar = get_close_matches(last_name, names, n=1, cutoff=LIKE_ENOUGH)
        if similar and _likeness(last_name, similar[0]) > likeness_of_siblings:
            candidates = [key for key in keys if key.split(".")[-1] == similar[0]]
    if candidates:
        likeliest_key = max(candidates, key=lambda dotted: _likeness(override.key_or_group, dotted))
        return f"; did you mean `{likeliest_key}`?"
    return ""


def _is_called(key: str, name: str) -> bool:
    """Return whether the last part of a dotted key is a name, or has it behind a `_`."""
    last_part = key.split(".")[-1]
    return name in (last_part, *last_part.split("_")[1:])


def _space_hint(word: str, previous_word: str, parser: OverridesParser) -> str:
    """Return how a value with a space is written, where a word may be the rest of one."""
    key, equals, value = previous_word.partition("=")
    is_key = word in ROOT_KNOBS or _choice_names(word.partition(".")[0])
    if not equals or not value or is_key or word[:1] in "~+-=":
        return ""
    joined_override = f"{previous_word} {word}"
    if not _is_readable(joined_override, parser):
        joined_override = _quote_value(key, f"{value} {word}")
    return f"; a value with a space stands in quotes: {shlex.quote(joined_override)}"


def _function_hint(name: str) -> str:
    """Return how a function of Hydra's is written, or which was meant; empty for another text."""
    if name not in FUNCTIONS:
        close_names = get_close_matches(name, FUNCTIONS, n=1, cutoff=LIKE_ENOUGH)
        if not close_names:
            return ""
        return f"there is no function `{name}`; did you mean {FUNCTIONS[close_names[0]]}?"
    if example := FUNCTIONS[name]:
        return f"`{name}` cannot be read; expected a form such as {example}, without spaces"
    return TAG if name == "tag" else INTERVAL


def _join_with_or(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _choice_names(group: str) -> list[str]:
    return GlobalHydra.instance().config_loader().get_group_options(group)


def _likeness(first_name: str, second_name: str) -> float:
    return SequenceMatcher(None, first_name, second_name).ratio()


def _null_key_hint(path: Sequence[str], groups: set[str]) -> str:
    """Name the choice `group=key` that sets a null key, where its group has one of that name."""
    group, null_key = "/".join(path[:-1]), path[-1]
    has_choice = group in groups and null_key in _choice_names(group)
    return f"; {group}={null_key} sets it" if has_choice else ""


def _cause_text(path: Sequence[str], composed_config: DictConfig) -> str:
    """Name the choice that made a section what it is: the one that was asked for."""
    if not path:
        return ""
    choices = composed_config.hydra.runtime.choices
    groups = ["/".join(path[:length]) for length in range(len(path), 0, -1)]
    overridden_groups = [
        override.lstrip("+").partition("=")[0] for override in composed_config.hydra.overrides.task
    ]
    for group in groups:
        if group in overridden_groups and choices.get(group) is not None:
            return f" ({group}={choices[group]})"
    if path[0] == "model":
        return f" (variant={choices.variant})"
    for group in groups:
        if choices.get(group) is not None:
            return f" ({group}={choices[group]})"
    return ""


def _knob_elsewhere_hint(path: Sequence[str], knob: str, groups: set[str]) -> str:
    """Return which choices of a section's group have a knob; empty where none has."""
    group = "/".join(path)
    if group not in groups:
        return ""
    choices_with_knob = [c for c in _choice_names(group) if knob in _knobs_in_yaml(group, c)]
    if not choices_with_knob:
        return ""
    num_unnamed = len(choices_with_knob) - MOST_NAMED
    remainder = f" and {num_unnamed} more" if num_unnamed > 0 else ""
    return f"; it is a knob of {group}={', '.join(choices_with_knob[:MOST_NAMED])}{remainder}"


def _knobs_in_yaml(group: str, choice: str) -> set[str]:
    """Return the keys at the top of a choice's own YAML."""
    return {str(key) for key in load_choice(group, choice)}


def load_choice(group: str, choice: str) -> DictConfig:
    """Return what a choice's own YAML states; empty where there is none."""
    for source in GlobalHydra.instance().config_loader().get_sources():
        if source.available() and source.is_config(f"{group}/{choice}"):
            config = source.load_config(f"{group}/{choice}").config
            return config if isinstance(config, DictConfig) else OmegaConf.create()
    return OmegaConf.create()


def _has_child(node: DictConfig | ListConfig, part: str) -> bool:
    if isinstance(node, ListConfig):
        return part.isdecimal() and int(part) < len(node)
    return part in node


def _child(node: DictConfig | ListConfig, part: str) -> Any:
    return node[int(part)] if isinstance(node, ListConfig) else node[part]


def _dotted_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield every dotted key of a config, those of Hydra and of directives left out."""
    if not isinstance(node, DictConfig):
        return
    for name in node:
        if name in DIRECTIVES or (not prefix and name == "hydra"):
            continue
        path = f"{prefix}.{name}" if prefix else str(name)
        yield path
        if not OmegaConf.is_missing(node, name) and not OmegaConf.is_interpolation(node, str(name)):
            yield from _dotted_keys(node[name], path)


def _number_keys(group: str, choice: str) -> list[str]:
    """Return the keys of the numbers that a choice sets, unless it names something to build."""
    for source in GlobalHydra.instance().config_loader().get_sources():
        if not source.available() or not source.is_config(f"{group}/{choice}"):
            continue
        loaded_yaml = source.load_config(f"{group}/{choice}")
        if not isinstance(loaded_yaml.config, DictConfig) or "_target_" in loaded_yaml.config:
            return []
        package = loaded_yaml.header.get("package") or group.replace("/", ".")
        prefix = "" if package == "_global_" else f"{package}."
        value_by_key = {
            key: OmegaConf.select(loaded_yaml.config, key)
            for key in _dotted_keys(loaded_yaml.config)
        }
        return [f"{prefix}{k}" for k, v in value_by_key.items() if isinstance(v, (int, float))]
    return []


def _quote_value(key: str, value: str) -> str:
    # Backslashes stand for themselves but before a quote.
    escaped_value = re.sub(r'(\\*)"', r'\1\1\\"', value)
    trailing_backslashes = re.search(r"\\*$", escaped_value)
    assert trailing_backslashes is not None
    return f'{key}="{escaped_value}{trailing_backslashes[0]}"'


def _is_readable(text: str, parser: OverridesParser) -> bool:
    try:
        parser.parse_overrides([text])
    except UNREADABLE:
        return False
    return True
