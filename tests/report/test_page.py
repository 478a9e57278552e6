"""The report: one file that needs no other, harmless names, a page that works in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import motion_frames
from vidlbc.errors import InputError
from vidlbc.evaluation.comparison import compare
from vidlbc.evaluation.rate_distortion import Point
from vidlbc.report import Page, Panel, Player, write_evaluation_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def points() -> list[Point]:
    rates = {"transformer": 1.0, "x265": 0.8}
    return [
        Point(clip, kind, qp, 8, 32, 48, round(1536 * factor * 2**qp), 0, 1.0 if kind == "transformer" else 0.0,
              30.0 + qp, 0.9 + qp / 100, "w" * 40 if kind == "transformer" else "libx265, preset medium", fps=25.0,
              encode_seconds=0.5, decode_seconds=0.25)
        for clip in ("a.mp4", "b</script><b>.mp4") for kind, factor in rates.items() for qp in range(4)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report" / "index.html"
    clip = motion_frames(6, (32, 47), motion=(1.0, 1.0))
    player = Player((Panel("source", "as it is", clip), Panel("ours", "fewer bytes", 255 - clip)), 25)
    differences = [d for measure in ("psnr", "ms_ssim") for d in compare(points(), measure)]
    write_evaluation_report(path, points(), differences, {"c.mp4": "left out: <broken>"}, player, {"data": "FOLDER"})
    return path


def test_the_page_holds_all_that_it_shows(page):
    text = page.read_text()
    assert not re.search(r"(src|href)=[\"']?(https?:|//|[^\"'d#])", text), "nothing is fetched"
    assert "{{" not in text and text.count("data:video/mp4;base64,") == 1
    assert "vidlbc transformer" in text and "libx265, preset medium" in text and "+25.0" in text
    assert "b&lt;/script&gt;&lt;b&gt;.mp4" in text and "left out: &lt;broken&gt;" in text


def test_the_data_is_json_that_cannot_end_its_script(page):
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    told = json.loads(data)
    assert [curve["name"] for curve in told["curves"]] == ["vidlbc transformer", "x265"]
    assert told["curves"][0]["points"][0]["bpp"] == pytest.approx(8 * 1536 / (8 * 32 * 48))
    assert [panel["name"] for panel in told["players"][0]["panels"]] == ["source", "ours"]
    assert (told["players"][0]["width"], told["players"][0]["height"]) == (48, 32)


def test_figures_that_are_none_become_null(tmp_path):
    page = Page("none")
    page.curves({"a": [{"label": "x", "bpp": float("nan"), "psnr": 1.0}]}, [])
    page.write(tmp_path / "index.html")
    assert '"bpp": null' in (tmp_path / "index.html").read_text()


def test_panels_of_different_clips_are_refused():
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(InputError, match="panels must be frames of the same clip"):
        Player((Panel("a", "", frames), Panel("b", "", frames[:1])), 25)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt install chromium)")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_runs_in_a_browser(page, tmp_path, width):
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom",
        f"--user-data-dir={tmp_path}", "--virtual-time-budget=5000", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert 'data-ready="yes"' in done.stdout, done.stderr[-2000:]   # the script ran to its end
    assert done.stdout.count("<path") == 2 * 2 and done.stdout.count("<circle") == 2 * 2 * 4
    assert "left: as it is" in done.stdout and "right: fewer bytes" in done.stdout
