"""What all figures share: colours, type, and the way to a file."""

import io
from collections.abc import Sequence
from typing import Any

import altair as alt
from PIL import Image

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
INK = "currentColor"
"""Black on paper, and on a page whatever its text is."""

# Okabe and Ito (2008) in two parts, so that a variant never has the colour of a role.
ROLES = ("#009E73", "#D55E00")
VARIANTS = (
    *("#0072B2", "#E69F00", "#CC79A7", "#56B4E9"),
    *("#808080", "#999933", "#882255", "#44AA99"),
)

LONGEST = 14
"""Characters of a token that are shown."""
INVISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥", "": "∅"}


def colours(variants: Sequence[str]) -> dict[str, str]:
    """Give each variant its colour; figures that show the same ones agree."""
    listed = list(dict.fromkeys(variants))
    return {variant: VARIANTS[at % len(VARIANTS)] for at, variant in enumerate(listed)}


def themed(chart: Any) -> Any:
    """Give a finished chart the look of all: quiet axes, one ink, no background of its own."""
    quiet = {"labelColor": INK, "titleColor": INK, "labelOpacity": 0.75, "titleOpacity": 0.9}
    return chart.configure(
        background="transparent",
        font=FONT,
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(
            **quiet,
            grid=True,
            gridColor=INK,
            gridOpacity=0.1,
            domain=False,
            ticks=False,
            labelPadding=6,
            titleFontWeight="normal",
        ),
        legend=alt.LegendConfig(**quiet, titleFontWeight=600, symbolStrokeWidth=2.5),
        title=alt.TitleConfig(color=INK, subtitleColor=INK, fontWeight=600, anchor="start"),
        # A figure is described as a whole; a label for each of its marks would say nothing.
        mark=alt.MarkConfig(aria=False),
        text=alt.MarkConfig(color=INK),
        rule=alt.MarkConfig(color=INK),
    )


def svg(chart: Any) -> str:
    """Draw a themed chart on white, without a browser or a network."""
    file = io.StringIO()
    chart.properties(background="white").save(file, format="svg")
    return file.getvalue()


def png(chart: Any, scale: int | float = 2) -> bytes:
    """Draw a themed chart on white as pixels, `scale` for each of its units, in 256 colours."""
    file = io.BytesIO()
    chart.properties(background="white").save(file, format="png", scale_factor=scale)
    return _small(file)


def pdf(chart: Any) -> bytes:
    """Draw a themed chart on white as one page of its own size, whose text can be searched."""
    file = io.BytesIO()
    chart.properties(background="white").save(file, format="pdf")
    return file.getvalue()


def drawn(chart: Any, ending: str) -> bytes:
    """Draw a themed chart as the content of a file: ".svg", ".png" or ".pdf"."""
    return svg(chart).encode() if ending == ".svg" else {".png": png, ".pdf": pdf}[ending](chart)


def _small(file: io.BytesIO) -> bytes:
    """Write a drawing with a palette, at a fraction of its size."""
    small = io.BytesIO()
    with Image.open(file) as image:
        # A palette by frequency (median cut) moves the colours of cells that are rare.
        few = image.convert("RGB").quantize(
            256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
        few.save(small, "png", optimize=True)
    return small.getvalue()


def visible(token: str) -> str:
    """Write a token so that it is seen: white space as a sign, and a long one cut."""
    shown = "".join(INVISIBLE.get(character, character) for character in token) or INVISIBLE[""]
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
