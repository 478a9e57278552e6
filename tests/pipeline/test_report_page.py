"""The main job's report/index.html in a real browser: every section is there to see and agrees with metrics.json."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import vidlbc
from tests.evaluate.report.browser import CHROMIUM, Browser
from tests.pipeline.conftest import FAST, Job
from vidlbc.commands import compose
from vidlbc.shards import LatentShards

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt install chromium)")
SECTIONS = [
    "Accuracy against bits",
    "Classes",
    "Side by side",
    "Where the bits go",
    "Training of the temporal stage",
    "Measured clips",
    "Settings",
    "Environment",
]
# Height of what lies between a heading and the next one.
HEIGHTS = """Object.fromEntries([...document.querySelectorAll('h2')].map(h => {
  const low = h.getBoundingClientRect().bottom;
  let at = h.nextElementSibling, end = low;
  while (at && at.tagName !== 'H2') { end = at.getBoundingClientRect().bottom; at = at.nextElementSibling; }
  return [h.textContent, end - low]; }))"""
# Canvases of a single colour, and charts in which next to nothing is drawn.
EMPTY = """[...document.querySelectorAll('canvas')].filter(c => { const p = new Uint32Array(c.getContext('2d')
    .getImageData(0, 0, c.width, c.height).data.buffer); return new Set(p).size < 8; }).length
  + [...document.querySelectorAll('svg')].filter(s => [...s.querySelectorAll('path, circle, rect:not([fill])')]
    .filter(m => { const b = m.getBoundingClientRect(); return b.width + b.height > 3; }).length < 1).length"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (420, True)])
def test_every_section_is_there_to_see(browser: Browser, undisturbed: Job, width: int, dark: bool) -> None:
    path = undisturbed.out / "report" / "index.html"
    browser.open(path, width, dark=dark)
    assert browser.complaints() == [] and browser.requests() == [path.resolve().as_uri()]
    assert browser.value("document.documentElement.scrollWidth") <= width
    heights = browser.value(HEIGHTS)
    assert list(heights) == SECTIONS and min(heights.values()) > 60
    until = time.monotonic() + 20  # the player's canvas waits for its video
    while browser.value(EMPTY) and time.monotonic() < until:
        time.sleep(0.2)
    assert browser.value(EMPTY) == 0
    assert browser.value("document.querySelectorAll('[data-accuracy] circle').length") == 2  # latents, decoded
    assert browser.value("document.querySelectorAll('[data-accuracy] .band').length") == 1  # pixels
    panels = browser.value("[...document.querySelectorAll('.bar select')].pop().options.length")
    assert panels == 3  # source, ours, x265
    assert path.stat().st_size < 8e6


@pytest.mark.slow
def test_the_figures_are_those_of_the_run(browser: Browser, undisturbed: Job) -> None:
    metrics = undisturbed.metrics
    browser.open(undisturbed.out / "report" / "index.html", 1200)
    tiles = dict(
        browser.value(
            "[...document.querySelectorAll('.tile')].map(t => [t.children[0].textContent, t.children[1].textContent])"
        )
    )
    low, high = (100 * v for v in metrics["top1_ci95"])
    assert tiles["top-1, latents"] == f"{100 * metrics['top1']:.1f}% [{low:.1f}, {high:.1f}]"
    assert tiles["bit/pixel"] == f"{metrics['bpp']:.4f}"
    assert "15 videos, 0 unreadable, 0 damaged" in browser.value("document.body.textContent")

    told = browser.value("JSON.parse(document.getElementById('data').textContent)")
    shards = LatentShards(undisturbed.out / "shards", "test")
    rows = [shards.meta(i) for i in range(len(shards))]
    lines = {line["name"]: line for line in told["accuracy"][0]["lines"]}
    assert lines["latents"]["points"][0]["bytes"] == pytest.approx(sum(row["bytes"] for row in rows) / 3)
    sizes = [source.size for source in shards.plan.sources if source.path in {row["source"] for row in rows}]
    assert lines["source pixels"]["points"][0]["bytes"] == pytest.approx(sum(sizes) / 3)
    assert [line["reference"] for line in lines.values()] == [False, False, True]
    counts = told["confusions"][0]["counts"]["latents"]
    assert sum(count for _, _, count in counts) == 3
    assert sum(count for i, j, count in counts if i == j) == pytest.approx(3 * metrics["top1"])

    over_time = {s["name"]: s["values"] for s in told["series"][0]["series"]}
    shown = next(
        row for row in rows if row["key"] == json.loads((undisturbed.out / "clips.json").read_text())["shown"]["key"]
    )
    assert len(over_time["with context"]) == shown["frames"] == len(over_time["without context"])
    vectors_header_and_checks = 8 * shown["bytes"] - 1000 * sum(over_time["with context"])
    assert 0 < vectors_header_and_checks < 8 * shown["bytes"] / 2
    levels = told["series"][1]["series"]
    assert [level["name"] for level in levels] == ["stride 4", "stride 8", "stride 16", "stride 32"]
    assert sum(sum(level["values"]) for level in levels) == pytest.approx(sum(over_time["with context"]))
    assert [m["name"] for m in told["maps"][0]["maps"]] == ["with context", "without context"]


@pytest.mark.slow
def test_settings_and_environment_are_told(undisturbed: Job) -> None:
    text = (undisturbed.out / "report" / "index.html").read_text()
    config = compose("pretrain_video", ["data.root=a", "out=b", *FAST])
    options = {f"{group}.{name}" for group in ("data", "train", "eval") for name in config[group]}
    options |= {str(name) for name in config} - {"data", "train", "eval", "plan"}
    options = options - {"eval.head", "command"} | {f"eval.head.{name}" for name in config.eval.head}
    told = dict(re.findall(r"<tr><td>([\w.]+)</td><td>([^<]*)</td></tr>", text.split("<h2>Settings</h2>")[1]))
    assert options <= told.keys() and told["train.steps"] == "4" and told["eval.head.kind"] == "linear"
    assert f"<td>vidlbc</td><td>{vidlbc.__version__}</td>" in text and "<td>command</td><td>python " in text
    assert str(Path("tools") / "pretrain_video.py") in text
