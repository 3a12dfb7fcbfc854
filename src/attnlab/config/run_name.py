"""The readable part of a run's name, and the name of a sweep: what was chosen, and what differs."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from attnlab.config.config import NOT_IN_IDENTITY, Config
from attnlab.run_record.choice_name import shortest_endings

MOST_CHARACTERS = 64
"""The longest readable part of a name, without seed and hash."""
MOST_OF_A_VALUE, MOST_OF_A_SWEEP = 24, 100
SHOWN_APART = ("dataset", "variant", "seed", "depth", "size", "model.num_layers", "model.d_model")
"""The keys that a name states in any case: NUM_LAYERSxD_MODEL is one of its words."""
SWEEP_NAME = re.compile(rf"\w[\w.-]{{0,{MOST_OF_A_SWEEP - 1}}}", re.ASCII)
MIXER, THREADS = "model/mixer", "trainer.threads"


def run_name(config: Config) -> str:
    """Return DATASET-CHOICES-LAYERSxWIDTH-KNOBS-sSEED, as in `parity-gated_delta-1x64-lr1e-3-s0`.

    The choices and knobs are those that the overrides state. A mixer that is chosen stands for a
    variant that is not. What does not fit into `MOST_CHARACTERS` is counted (`2_more`), and the
    knobs that a sweep varies come first.
    """
    identity_values = _values_in_identity(config.overrides)
    # How the cores are shared says something only where it is what a sweep compares.
    hidden_keys = {*SHOWN_APART, *({THREADS} - set(config.swept_keys))}
    shown_values = {k: value for k, value in identity_values.items() if k not in hidden_keys}
    choice_words = _choice_words(config, identity_values, shown_values)
    knobs = [key for key in shown_values if key not in config.choices]
    knobs_in_order = sorted(knobs, key=lambda key: key not in config.swept_keys)
    # A key of several parts is one word of the name, and the parts are joined as its words are.
    short_keys = {key: ending.replace(".", "_") for key, ending in shortest_endings(knobs).items()}
    knob_words = [_knob_word(short_keys[key], shown_values[key]) for key in knobs_in_order]
    shape = f"{config.values['model']['num_layers']}x{config.values['model']['d_model']}"
    name, num_left_out = str(config.choices["dataset"]), 0
    for word in (*choice_words, shape, *knob_words):
        # The shape is short, and the reader of a long name needs it most.
        if (num_left_out and word != shape) or len(name) + len(word) >= MOST_CHARACTERS:
            num_left_out += 1
        else:
            name = f"{name}-{word}"
    remainder = f"-{num_left_out}_more" if num_left_out else ""
    return f"{name}{remainder}-s{config.values['seed']}"


def _choice_words(
    config: Config, identity_values: Mapping[str, str], shown_values: Mapping[str, str]
) -> list[str]:
    """Return the words for the variant and for the choices that overrides make."""
    choice_values = {key: value for key, value in shown_values.items() if key in config.choices}
    is_variant_implied = MIXER in choice_values and "variant" not in identity_values
    words = [] if is_variant_implied else [config.choices["variant"]]
    for key, value in choice_values.items():
        word = _choice_word(key, value)
        if word not in words:
            words.append(word)
    return words


def name_sweep(configs: Sequence[Config]) -> list[Config]:
    """Return the configs with the name of their sweep, which is made where they state none."""
    name = sweep_name(configs)
    return [
        replace(config, values={**config.values, "sweep": name})
        if config.values["sweep"] is None
        else config
        for config in configs
    ]


def sweep_name(configs: Sequence[Config]) -> str:
    """Return DATASETS-VARIED_KEYS-HASH for the sweep of some configs; equal sweeps have one name.

    Where the results go is no part of it, nor how many runs share the cores, so that a sweep that
    is begun again has its old name.
    """
    values_by_cell = [_values_in_identity(config.overrides) for config in configs]
    for values in values_by_cell:
        values.pop(THREADS, None)
    datasets = dict.fromkeys(str(config.choices["dataset"]) for config in configs)
    varied_words = [
        re.split("[./]", key)[-1] for key in varied_keys(values_by_cell) if key != "dataset"
    ]
    words = [_plain_word("_".join(datasets)), *varied_words]
    sha256 = hashlib.sha256(repr([sorted(values.items()) for values in values_by_cell]).encode())
    return f"{'-'.join(words)[:MOST_CHARACTERS]}-{sha256.hexdigest()[:4]}"


def sweep_faults(name: Any) -> list[str]:
    """Return what is wrong with the name of a sweep, which stands where names of runs do."""
    if name is None or (isinstance(name, str) and SWEEP_NAME.fullmatch(name)):
        return []
    return [f"sweep: expected letters, digits and _.-, at most {MOST_OF_A_SWEEP}, got {name!r}"]


def varied_keys(cells: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the keys whose values differ between cells, in order of first occurrence."""
    keys = dict.fromkeys(key for cell in cells for key in cell)
    return [key for key in keys if len({cell.get(key) for cell in cells}) > 1]


def override_values(overrides: Sequence[str]) -> dict[str, str]:
    """Return the values that overrides state, by key; a deleted key has the value `null`."""
    value_by_key = {}
    for override in overrides:
        key, equals, value = override.lstrip("+~").partition("=")
        value_by_key[key] = value if equals and not override.startswith("~") else "null"
    return value_by_key


def _values_in_identity(overrides: Sequence[str]) -> dict[str, str]:
    """Return the stated values that change what a run is."""
    return {
        key: value
        for key, value in override_values(overrides).items()
        if re.split("[./]", key)[0] not in NOT_IN_IDENTITY
    }


def _choice_word(key: str, value: str) -> str:
    """Return the word for a choice: its name, with the group's where the name says too little."""
    group, _, package = key.partition("@")
    last_part = package.rpartition(".")[2] if package else group.rpartition("/")[2]
    word = _plain_word(value)
    return f"{last_part}_{word}" if package or word in ("none", "null", "default") else word


def _knob_word(key: str, value: str) -> str:
    """Return the word for a knob: `lr1e-3` for a number, `tied_false` for any other value."""
    try:
        number = float(value)
    except ValueError:
        return f"{key}_{_plain_word(value.rpartition('/')[2])}"
    return f"{key}{_short_number(value, number)}"


def _short_number(text: str, number: float) -> str:
    """Return the shortest way to write a number; small and large ones with an exponent."""
    if "e" not in text.lower() and (number == 0 or 0.1 <= abs(number) < 1e5):
        return text
    mantissa, _, exponent = f"{number:e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def _plain_word(text: str) -> str:
    """Return a text with only letters, digits and `_.-`, all that an artifact of wandb can have."""
    return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII).strip("_.")[:MOST_OF_A_VALUE]
