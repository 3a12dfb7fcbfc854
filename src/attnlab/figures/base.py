"""The shared parts of all figures: colours, fonts, theme, and file formats."""

import io
import json
from collections.abc import Mapping, Sequence
from math import isfinite
from textwrap import wrap
from typing import Any

import altair as alt
from PIL import Image

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
INK = "currentColor"
"""Black on paper, and the text colour of the page in HTML."""

# Okabe and Ito (2008) in two parts, so that a variant never has the colour of a role.
ROLES = ("#009E73", "#D55E00")
VARIANTS = (
    *("#0072B2", "#E69F00", "#CC79A7", "#56B4E9"),
    *("#808080", "#999933", "#882255", "#44AA99"),
)

GREY = "#808080"
REST = "#8a929a"
"""The colour of arms that are not highlighted."""
DASHES = ([1, 0], [5, 3], [1, 2.5], [7, 2, 1, 2])
"""The dashes of lines; the first is a whole line."""
HIGHLIGHTS = (*(colour for colour in VARIANTS if colour != GREY), "#7B61C9")
"""The colours of highlighted arms, among others that are grey."""

COLOURS = ("#f7fbff", "#6baed6", "#08306b")
"""The colours of 0, one half and 1: one hue, whose order survives a grey print."""
MOST_BANDS = 6
"""The number of coloured arms up to which all bands are drawn; more of them cover each other."""
NARROWEST = 56
"""The number of characters of a caption's line that a page of 400 pixels shows."""

LONGEST = 14
"""The most characters of a token that are shown."""
INVISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥", "": "∅"}


def colour_by_variant(variants: Sequence[str]) -> dict[str, str]:
    """Return a colour for each variant; figures of the same variants agree."""
    distinct_variants = list(dict.fromkeys(variants))
    return {
        variant: VARIANTS[index % len(VARIANTS)] for index, variant in enumerate(distinct_variants)
    }


def table_data(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return rows as data of a chart, in the form of JSON.

    Altair checks and copies lists of rows for each layer, which takes seconds for thousands of
    them; a text it leaves alone. NaN and infinities become null.
    """
    plain_rows = [
        {
            key: None if isinstance(value, float) and not isfinite(value) else value
            for key, value in row.items()
        }
        for row in rows
    ]
    text = json.dumps(plain_rows, separators=(",", ":"), ensure_ascii=False)
    return alt.InlineData(values=text, format=alt.JsonDataFormat(type="json"))


def frame_chart(
    chart: Any,
    title: str,
    caption: Sequence[str],
    description: str,
    *,
    width: int | str,
    height: int,
) -> Any:
    """Return a chart with the theme, and a title and a caption above it.

    `description` is for who cannot see it, and `width` is `"container"` on a page.
    """
    subtitle = _break_lines(caption) if width == "container" else list(caption)
    return apply_theme(
        chart.properties(
            width=width,
            height=height,
            title=alt.TitleParams(title, subtitle=subtitle, fontSize=13, offset=10),
            autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
            description=description,
        )
    )


def describe_log_axes(log_x: bool, log_y: bool) -> list[str]:
    """Return a caption's line that names the logarithmic axes; none where both are linear."""
    axes = [name for name, is_log in (("x", log_x), ("y", log_y)) if is_log]
    return [f"logarithmic: {' and '.join(axes)}"] if axes else []


def apply_theme(chart: Any) -> Any:
    """Return a chart with the theme of all figures: faint axes, one ink, no background."""
    axis_style = {"labelColor": INK, "titleColor": INK, "labelOpacity": 0.75, "titleOpacity": 0.9}
    return chart.configure(
        background="transparent",
        font=FONT,
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(
            **axis_style,
            grid=True,
            gridColor=INK,
            gridOpacity=0.1,
            domain=False,
            ticks=False,
            labelPadding=6,
            # A label stands at its tick, at the ends of an axis too.
            labelFlush=False,
            titleFontWeight="normal",
        ),
        legend=alt.LegendConfig(**axis_style, titleFontWeight=600, symbolStrokeWidth=2.5),
        title=alt.TitleConfig(color=INK, subtitleColor=INK, fontWeight=600, anchor="start"),
        # A figure has one description; a label for each of its marks would be of no use.
        mark=alt.MarkConfig(aria=False),
        text=alt.MarkConfig(color=INK),
        rule=alt.MarkConfig(color=INK),
    )


def render_svg(chart: Any) -> str:
    """Draw a themed chart on white as SVG, without a browser or a network."""
    file = io.StringIO()
    chart.properties(background="white").save(file, format="svg")
    return file.getvalue()


def render_png(chart: Any, pixels_per_unit: int | float = 2) -> bytes:
    """Draw a themed chart on white as PNG with 256 colours; `pixels_per_unit` sets its size."""
    file = io.BytesIO()
    chart.properties(background="white").save(file, format="png", scale_factor=pixels_per_unit)
    return _quantize_png(file)


def render_pdf(chart: Any) -> bytes:
    """Draw a themed chart on white as a PDF page of its own size, with searchable text."""
    file = io.BytesIO()
    chart.properties(background="white").save(file, format="pdf")
    return file.getvalue()


def render_chart(chart: Any, ending: str) -> bytes:
    """Draw a themed chart as the content of a file: ".svg", ".png" or ".pdf"."""
    return (
        render_svg(chart).encode()
        if ending == ".svg"
        else {".png": render_png, ".pdf": render_pdf}[ending](chart)
    )


def _quantize_png(file: io.BytesIO) -> bytes:
    """Return an image as PNG with a palette of 256 colours, at a fraction of its size."""
    compressed = io.BytesIO()
    with Image.open(file) as image:
        # A palette by frequency (median cut) changes the colours of rare cells.
        quantized = image.convert("RGB").quantize(
            256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
        quantized.save(compressed, "png", optimize=True)
    return compressed.getvalue()


def visible_text(token: str) -> str:
    """Return a token with visible white space, cut if it is long."""
    printable = "".join(INVISIBLE.get(character, character) for character in token) or INVISIBLE[""]
    return printable if len(printable) <= LONGEST else printable[: LONGEST - 1] + "…"


def _break_lines(caption: Sequence[str]) -> list[str]:
    """Return the lines of a caption for a narrow page."""
    return [part for line in caption for part in _break_line(line)]


def _break_line(line: str) -> list[str]:
    """Return a line of a caption as lines for a narrow page, broken at semicolons if they fit."""
    lines = [""]
    for part in line.split("; "):
        joined = f"{lines[-1]}; {part}" if lines[-1] else part
        lines = [*lines[:-1], joined] if len(joined) <= NARROWEST else [*lines, part]
    return [piece for long_line in lines for piece in wrap(long_line, NARROWEST)]
