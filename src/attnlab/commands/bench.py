"""`attnlab bench`: time, memory and FLOPs of models by the length of the sequence.

Overrides with commas make arms, as `train -m` makes runs. The data are random tokens, the model a
decoder; of a config, `model`, `init`, `seed` and the device, threads and precision of `trainer`
count. All arms take turns at each length. `-o DIR` writes bench.json, bench.svg and bench.png.
`--format json` prints one object, that of bench.json:

    {"schema": 1, "date", "machine": {"device", "threads", "torch", "matmul_precision"}, "tokens",
     "rounds", "least_seconds" (that a timing takes), "arms": [ARM]}
    ARM       name, overrides, precision, parameters, active_parameters, modes {MODE: ROWS}
    MODE      forward (in evaluation, no gradients), backward (forward, loss, backward), decode (one
              token of one sequence, the earlier ones cached)
    ROWS      {"exponents": {"time", "memory", "flops"}, "lengths": [ROW]}; an exponent is
              {"value", "error" (standard, null for two lengths)} of one sequence's cost, null for
              one length and where an arm takes none
    ROW       length, batch (sequences of a call), seconds (median of a call), low, high
              (quartiles), rounds [seconds], tokens_per_second, peak_bytes (a call's, on top of
              parameters), flops (a call's forward pass), state_size (numbers kept of a sequence
              of that length, null where the model cannot step); where the memory did not suffice,
              all but length, batch and state_size are null, and rounds is empty
"""

import datetime
import json
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from attnlab.building import Own
from attnlab.commands.options import add_config_dir, path_option
from attnlab.config import Config, cells, compose, search_path
from attnlab.console import Console
from attnlab.errors import ConfigError, RequestError
from attnlab.places import require_writable
from attnlab.printable import say
from attnlab.runs import write
from attnlab.runs.table import count

if TYPE_CHECKING:
    import torch

    from attnlab.figures.scaling import Line, Panel
    from attnlab.measure import Arm, Cell

SCHEMA = 1
TITLES = {"forward": "Forward", "backward": "Forward and backward", "decode": "Decode"}
EPILOG = """\
examples:
  attnlab bench model/mixer=multihead,min_lstm --lengths 512 1024 2048 -o bench
  attnlab bench variant=multihead,lstm size=medium trainer.threads=1 --modes decode
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `attnlab bench`."""
    from argparse import RawDescriptionHelpFormatter

    parser.formatter_class, parser.epilog = RawDescriptionHelpFormatter, EPILOG
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="a,b,c makes arms")
    add_config_dir(parser)
    parser.add_argument(
        "--lengths",
        nargs="+",
        type=int,
        default=[256, 512, 1024, 2048],
        metavar="N",
        help="tokens in a sequence; default: 256 512 1024 2048",
    )
    parser.add_argument(
        "--modes",
        nargs="+",
        choices=TITLES,
        default=list(TITLES),
        metavar="MODE",
        help=f"default: {' '.join(TITLES)}",
    )
    parser.add_argument(
        "--tokens",
        type=int,
        default=4096,
        metavar="N",
        help="in a batch, of as many sequences as that makes; to decode it is one; default: 4096",
    )
    parser.add_argument(
        "--rounds", type=int, default=7, metavar="N", help="turns of each arm; default: 7"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=path_option,
        metavar="DIR",
        help="write bench.json and the figure there",
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: Namespace) -> int:
    """Measure all arms, then print and write what came out."""
    lengths = sorted(set(arguments.lengths))
    _require_numbers(lengths, arguments)
    if arguments.output is not None:
        require_writable(arguments.output, "--output")
    with search_path(arguments.config_dir) as own:
        jobs = cells(arguments.overrides)
        configs = _composed(jobs, own)
    arms, device = _arms(jobs, configs, lengths[-1], arguments.modes)
    # torch takes seconds to import, and composing has done it.
    from attnlab.measure import measure

    found: list[Cell] = []
    with Console(stderr=True).status("warming up") as status:
        measured = measure(
            arms,
            lengths,
            [mode for mode in TITLES if mode in arguments.modes],
            arguments.tokens,
            arguments.rounds,
            device,
        )
        for cell in measured:
            status.update(f"measured: {cell.mode}, {cell.length} tokens")
            found.append(cell)
    whole = {
        "schema": SCHEMA,
        **_circumstances(device),
        "tokens": arguments.tokens,
        "rounds": arguments.rounds,
        "arms": [_arm_json(arm, job, found) for arm, job in zip(arms, jobs, strict=True)],
    }
    if arguments.output is not None:
        _write(arguments.output, whole)
    if arguments.format == "json":
        say(json.dumps(whole, indent=2, allow_nan=False))
        return 0
    _print(whole)
    if arguments.output is not None:
        say(arguments.output)
    return 0


