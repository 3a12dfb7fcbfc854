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
from attnlab.signatures import nearest

UNREADABLE = (HydraException, OmegaConfBaseException)
"""What Hydra raises for an override that it cannot read."""
OF_HYDRA = {
    "hydra.run": "runs_dir=DIR says where runs go",
    "hydra.sweep": "runs_dir=DIR says where runs go",
    "hydra.launcher": "-j N trains several runs at once",
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


def of_hydra(text: str) -> str:
    """Say why a setting of Hydra itself is refused."""
    key, _, value = text.lstrip("+~").partition("=")
    setting = ".".join(re.split(r"[./]", key)[:2])
    instead = OF_HYDRA.get(setting, "leave it out")
    if setting == "hydra.launcher" and "/" in key and value not in LOCAL_LAUNCHERS:
        instead = CLUSTER
    return (
        f"{text}: attnlab composes by Hydra, but does not run by it, so this changes nothing; "
        f"{instead}"
    )


def unreadable_override(text: str, parser: OverridesParser, before: str = "") -> str:
    """Say how an override that cannot be read is written; `before` is the word in front of it."""
    key, equals, value = text.partition("=")
    if not equals:
        return f"{text}: expected KEY=VALUE{_rest_of_a_value(text, before, parser)}"
    if not key.lstrip("+~"):
        return f"{text}: the key is missing; expected KEY=VALUE, with no spaces around ="
    if value.rstrip().endswith(",") and _is_readable(f"{key}={value.rstrip().rstrip(',')}", parser):
        return (
            f"{text}: it ends in a comma; leave that out, and a sweep's values are 1,2 (no spaces)"
        )
    if (called := re.match(r"(\w+)\(", value)) and (hint := _function_hint(called[1])):
        return f"{text}: {hint}"
    if value[:1] not in ("[", "{") and _is_readable(quoted := _quoted(key, value), parser):
        return f"{text}: a text with such characters stands in quotes: {shlex.quote(quoted)}"
    example = f"""'{key}=["one, two","three"]'"""
    return (
        f"{text}: cannot be read as KEY=VALUE; a text with one of ,:'()[]{{}} or a space around it "
        f"stands in quotes, as in {example}"
    )


def asked_for(error: Exception) -> str | None:
    """Say which group a choice makes a choice in, where the rest of the config has none such."""
    match = re.search(r"In '([^']+)': Invalid Defaults List override '/?([^:']+)", str(error))
    return f"{match[1]} makes a choice of {match[2]}, and there is none here" if match else None


def deleted(override: Override) -> str | None:
    """Say what to do instead of deleting what a run needs; None for what it does not need."""
    group = override.key_or_group
    is_needed = override.is_delete() and group.split("/")[0] in REQUIRED
    if not is_needed or "." in group or not _options(group):
        return None
    options = _options(group)
    choices = _either(options) if len(options) <= MOST_LISTED else f"one of `attnlab list {group}`"
    return f"a run needs a choice of {group}; leave it out, or choose {choices}"


def added(override: Override, composed: DictConfig) -> str | None:
    """Say how a choice is made of a group that has one; None where nothing else is added."""
    group = override.key_or_group
    is_added = override.is_add() or override.is_force_add()
    if not is_added or group not in composed.hydra.runtime.choices:
        return None
    return f"{group} has a choice already; write {group}={override.value()} to make another"


def quoted_home(text: str) -> str | None:
    """Return an override that gives a path below `~` in quotes, without which Hydra has no `~`."""
    key, _, value = text.partition("=")
    return _quoted(key, value) if value.startswith("~/") else None


def no_name_of_a_choice(override: Override) -> str | None:
    """Say what to write where a group is given a number, on which Hydra fails, or a key a choice.

    Returns None where neither is so.
    """
    group, value = override.key_or_group, override.value()
    if override.is_sweep_override() or override.is_delete():
        return None
    slashed = group.replace(".", "/")
    options = _options(slashed)
    if value is None:
        is_choice = options and slashed == group
        return (
            f"{group} is a choice of {', '.join(options)}; or leave it out" if is_choice else None
        )
    if isinstance(value, str):
        is_key = slashed != group and value in options
        return f"a choice is made with a slash: {slashed}={value}" if is_key else None
    if isinstance(value, (list, dict)) or not options or slashed != group:
        return None
    meant = [f"{key}={value}" for key in _numbers_in(group, options[0])]
    instead = f"; for a number, {' or '.join(meant)}" if meant else ""
    return f"{group} is a choice of {', '.join(options)}{instead}"


def no_choice(override: Override, options: Sequence[str]) -> str:
    """Say which choice was probably meant."""
    choices = sorted(option for option in options if option)
    if not choices:
        group = override.key_or_group
        return f"no such choice; {group}/NAME.yaml below your --config-dir would make one"
    return f"no such choice{nearest(str(override.value()), choices)}"


def no_key(text: str, override: Override, composed: DictConfig, groups: set[str]) -> str | None:
    """Say that a key is not in a config, and which was probably meant; None where it is there."""
    key = override.key_or_group
    node: Any = composed
    path: list[str] = []
    for part in re.split(r"[./]", key):
        if not isinstance(node, (DictConfig, ListConfig)) or not _has(node, part):
            break
        path.append(part)
        node = _child(node, part)
    else:
        return None
    if node is None:
        meant = _choice_that_sets(path, groups)
        return f"{key}: {'.'.join(path)} is null here{_because(path, composed)}{meant}"
    choices = composed.hydra.runtime.choices
    if not path and key in choices:
        if override.value() in _options(key):
            # The choice is there; what it asks for is not.
            return None
        return f"{text}: {no_choice(override, [])}"
    above = ".".join(path) or "the root"
    siblings = sorted(map(str, node)) if isinstance(node, DictConfig) else []
    siblings = [name for name in siblings if name not in {"hydra", *DIRECTIVES}]
    siblings += [] if path else sorted(group for group in groups if "/" not in group)
    hint = _having(path, part, groups)
    hint = hint or _meant(override, part, siblings, list(_keys(composed)), groups)
    hint = hint or nearest(part, {*siblings} - {part})
    return f"{key}: {above} has no `{part}` here{_because(path, composed)}{hint}"


def _meant(
    override: Override, part: str, siblings: Sequence[str], keys: Sequence[str], groups: set[str]
) -> str:
    """Find the key or group that was probably meant, here or elsewhere in the config.

    It is a group that has this choice, else the same name elsewhere, a similar one here, a similar
    one elsewhere.
    """
    key = override.key_or_group
    last = re.split(r"[./]", key)[-1]
    for group in sorted(groups):
        choice = override.value()
        if group != key and group.split("/")[-1] == last and choice in _options(group):
            return f"; did you mean `{group}={choice}`?"
    last = OTHER_NAMES.get(last, last)
    # `steps` is meant for `max_steps`, and `layers` for `num_layers` rather than one far away.
    same_name = [key for key in keys if last in (name := key.split(".")[-1], *name.split("_")[1:])]
    if not same_name:
        names = {key.split(".")[-1] for key in keys}
        here = max((_likeness(part, name) for name in siblings), default=0.0)
        similar = get_close_matches(last, names, n=1, cutoff=LIKE_ENOUGH)
        if similar and _likeness(last, similar[0]) > here:
            same_name = [key for key in keys if key.split(".")[-1] == similar[0]]
    if same_name:
        best = max(same_name, key=lambda dotted: _likeness(override.key_or_group, dotted))
        return f"; did you mean `{best}`?"
    return ""


def _rest_of_a_value(word: str, before: str, parser: OverridesParser) -> str:
    """Say how a value with a space is written, where a word may be the rest of one."""
    key, equals, value = before.partition("=")
    is_key = word in ROOT_KNOBS or _options(word.partition(".")[0])
    if not equals or not value or is_key or word[:1] in "~+-=":
        return ""
    joined = f"{before} {word}"
    if not _is_readable(joined, parser):
        joined = _quoted(key, f"{value} {word}")
    return f"; a value with a space stands in quotes: {shlex.quote(joined)}"


def _function_hint(name: str) -> str:
    """Say how a function of Hydra's is written, or which was meant; empty for another text."""
    if name not in FUNCTIONS:
        near = get_close_matches(name, FUNCTIONS, n=1, cutoff=LIKE_ENOUGH)
        return f"there is no function `{name}`; did you mean {FUNCTIONS[near[0]]}?" if near else ""
    if form := FUNCTIONS[name]:
        return f"`{name}` cannot be read; expected a form such as {form}, without spaces"
    return TAG if name == "tag" else INTERVAL


def _either(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _options(group: str) -> list[str]:
    return GlobalHydra.instance().config_loader().get_group_options(group)


def _likeness(first_name: str, second_name: str) -> float:
    return SequenceMatcher(None, first_name, second_name).ratio()


def _choice_that_sets(path: Sequence[str], groups: set[str]) -> str:
    """Name the choice `group=key` that sets a null key, where its group has one of that name."""
    group, null_key = "/".join(path[:-1]), path[-1]
    has_choice = group in groups and null_key in _options(group)
    return f"; {group}={null_key} sets it" if has_choice else ""


def _because(path: Sequence[str], composed: DictConfig) -> str:
    """Name the choice that made a section what it is: the one that was asked for."""
    if not path:
        return ""
    choices = composed.hydra.runtime.choices
    groups = ["/".join(path[:length]) for length in range(len(path), 0, -1)]
    asked_groups = [word.lstrip("+").partition("=")[0] for word in composed.hydra.overrides.task]
    for group in groups:
        if group in asked_groups and choices.get(group) is not None:
            return f" ({group}={choices[group]})"
    if path[0] == "model":
        return f" (variant={choices.variant})"
    for group in groups:
        if choices.get(group) is not None:
            return f" ({group}={choices[group]})"
    return ""


def _having(path: Sequence[str], knob: str, groups: set[str]) -> str:
    """Name the choices of a section's group that have a knob; empty where none has."""
    group = "/".join(path)
    if group not in groups:
        return ""
    having = [option for option in _options(group) if knob in _stated_knobs(group, option)]
    if not having:
        return ""
    more = f" and {len(having) - MOST_NAMED} more" if len(having) > MOST_NAMED else ""
    return f"; it is a knob of {group}={', '.join(having[:MOST_NAMED])}{more}"


def _stated_knobs(group: str, option: str) -> set[str]:
    """Return the keys at the top of a choice's own YAML."""
    for source in GlobalHydra.instance().config_loader().get_sources():
        if source.available() and source.is_config(f"{group}/{option}"):
            config = source.load_config(f"{group}/{option}").config
            return {str(key) for key in config} if isinstance(config, DictConfig) else set()
    return set()


def _has(node: DictConfig | ListConfig, part: str) -> bool:
    if isinstance(node, ListConfig):
        return part.isdecimal() and int(part) < len(node)
    return part in node


def _child(node: DictConfig | ListConfig, part: str) -> Any:
    return node[int(part)] if isinstance(node, ListConfig) else node[part]


def _keys(node: Any, above: str = "") -> Iterator[str]:
    """Yield every dotted key of a config, those of Hydra and of directives left out."""
    if not isinstance(node, DictConfig):
        return
    for name in node:
        if name in DIRECTIVES or (not above and name == "hydra"):
            continue
        path = f"{above}.{name}" if above else str(name)
        yield path
        if not OmegaConf.is_missing(node, name) and not OmegaConf.is_interpolation(node, str(name)):
            yield from _keys(node[name], path)


def _numbers_in(group: str, option: str) -> list[str]:
    """Return the keys of the numbers that a choice sets, unless it names something to build."""
    for source in GlobalHydra.instance().config_loader().get_sources():
        if not source.available() or not source.is_config(f"{group}/{option}"):
            continue
        result = source.load_config(f"{group}/{option}")
        if not isinstance(result.config, DictConfig) or "_target_" in result.config:
            return []
        package = result.header.get("package") or group.replace("/", ".")
        above = "" if package == "_global_" else f"{package}."
        numbers = {key: OmegaConf.select(result.config, key) for key in _keys(result.config)}
        return [f"{above}{k}" for k, v in numbers.items() if isinstance(v, (int, float))]
    return []


def _quoted(key: str, value: str) -> str:
    # Backslashes stand for themselves but before a quote.
    inside = re.sub(r'(\\*)"', r'\1\1\\"', value)
    end = re.search(r"\\*$", inside)
    assert end is not None
    return f'{key}="{inside}{end[0]}"'


def _is_readable(text: str, parser: OverridesParser) -> bool:
    try:
        parser.parse_overrides([text])
    except UNREADABLE:
        return False
    return True
