"""Views read from addresses, and answers as HTML, JSON and PDF."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from attnlab.errors import RequestError
from attnlab.figures.base import render_pdf
from attnlab.report.view import PageView

PDF_WIDTH = 560
"""The width of a chart that is saved as PDF, in points."""
View = TypeVar("View", bound=PageView)
Item = TypeVar("Item")


def read_view(kind: type[View], query: QueryParams) -> View:
    """Return a view from the query of an address; what it does not state is the default.

    Raises RequestError for a number that is none.
    """
    values: dict[str, Any] = {}
    for view_field in fields(kind):
        texts = query.getlist(view_field.name)
        if not texts:
            continue
        default = view_field.default
        if isinstance(default, tuple):
            values[view_field.name] = tuple(texts)
        elif isinstance(default, bool):
            values[view_field.name] = texts[-1] not in ("", "0")
        elif isinstance(default, int):
            if not texts[-1].isdecimal() or len(texts[-1]) > 9:
                raise RequestError(f"{view_field.name}={texts[-1][:20]!r}: expected a number")
            values[view_field.name] = int(texts[-1])
        else:
            values[view_field.name] = texts[-1]
    return kind(**values)


def figure_place(query: QueryParams) -> tuple[int, int]:
    """Return the section and the number in it of the figure that an address asks for."""
    section, _, chart = query.get("figure", "0.0").partition(".")
    if not (section.isdecimal() and chart.isdecimal()):
        raise RequestError("figure: expected SECTION.CHART")
    return int(section), int(chart)


def item_at(items: Sequence[Item], place: int) -> Item:
    """Return an item of a page; raises RequestError where the page has none there."""
    if place >= len(items):
        raise RequestError("there is no such figure; load the page again")
    return items[place]


async def read_body(request: Request, most: int) -> bytes | None:
    """Return what a page sent; None where it is more than `most` bytes."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > most:
            return None
    return body


def html_answer(text: str, status: int = 200) -> Response:
    """Return a page as an answer; a surrogate, which a file name may have, becomes `?`."""
    content = text.encode("utf-8", "replace")
    return Response(content, status, media_type="text/html; charset=utf-8")


def json_answer(value: Any) -> Response:
    """Return a value as JSON."""
    return JSONResponse(value)


def pdf_answer(chart: Any) -> Response:
    """Return a chart as a PDF that the browser saves."""
    return Response(
        render_pdf(chart.properties(width=PDF_WIDTH)),
        media_type="application/pdf",
        headers={"content-disposition": 'attachment; filename="figure.pdf"'},
    )