def _require_numbers(lengths: Sequence[int], arguments: Namespace) -> None:
    if lengths[0] < 2:
        raise RequestError(f"--lengths {lengths[0]}: a sequence must have at least 2 tokens")
    for name in ("tokens", "rounds"):
        if getattr(arguments, name) < 1:
            raise RequestError(f"--{name} {getattr(arguments, name)} must be at least 1")


def _composed(jobs: Sequence[Sequence[str]], own: Own) -> list[Config]:
    """Compose all arms; one error lists the faults of all of them, each once."""
    if any(word.lstrip("+~").startswith("match=") for job in jobs for word in job):
        raise RequestError(
            "match= gives the widths for a training run, of another vocabulary than the models "
            "that are timed; give model.d_model"
        )
    configs, faults = [], {}
    for job in jobs:
        try:
            configs.append(compose(job, own))
        except ConfigError as error:
            faults |= dict.fromkeys(error.faults)
    if faults:
        raise ConfigError(list(faults))
    return configs


def _arms(
    jobs: Sequence[Sequence[str]], configs: Sequence[Config], longest: int, modes: Sequence[str]
) -> "tuple[list[Arm], torch.device]":
    """Build the models, and set what holds for all of them."""
    import torch

    from attnlab.measure import NUM_TOKENS, Arm, state_size
    from attnlab.model.base import DECODER

    settings = [config.build("trainer") for config in configs]
    for name in ("accelerator", "threads", "matmul_precision"):
        given = list(dict.fromkeys(getattr(of, name) for of in settings))
        if len(given) > 1:
            said = ", ".join(map(str, given))
            raise RequestError(f"trainer.{name}={said}: all arms share one; bench them apart")
    for at, config in enumerate(configs):
        before = next((n for n in range(at) if _counted(configs[n]) == _counted(config)), None)
        if before is not None:
            said = f"{' '.join(jobs[before])!r} and {' '.join(jobs[at])!r}"
            raise RequestError(f"{said} are the same model and precision; bench it once")
    made = []
    names = _names(jobs, str(configs[0].choices["variant"]))
    for name, config, setting in zip(names, configs, settings, strict=True):
        torch.manual_seed(config.values["seed"])
        model = config.build("model", NUM_TOKENS, NUM_TOKENS, longest, DECODER)
        config.build("init")(model)
        if "decode" in modes and state_size(model, longest) is None:
            raise RequestError(f"{name} cannot run step by step; leave decode out of --modes")
        made.append(Arm(name, model, setting.precision))
    if settings[0].threads is not None:
        torch.set_num_threads(settings[0].threads)
    torch.set_float32_matmul_precision(settings[0].matmul_precision)
    gpu = settings[0].accelerator != "cpu" and torch.cuda.is_available()
    return made, torch.device("cuda" if gpu else "cpu")


def _counted(config: Config) -> Sequence[Any]:
    values = config.values
    return values["model"], values["init"], values["trainer"]["precision"]


def _names(jobs: Sequence[Sequence[str]], default: str) -> list[str]:
    """Call each arm by what sets it apart from the others, or a single one by what it is."""
    shared = set(jobs[0]).intersection(*jobs[1:])
    if len(jobs) == 1:
        shared = {word for word in shared if word.startswith("trainer.")}
    apart = [[word for word in job if word not in shared] for job in jobs]
    if not apart[0]:
        return [default]
    if len(apart[0]) == 1:
        return [words[0].partition("=")[2] for words in apart]
    keys = [re.split("[/.]", word.partition("=")[0])[-1] for word in apart[0]]
    if len(set(keys)) < len(keys):
        return [" ".join(words) for words in apart]
    values = [[word.partition("=")[2] for word in words] for words in apart]
    return [" ".join(map("=".join, zip(keys, of, strict=True))) for of in values]


def _circumstances(device: "torch.device") -> dict[str, Any]:
    import torch

    from attnlab.launch.machine import device_name
    from attnlab.measure import LEAST

    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": {
            "device": device_name(device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "matmul_precision": torch.get_float32_matmul_precision(),
        },
        "least_seconds": LEAST,
    }


def _arm_json(arm: "Arm", overrides: Sequence[str], found: "Sequence[Cell]") -> dict[str, Any]:
    from attnlab.measure import exponents
    from attnlab.model.base import active_parameters, parameters

    modes: dict[str, list[Cell]] = {}
    for cell in found:
        if cell.arm == arm.name:
            modes.setdefault(cell.mode, []).append(cell)
    return {
        "name": arm.name,
        "overrides": list(overrides),
        "precision": arm.precision,
        "parameters": parameters(arm.model),
        "active_parameters": active_parameters(arm.model),
        "modes": {
            mode: {
                "exponents": {name: of and of._asdict() for name, of in exponents(its).items()},
                "lengths": [cell.row() for cell in its],
            }
            for mode, its in modes.items()
        },
    }


