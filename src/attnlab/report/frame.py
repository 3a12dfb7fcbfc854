"""The frame of every page: as one file that makes no request, or as a server sends it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from attnlab.analysis.arms import format_value
from attnlab.analysis.run_progress import RunProgress
from attnlab.analysis.units import format_duration
from attnlab.figures.base import DASHES, REST
from attnlab.figures.figure_page import content_policy, vega_script
from attnlab.printable import escape_controls

ASSETS = Path(__file__).parent / "assets"
VEGA_ADDRESS = "/assets/vega.js"
"""Where a server has the script that draws charts."""


class PageLink(NamedTuple):
    """A page that a served page leads to."""

    title: str
    address: str
    is_current: bool


@dataclass(frozen=True)
class ServedFrame:
    """What a page has around it when a server sends it."""

    token: str
    """What a change of tags or notes must bring."""
    version: str
    """The state of the runs that the page shows."""
    place: str
    """Where the runs are."""
    pages: Sequence[PageLink]
    figure_address: str = ""
    """Where a figure of this page is sent as PDF; its place on the page is added."""

    def figure_link(self, section: int, chart: int) -> str:
        """Return the address of a chart of a section as PDF."""
        joint = "&" if "?" in self.figure_address else "?"
        return f"{self.figure_address}{joint}figure={section}.{chart}"


def render_page(
    template: str,
    heading: str,
    script: str,
    data: Mapping[str, Any],
    *,
    has_charts: bool,
    served: ServedFrame | None = None,
    **values: Any,
) -> str:
    """Return a page as HTML: for a server's frame, or without one as a self-contained file.

    `script` names the JavaScript module of the page in `assets`, `data` is what it reads, and
    `values` is what the template shows.
    """
    scripts: list[str] = []
    addresses: list[str] = []
    if served is None:
        scripts = [*([vega_script()] if has_charts else []), bundle_script(script)]
    else:
        addresses = [
            *([VEGA_ADDRESS] if has_charts else []),
            f"/assets/{script}.js",
            "/assets/frame.js",
        ]
    return (
        _template_environment()
        .get_template(template)
        .render(
            heading=heading,
            data=data,
            has_charts=has_charts,
            served=served,
            script_addresses=addresses,
            scripts=scripts,
            policy=None if served else content_policy(scripts),
            style=(ASSETS / "page.css").read_text("utf-8"),
            **{"notice": None, **values},
        )
    )


def bundle_script(entry: str) -> str:
    """Return a JavaScript module of `assets`, and all that it imports, as one classic script.

    A file that is opened from the disk cannot import modules. Each module becomes a function that
    returns what it exports.
    """
    modules: dict[str, str] = {}
    _collect_modules(entry, modules)
    return '"use strict";\n(() => {\n' + "\n".join(modules.values()) + "\n})();\n"


def _collect_modules(name: str, modules: dict[str, str]) -> None:
    """Add a module to `modules` as a function's call, after those that it imports."""
    if name in modules:
        return
    code = (ASSETS / f"{name}.js").read_text("utf-8")
    imports = re.compile(r'^import (\{.*?\}) from "\./(\w+)\.js";$', re.MULTILINE)
    for match in imports.finditer(code):
        _collect_modules(match[2], modules)
    code = imports.sub(r"const \1 = module_\2;", code)
    exported = re.findall(r"^export (?:async )?(?:function|const|class) (\w+)", code, re.MULTILINE)
    code = re.sub(r"^export ", "", code, flags=re.MULTILINE)
    modules[name] = (
        f"const module_{name} = (() => {{\n{code}\nreturn {{ {', '.join(exported)} }};\n}})();"
    )


def describe_progress(progress: RunProgress) -> str:
    """Return how far a run is, as in `step 120 of 400, 12 s left`, or for how long it is silent."""
    total = "" if progress.max_steps is None else f" of {progress.max_steps:,}"
    remark = ""
    if progress.seconds_silent is not None:
        remark = f", silent for {format_duration(progress.seconds_silent)}"
    elif progress.seconds_left is not None:
        remark = f", {format_duration(progress.seconds_left)} left"
    return f"step {progress.step:,}{total}{remark}"


def _readable(value: Any) -> Any:
    """Return a text that a template shows without what turns or hides what stands beside it."""
    return escape_controls(value) if type(value) is str else value


@lru_cache
def _template_environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(ASSETS, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_readable,
    )
    environment.filters |= {"choice": format_value, "progress": describe_progress}
    environment.globals |= {"rest": REST, "dashes": [",".join(map(str, dash)) for dash in DASHES]}
    return environment
