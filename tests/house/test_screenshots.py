"""`docs/screenshots.py` takes pictures of runs that show something."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pictured import pictured

SCRIPT = Path(__file__).parents[2] / "docs/screenshots.py"
WIDTH, LARGEST = 900, 400_000


def take_screenshots(
    runs_dir: Path, out: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    words = [runs_dir, "--out", out, "--width", str(WIDTH)]
    return subprocess.run(
        [sys.executable, SCRIPT, *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.browser
@pytest.mark.slow
def test_the_report_and_wandbs_page_are_pictured_in_the_width_asked_for(tmp_path):
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not (shutil.which("chromium") or shutil.which("chromium-browser")):
        pytest.skip("there is no Chromium here")
    runs_dir, out = tmp_path / "runs", tmp_path / "pictures"
    for variant in ("multihead", "lstm"):
        pictured(runs_dir, variant, steps=(0, 500))
    records = {path: path.stat().st_mtime_ns for path in runs_dir.rglob("*")}
    done = take_screenshots(runs_dir, out)
    assert done.returncode == 0, done.stderr
    pictures = {path.name: path for path in out.iterdir()}
    assert pictures.keys() == {"report.png", "wandb.png"}
    assert done.stdout.splitlines() == [str(pictures[name]) for name in ("report.png", "wandb.png")]
    for path in pictures.values():
        with Image.open(path) as image:
            shades = np.asarray(image.convert("L"))
        assert shades.shape[1] == WIDTH
        # Ink on light paper, in the lower half too.
        for half in np.array_split(shades, 2):
            assert half.min() < 100
            assert np.median(half) > 240
        assert path.stat().st_size <= LARGEST
    assert {path: path.stat().st_mtime_ns for path in runs_dir.rglob("*")} == records


def test_without_chromium_nothing_is_written_and_a_message_says_so(tmp_path):
    done = take_screenshots(tmp_path, tmp_path / "pictures", PATH=str(tmp_path))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "Chromium" in done.stderr
    assert list(tmp_path.iterdir()) == []
