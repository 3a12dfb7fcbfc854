"""Time the slider of the page of a run's attention, in Chromium, on a record made for it.

``python -m bench.attention_slider [--tokens 256] [--layers 24] [--heads 16] [--steps 6]``: writes a
run with causal patterns from a seeded random stream, serves it, and moves the slider. Printed are
milliseconds from the movement to the painted picture: of a step that was fetched ahead, and of one
that was not; with lines and as a matrix. A copy of Chromium and playwright are needed.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from attnlab.layers import AttentionLayer, Axes
from attnlab.run_record import write
from attnlab.run_record.attempt import Attempt
from attnlab.run_record.layers import FILE, Layers
from attnlab.run_record.pattern_table import Pattern, PatternWeights
from bench.many_runs import _identity, _result

ARGUMENTS = ("--no-sandbox", "--disable-gpu")
SHARPNESS = 3.0
"""The standard deviation of scores, so that a row has some large weights and many near 0."""
MOVE = """async (to) => {
  const slider = document.getElementById("step");
  const caption = document.querySelector("[data-caption]");
  const before = caption.textContent;
  const start = performance.now();
  const drawn = new Promise((resolve) => {
    const observer = new MutationObserver(() => {
      if (caption.textContent === before) return;
      observer.disconnect();
      requestAnimationFrame(() => setTimeout(resolve));
    });
    observer.observe(caption, { childList: true, characterData: true, subtree: true });
  });
  slider.value = to;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  await drawn;
  return performance.now() - start;
}"""


def main() -> int:
    """Write the record, measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.attention_slider", description=__doc__)
    for name, default in (("tokens", 256), ("layers", 24), ("heads", 16), ("steps", 6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = write_run(
            Path(directory), options.tokens, options.layers, options.heads, options.steps
        )
        size = sum(file.stat().st_size for file in path.rglob("patterns.arrow"))
        print(f"{size / 2**20:.0f} MiB of patterns")
        for line in measure(Path(directory), path.name):
            print(line)
    return 0


def write_run(
    runs_dir: Path, num_tokens: int, num_layers: int, num_heads: int, num_steps: int
) -> Path:
    """Write a finished run with patterns of one probe; return its directory."""
    random = np.random.Generator(np.random.Philox(0))
    identity = _identity("multihead", num_layers, 1e-3, 0, 100 * num_steps)
    attempt = Attempt.claim(runs_dir / "slider", identity)
    layers = [
        AttentionLayer(index, f"blocks.{index}.mixer.attend", num_heads, Axes())
        for index in range(num_layers)
    ]
    write.create_file(attempt.path / FILE, json.dumps(Layers(layers).to_json()).encode())
    tokens = [f"word{position % 50}" for position in range(num_tokens)]
    later = np.triu(np.ones((num_tokens, num_tokens), bool), 1)
    for step in range(num_steps):
        for layer in layers:
            scores = random.standard_normal((num_heads, num_tokens, num_tokens), np.float32)
            scores = np.where(later, -np.inf, SHARPNESS * scores)
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights /= weights.sum(axis=-1, keepdims=True)
            pattern = Pattern(
                *(100 * step, "validation-0", layer, tokens, range(num_tokens), num_tokens - 1),
                PatternWeights(weights),
            )
            attempt.append("patterns", [pattern.to_row()])
    attempt.finish(_result(identity, {"accuracy": 1.0, "loss": 0.0}))
    return attempt.path.parents[1]


def measure(runs_dir: Path, run: str) -> list[str]:
    """Serve the run and return a line of milliseconds for each view."""
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "attnlab", "ui", "--runs-dir", str(runs_dir), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        with sync_playwright() as play:
            chromium = shutil.which("chromium") or shutil.which("chromium-browser")
            browser = play.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
            lines = []
            for view in ("tokens", "matrix"):
                page = browser.new_page(viewport={"width": 1400, "height": 1000})
                page.goto(f"{address}attention?run={run}&view={view}&step=0")
                page.wait_for_selector("html[data-ready]", state="attached", timeout=120_000)
                page.wait_for_timeout(3000)
                lines.append(_moves(page, view))
                page.close()
            browser.close()
    finally:
        server.terminate()
        server.wait()
    return lines


def _moves(page: Any, view: str) -> str:
    """Move the slider to steps that were fetched ahead, and to one that was not."""
    last = int(page.locator("#step").get_attribute("max"))
    # Four steps after the shown one are fetched ahead.
    ahead = [page.evaluate(MOVE, to) for to in (1, 2, 3)]
    page.wait_for_timeout(3000)
    again = [page.evaluate(MOVE, to) for to in (2, 1, 0)]
    page.wait_for_timeout(3000)
    page.locator("[data-grid] button").nth(5).click()
    page.wait_for_timeout(200)
    fresh = page.evaluate(MOVE, last)
    warm = [*ahead, *again]
    return (
        f"{view}: fetched ahead median {median(warm):.0f} ms, largest {max(warm):.0f} ms; "
        f"another head's last step {fresh:.0f} ms ({', '.join(f'{move:.0f}' for move in warm)})"
    )


if __name__ == "__main__":
    sys.exit(main())