def _print(whole: dict[str, Any]) -> None:
    from attnlab.measure import MODES as SAID

    console = Console()
    machine = whole["machine"]
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] > 1)}"
    console.print(f"{machine['device']}, {threads}, torch {machine['torch']}")
    for mode in whole["arms"][0]["modes"]:
        console.print()
        console.print(f"{mode}: {SAID[mode]}", style="bold")
        console.print(_table(whole["arms"], mode))
    console.print(
        f"Medians of {whole['rounds']} turns ± half the range between the quartiles; "
        f"{whole['tokens']} tokens a call, as near as whole sequences come, and to decode one; "
        "memory on top of parameters; FLOPs of the forward pass. Power of the length: fitted to "
        "what one sequence takes, ± its standard error. State: numbers kept of a sequence."
    )


def _table(arms: Sequence[dict[str, Any]], mode: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("arm", overflow="fold")
    last = ["state"] if mode == "decode" else []
    for header in ("length", "ms a call", "tokens/s", "peak MB", "FLOPs", *last):
        table.add_column(header, justify="right", no_wrap=True)
    for arm in arms:
        rows, powers = arm["modes"][mode]["lengths"], arm["modes"][mode]["exponents"]
        for at, row in enumerate(rows):
            table.add_row("" if at else arm["name"], str(row["length"]), *_measured(row, last))
        if len(rows) > 1:
            time, memory, flops = (_power(powers[k]) for k in ("time", "memory", "flops"))
            table.add_row("", "power", time, "", memory, flops, style="dim")
    return table


def _measured(row: dict[str, Any], last: Sequence[str]) -> list[str]:
    if row["seconds"] is None:
        return ["out of memory"]
    half = 50 * (row["high"] - row["low"]) / row["seconds"]
    spread = f" ±{half:.0f}%" if len(row["rounds"]) > 1 else ""
    cells = [
        _three(1000 * row["seconds"]) + spread,
        count(row["tokens_per_second"]),
        _three(row["peak_bytes"] / 1e6),
        count(row["flops"]),
    ]
    return [*cells, count(row["state_size"])] if last else cells


def _power(exponent: dict[str, float | None] | None, gap: str = " ") -> str:
    """Write an exponent with its standard error."""
    if exponent is None or exponent["value"] is None:
        return ""
    # -0.00 says nothing that 0.00 does not.
    said = f"{round(exponent['value'], 2) + 0.0:.2f}"
    error = exponent["error"]
    return said if error is None else f"{said}{gap}±{gap}{error:.2f}".replace("±0.", "±.")


def _three(number: float) -> str:
    """Write a number with three digits, or all those before the point."""
    return f"{number:.0f}" if number >= 99.95 else f"{number:#.3g}"


def _write(directory: Path, whole: dict[str, Any]) -> None:
    """Write the numbers, then the figure; each takes its name when whole."""
    from attnlab.figures.base import png, svg
    from attnlab.figures.scaling import scaling

    write.make_directory(directory)
    numbers = json.dumps(whole, indent=2, allow_nan=False) + "\n"
    write.replace(directory / "bench.json", numbers.encode())
    figure = scaling([p for p in _panels(whole["arms"]) if any(line.points for line in p.lines)])
    write.replace(directory / "bench.svg", svg(figure).encode())
    write.replace(directory / "bench.png", png(figure))


def _panels(arms: Sequence[dict[str, Any]]) -> "Iterator[Panel]":
    """Give what the figure shows: the time in each mode, and the memory of the most costly."""
    from attnlab.figures.scaling import Panel

    modes = arms[0]["modes"]
    for mode in modes:
        unit = "ms a token, the earlier ones cached" if mode == "decode" else "ms a sequence"
        yield Panel(TITLES[mode], unit, [_line(arm, mode, "time") for arm in arms])
    most = next(mode for mode in ("backward", "forward", "decode") if mode in modes)
    yield Panel(
        f"Peak memory, {TITLES[most].lower()}",
        "MB a sequence, on top of parameters",
        [_line(arm, most, "memory") for arm in arms],
    )


def _line(arm: dict[str, Any], mode: str, quantity: str) -> "Line":
    from attnlab.figures.scaling import Line, Point

    powers, rows = arm["modes"][mode]["exponents"], arm["modes"][mode]["lengths"]
    fields, unit = (("seconds", "low", "high"), 1e-3)
    if quantity == "memory":
        fields, unit = ("peak_bytes",) * 3, 1e6
    points = [
        Point(row["length"], *(row[field] / unit / row["batch"] for field in fields))
        for row in rows
        if row["seconds"] is not None
    ]
    return Line(arm["name"], _power(powers[quantity]), points)
