"""A figure as an HTML page of its own, and what every page with figures has in common."""

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from typing import Any

# With `ast`, Vega interprets its expressions, so that the page may forbid evaluated code.
DRAW = """
const figure = JSON.parse(document.getElementById("specification").textContent);
const options = { actions: false, renderer: "svg", ast: true, mode: "vega-lite" };
vegaEmbed("#figure", figure, options).then(() => { document.documentElement.dataset.ready = ""; });
"""
PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width"><title>{title}</title></head>
<body><div id="figure"></div>
<script type="application/json" id="specification">{specification}</script>
<script>{library}</script>
<script>{draw}</script></body>
</html>
"""


def figure_page(figure: Any, title: str) -> str:
    """Return a figure as a self-contained HTML page that makes no request."""
    library = vega_script()
    return PAGE.format(
        policy=content_policy([library, DRAW]),
        title=escape(title),
        # No text of the figure may close the script element around it.
        specification=json.dumps(figure.to_dict()).replace("<", "\\u003c"),
        library=library,
        draw=DRAW,
    )


@lru_cache
def vega_script() -> str:
    """Return the script of Vega, Vega-Lite and Vega-Embed, which draw the figures."""
    from vl_convert import javascript_bundle

    # Its type stub requires an argument that has a default.
    bundle = javascript_bundle()  # pyright: ignore[reportCallIssue]
    # A script that is inlined into HTML must not contain what ends it.
    assert "</script" not in bundle.lower() and "<!--" not in bundle  # noqa: PT018
    return bundle


def content_policy(scripts: Sequence[str]) -> str:
    """Return a Content-Security-Policy under which these scripts run, no other, and no request."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
