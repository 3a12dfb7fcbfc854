"""Take the README's screenshots of runs, in docs/pictures/: `python docs/screenshots.py RUNS_DIR`.

report.png shows what `attnlab report` writes of the runs, down to the first cards. wandb.png shows
the page that `logger=wandb` gives wandb at the end of a run, as `patterns/page`, which wandb's run
page shows under its media panel. wandb's own site is not in the picture: the page is read from the
files that wandb wrote offline. `make screenshots` takes both of the demo's runs. It needs Chromium.
"""

import io
import shutil
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from attnlab.analysis.compare import comparison
from attnlab.analysis.run_list import Selection
from attnlab.analysis.select import drop_damaged, select_runs
from attnlab.callbacks.row_logger import RowLogger
from attnlab.errors import RequestError
from attnlab.launch.logged_run import describe_recorded_run, probe_page_builder
from attnlab.logger.wandb import Wandb
from attnlab.printable import say
from attnlab.report.page import report_page
from attnlab.run_record.record import Record

PICTURES = Path(__file__).parent / "pictures"
SWEEP, DATASET = "demo", "pronoun"
WIDTH, HEIGHT = 1200, 2400
"""The size of a picture at most, in pixels."""
LARGEST = 400_000
"""The size of a file at most, in bytes."""
COLOURS = (None, 256, 64)
"""Numbers of colours, tried until the file is small enough; None keeps all of them."""
CHROMIUM_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--hide-scrollbars",
)
END_OF_PICTURE = """(height) => {
    const end = (element) => Math.ceil(element.getBoundingClientRect().bottom + 24);
    const card = document.querySelector(".cards .card");
    return card && end(document.body) > height ? end(card) : end(document.body);
}"""
"""A page that is higher than the picture ends below its first card."""


def main(words: Sequence[str]) -> int:
    """Take both screenshots; 2 where the request cannot be met, as without Chromium."""
    parser = ArgumentParser(prog="python docs/screenshots.py", description="Take screenshots.")
    parser.add_argument("runs_dir", type=Path, metavar="RUNS_DIR")
    parser.add_argument(
        "--runs",
        nargs="+",
        default=[],
        metavar="RUN",
        help=f"names, patterns or sweeps; default: the sweep {SWEEP}, else all of {DATASET}",
    )
    parser.add_argument("--out", type=Path, default=PICTURES, metavar="DIR")
    parser.add_argument("--width", type=int, default=WIDTH, help="of both, in pixels")
    parser.add_argument("--height", type=int, default=HEIGHT, help="at most, in pixels")
    options = parser.parse_args(words)
    try:
        browser_path = find_chromium()
        selection = select(options.runs, options.runs_dir)
        with TemporaryDirectory() as name:
            directory = Path(name)
            pages = {
                "report": write_report(selection, directory / "report.html"),
                "wandb": write_wandb_page(selection, directory / "wandb"),
            }
            size = (options.width, options.height)
            options.out.mkdir(parents=True, exist_ok=True)
            for title, html_path in pages.items():
                picture_path = options.out / f"{title}.png"
                picture_path.write_bytes(compress(take(browser_path, html_path, size)))
                say(picture_path)
    except RequestError as error:
        say(error, file=sys.stderr)
        return 2
    return 0


def find_chromium() -> str:
    """Return the path of the system's Chromium. Raises RequestError where it cannot be used."""
    if find_spec("playwright") is None:
        raise RequestError("a screenshot needs the package playwright: pip install playwright")
    if path := shutil.which("chromium") or shutil.which("chromium-browser"):
        return path
    raise RequestError(
        "a screenshot needs Chromium, and neither `chromium` nor `chromium-browser` is on the PATH"
    )


def select(words: Sequence[str], runs_dir: Path) -> Selection:
    """Select the named runs; without words those of the demo's sweep, else all on its dataset."""
    if words:
        return drop_damaged(select_runs(words, runs_dir))
    try:
        return drop_damaged(select_runs([SWEEP], runs_dir))
    except RequestError:
        return drop_damaged(select_runs([], runs_dir, f"dataset={DATASET}"))


def write_report(selection: Selection, path: Path) -> Path:
    """Write what `attnlab report` writes of the runs."""
    report = comparison(selection)
    path.write_text(
        report_page(report.panels, selection.records, report.footnotes), encoding="utf-8"
    )
    return path


def write_wandb_page(selection: Selection, directory: Path) -> Path:
    """Log the run with the most attention heads to wandb, offline; return the page it was given."""
    record = max(selection.records.values(), key=num_heads)
    result = selection.results[record.name]
    directory.mkdir()
    logger = Wandb(include=())
    run = describe_recorded_run(record, result)
    row_logger = RowLogger([logger], run, record.layers, probe_page_builder(record.name), warn=say)
    row_logger.replay(record, result, directory)
    pages = list(directory.glob("wandb/*/files/media/html/**/*.html"))
    if not pages:
        raise RequestError(f"{record.name} has no recorded patterns, so wandb gets no page of it")
    return pages[0]


def num_heads(record: Record) -> int:
    """Count the attention heads of a run's model."""
    return sum(layer.num_heads for layer in record.layers.attention)


def take(browser_path: str, html_path: Path, size: tuple[int, int]) -> bytes:
    """Take a screenshot of a page in light colours, as a whole or down to its first cards."""
    # A tool for development, whose absence `find_chromium` has told.
    from playwright.sync_api import sync_playwright

    width, height = size
    with sync_playwright() as run, TemporaryDirectory() as profile:
        # This makes `profile` Chromium's --user-data-dir.
        browser = run.chromium.launch_persistent_context(
            profile,
            executable_path=browser_path,
            args=list(CHROMIUM_FLAGS),
            viewport={"width": width, "height": height},
            color_scheme="light",
        )
        try:
            tab = browser.new_page()
            tab.goto(html_path.as_uri())
            tab.wait_for_selector("html[data-ready]", state="attached")
            tab.wait_for_function("!document.querySelector('[aria-busy=true]')")
            end = int(tab.evaluate(END_OF_PICTURE, height))
            tab.set_viewport_size({"width": width, "height": min(height, end)})
            return tab.screenshot()
        finally:
            browser.close()


def compress(png: bytes) -> bytes:
    """Return a PNG of at most `LARGEST` bytes: in all its colours if they fit, else in fewer."""
    with Image.open(io.BytesIO(png)) as image:
        pixels = image.convert("RGB")
    for colours in COLOURS:
        file = io.BytesIO()
        # A palette by frequency (median cut) changes the colours of rare pixels.
        method = Image.Quantize.MAXCOVERAGE
        reduced = pixels if colours is None else pixels.quantize(colours, method)
        reduced.save(file, "png", optimize=True)
        if file.tell() <= LARGEST:
            return file.getvalue()
    raise RequestError(
        f"a picture takes more than {LARGEST:,} bytes; a smaller --height makes it fit"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
