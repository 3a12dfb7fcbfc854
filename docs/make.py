"""Write a page for each mixer from its class, with a picture of what its form lets through.

`make docs` writes docs/mixers/; a test holds the pages against the classes.
"""

import inspect
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Any

import torch
import yaml
from hydra import compose
from hydra.utils import instantiate
from jaxtyping import Float
from omegaconf import OmegaConf
from torch import Tensor

from attnlab.config import conf_dir, search_path
from attnlab.mixer.base import Mixer, arranged
from attnlab.model.base import parameters
from attnlab.model.cost import flops
from attnlab.position.base import Position

PLACE = Path(__file__).parent / "mixers"
D_MODEL, LENGTHS, SHOWN = 64, (64, 256, 1024), 48


def mixers() -> list[str]:
    """Name the mixers that conf/ offers."""
    return sorted(path.stem for path in (conf_dir() / "model/mixer").glob("*.yaml"))


def page(name: str) -> str:
    """Write the page of a mixer."""
    kind, knobs = made(name).func, stated(name)
    _, formula, rest = parted(kind)
    lines = [f"# {name}", "", summary(name), ""]
    lines += ["```text", *formula, "```", ""] if formula else []
    lines += [*rest, "", "## Use", "", "```sh", f"attnlab train model/mixer={name}", "```", ""]
    lines += ["| knob | default |", "|---|---|", *(f"| `{k}` | `{v}` |" for k, v in knobs), ""]
    lines += ["## Cost", "", *cost(name), ""]
    lines += ["## What its form lets through", "", f"![{name}]({name}.png)", "", *caption()]
    return "\n".join(lines).rstrip() + "\n"


def index() -> str:
    """Write the list of the pages."""
    lines = [
        "# Mixers",
        "",
        "Every layer that moves information between positions: `attnlab train model/mixer=NAME`.",
        "These pages are made from the classes by `make docs`.",
        "",
        "| mixer | what it is | state after 256 tokens |",
        "|---|---|---|",
    ]
    for name in mixers():
        kept = build(name).state_size(256)
        lines.append(f"| [{name}]({name}.md) | {summary(name)} | {kept:,} |")
    return "\n".join(
        [
            *lines,
            "",
            f"The state is numbers for one sequence in one layer, d_model = {D_MODEL}.",
            "",
        ]
    )


def summary(name: str) -> str:
    """Say what a mixer is, as `attnlab list` does: by its YAML's comment, else by its class."""
    said = (conf_dir() / f"model/mixer/{name}.yaml").read_text().splitlines()[0]
    return said.removeprefix("# ") if said.startswith("#") else parted(made(name).func)[0]


def parted(kind: type) -> tuple[str, list[str], list[str]]:
    """Part a docstring into its first line, its formula (indented, in second place), and the rest.

    What is indented behind the formula, a table of initial values, keeps its lines.
    """
    first, *paragraphs = inspect.cleandoc(kind.__doc__ or "").split("\n\n")
    formula = [p for p in paragraphs[:1] if p.startswith("    ")]
    rest = [_tabled(p) for p in paragraphs[len(formula) :]]
    return first, dedent("".join(formula)).splitlines(), "\n\n".join(rest).splitlines()


def _tabled(paragraph: str) -> str:
    said, *rows = paragraph.split("\n    ")
    head = ["", "| parameter | starts as |", "|---|---|"] if rows else []
    return "\n".join([said, *head, *(f"| {row.replace('*', chr(92) + '*')} |" for row in rows)])


def cost(name: str) -> Iterator[str]:
    """Count at three lengths."""
    mixer = build(name)
    yield (
        f"One causal layer at d_model = {D_MODEL} has {parameters(mixer):,} parameters. FLOPs are "
        "those of a forward pass; the state is numbers that one sequence keeps while it decodes."
    )
    yield from ("", "| tokens | FLOPs a token | state |", "|---|---|---|")
    for length in LENGTHS:
        each = flops(mixer, torch.zeros(1, length, D_MODEL)) / length
        yield f"| {length:,} | {each:,.0f} | {mixer.state_size(length):,} |"


def caption() -> list[str]:
    """Say what the picture is."""
    return [
        f"One causal layer as it starts, {SHOWN} random tokens, the mean of 64 draws: how much the",
        "output at each position moves with each input (the norm of the gradient; each row by its",
        "largest). It shows what the form allows, not what training makes of it.",
    ]


def shares(name: str) -> Float[Tensor, "query key"]:
    """Give how much each output moves with each input; rows sum to 1."""
    torch.manual_seed(0)
    mixer = build(name)
    x = torch.randn(64, SHOWN, D_MODEL, requires_grad=True)
    out, rows = mixer(x), []
    for at in range(SHOWN):
        (moved,) = torch.autograd.grad(
            (out[:, at] * torch.randn(64, D_MODEL)).sum(), x, retain_graph=True
        )
        rows.append(moved.norm(dim=-1).mean(dim=0))
    moves = torch.stack(rows)
    return moves / moves.sum(dim=1, keepdim=True)


def build(name: str) -> Mixer:
    """Make a causal layer in evaluation mode."""
    torch.manual_seed(0)
    return arranged(made(name), D_MODEL, Position(D_MODEL, max(LENGTHS)), True, 0).eval()


def made(name: str) -> "partial[Mixer]":
    """Make a choice as it is composed."""
    with search_path():
        node: Any = OmegaConf.to_container(compose(f"model/mixer/{name}").model.mixer, resolve=True)
    return instantiate(node, _execution_whitelist_=["attnlab.*"], _convert_="all")


def stated(name: str) -> list[tuple[str, str]]:
    """List the knobs, as the YAML states them."""
    node = yaml.safe_load((conf_dir() / f"model/mixer/{name}.yaml").read_text())
    chosen = [one for one in node.pop("defaults", []) if isinstance(one, dict)]
    groups = {key.partition("@")[2]: value for one in chosen for key, value in one.items()}
    knobs = {k: yaml.safe_dump(v, default_flow_style=True).split("\n")[0] for k, v in node.items()}
    return [(k, str(v)) for k, v in {**groups, **knobs}.items() if not k.startswith("_") and k]


def main() -> None:
    """Write all pages and pictures."""
    from attnlab.figures.base import png
    from attnlab.figures.mixing import mixing

    PLACE.mkdir(exist_ok=True)
    (PLACE / "README.md").write_text(index())
    for name in mixers():
        (PLACE / f"{name}.md").write_text(page(name))
        drawn = mixing(shares(name).detach().numpy(), f"Input to output of {name}")
        (PLACE / f"{name}.png").write_bytes(png(drawn))
        print(name)


if __name__ == "__main__":
    main()
