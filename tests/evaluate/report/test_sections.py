"""Sections of the page in a real browser: drawn, legible, inside the screen, and right where the pointer asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import motion_frames
from tests.evaluate.report.browser import CHROMIUM, Browser
from vidlbc.errors import InputError
from vidlbc.evaluate.report import Page

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt install chromium)")
CLASSES = ["up", "down </script>", "left"]


def point(medium: str, qp: int | None, size: float, top1: float, head: str = "linear") -> dict:
    ci95 = (top1 - 0.1, top1 + 0.1)
    return dict(medium=medium, head=head, qp=qp, bytes=size, bpp=size / 1e5, top1=top1, ci95=ci95, clips=127)


POINTS = [
    point("latents", 8, 1000, 0.3),
    point("latents", 32, 8000, 0.4),
    point("decoded frames", 8, 1000, 0.25),
    point("decoded frames", 32, 8000, 0.45),
    point("source pixels", None, 250000, 0.5),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sections") / "index.html"
    page = Page("Sections", "<footer>")
    page.tiles([("top-1, latents", "40.0%", "127 videos"), ("size", "5 kB", "<b>")])
    page.accuracy(POINTS, chance=0.25)
    lines = page.series("Bits over time", {"with": [1.0, None, 3.0], "without": [4.0, 5.0, 6.0]}, "frame", "kbit")
    bars = page.series("Levels", {"stride 4": [1, 0, 2], "stride 8": [1, 1, 1]}, "frame", "kbit", stacked=True)
    page.row([lines, bars])
    page.confusion(CLASSES, {"latents": np.array([[3, 1, 0], [0, 0, 2], [0, 0, 0]]), "pixels": np.eye(3, dtype=int)})
    bits = np.zeros((2, 4, 6))
    bits[0, 1, 2], bits[1, 3, 5] = 64.0, 32.0
    page.bit_maps(motion_frames(2, (32, 46)), [0, 7], {"with context": bits, "without": 2 * bits}, 8)
    page.facts({"command": "python " + "x/y" * 60})
    page.write(path)
    return path


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (420, True)])
def test_every_section_is_drawn_inside_the_screen(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width, dark=dark)
    assert browser.complaints() == [] and browser.requests() == [page.resolve().as_uri()]
    assert browser.value("document.documentElement.scrollWidth") <= width
    back = browser.value("getComputedStyle(document.body).backgroundColor")
    assert back == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")
    # Two curves of two points with whiskers; the reference is a band, and is no point.
    assert browser.value("document.querySelectorAll('[data-accuracy] circle').length") == 4
    assert browser.value("document.querySelectorAll('[data-accuracy] .band').length") == 1
    # A gap parts a line: two strokes begin.
    assert browser.value("document.querySelector('[data-series] path').getAttribute('d').match(/M/g).length") == 2
    assert browser.value("document.querySelectorAll('[data-series=\"1\"] figure rect:not([fill])').length") == 5
    small = "[...document.querySelectorAll('svg text')].filter(t => t.getBoundingClientRect().height < 11)"
    assert browser.value(f"{small}.map(t => t.textContent)") == []
    outside = """[...document.querySelectorAll('figure svg')].flatMap(s => { const r = s.getBoundingClientRect();
      return [...s.querySelectorAll('text')].filter(t => { const b = t.getBoundingClientRect();
        return b.left < r.left - 1 || b.right > r.right + 1 || b.bottom > r.bottom + 1; })
      .map(t => t.textContent); })"""
    assert browser.value(outside) == []


@needs_browser
def test_equal_bytes_stand_beside_one_another_and_boxes_hide(browser: Browser, page: Path) -> None:
    browser.open(page, 1200)
    places = "[...document.querySelectorAll('[data-accuracy] circle')].map(c => +c.getAttribute('cx'))"
    first, second, third, fourth = browser.value(places)
    assert first + 5 < third < first + 20 and second + 5 < fourth < second + 20
    browser.value("document.querySelector('[data-accuracy] input').click()")
    assert len(browser.value(places)) == 2


@needs_browser
def test_the_pointer_is_told_the_figures(browser: Browser, page: Path) -> None:
    browser.open(page, 1200)

    def told_at(selector: str, place: str = "0.5, 0.5") -> str:
        browser.value(f"""(() => {{ const e = document.querySelector({selector!r}), r = e.getBoundingClientRect();
          const [x, y] = [{place}];
          e.dispatchEvent(new PointerEvent("pointermove",
            {{ clientX: r.left + x * r.width, clientY: r.top + y * r.height, bubbles: true }})); }})()""")
        return browser.value("getComputedStyle(tip).display") + " " + browser.value("tip.textContent")

    assert told_at("[data-accuracy] svg g") == (
        "block latents, qp 8: top-1 30.0% [20.0%, 40.0%], 1 kB a clip, 0.0100 bit/pixel, 127 clips"
    )
    assert told_at("[data-accuracy] .band").startswith("block source pixels: top-1 50.0%")
    assert told_at("[data-series] rect", "0.99, 0.5") == "block frame 2 (kbit)\nwith: 3.0\nwithout: 6.0"
    assert told_at('[data-series="1"] rect[fill]', "0.01, 0.5").endswith("stride 4: 1.0\nstride 8: 1.0\ntogether: 2.0")
    assert told_at("[data-confusion] .cell") == "block true up, taken for up: 3 of 4 (75%)"
    assert told_at("[data-classes] circle") == "block up, latents: 3 of 4 (75%)"
    browser.value(
        "(() => { const e = document.querySelector('[data-maps] input'); e.value = 0; "
        "e.dispatchEvent(new Event('input')); })()"
    )
    # 64 bits in a cell of 64 pixels; the stored values are rounded.
    heat = told_at("[data-maps] .maps canvas", "(2.5 * 8) / 46, (1.5 * 8) / 32")
    name, value = heat.removeprefix("block ").split("\n")[0].split(": ")
    assert name == "with context" and float(value.split()[0]) == pytest.approx(1.0, rel=0.03)


@needs_browser
def test_a_map_shows_the_frame_that_is_chosen(browser: Browser, page: Path) -> None:
    browser.open(page, 420)
    bright = """[...document.querySelectorAll('.maps canvas')].map(c => { const found = [];
      const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
      for (let row = 0; row < 4; row++) for (let column = 0; column < 5; column++) {
        const at = 4 * ((8 * row + 4) * c.width + 8 * column + 4);
        if (p[at] + p[at + 1] + p[at + 2] > 600) found.push([row, column]); } return found; })"""
    browser.value(
        "[...document.querySelectorAll('[data-maps] input')].forEach((e, i) => { e.value = i; "
        "e.dispatchEvent(new Event('input')); })"
    )
    assert browser.value(bright) == [[], [[1, 2]]]  # the other holds half as much
    browser.value(
        "(() => { const e = document.querySelector('[data-maps] input'); e.value = 1; "
        "e.dispatchEvent(new Event('input')); })()"
    )
    assert browser.value("document.querySelector('[data-maps] output').textContent") == "frame 7"
    captions = browser.value("[...document.querySelectorAll('.maps figcaption')].map(c => c.textContent)")
    assert captions == ["with context: 32 bits inside the picture", "without: 64 bits inside the picture"]


def test_points_that_are_wrong_are_refused() -> None:
    page = Page("wrong")
    with pytest.raises(InputError, match="lacks bpp, top1"):
        page.accuracy([{k: v for k, v in POINTS[0].items() if k not in ("bpp", "top1")}])
    with pytest.raises(InputError, match="expected bytes above 0, and fractions from 0 to 1"):
        page.accuracy([POINTS[0] | {"top1": 30.0}])
    with pytest.raises(InputError, match="series 'a' has 2 values for 3 places"):
        page.series("t", {"a": [1.0, 2.0]}, "frame", "kbit", x=[0, 1, 2])


def test_heads_are_told_apart_where_there_are_several(tmp_path: Path) -> None:
    page = Page("heads")
    page.accuracy([POINTS[0], POINTS[0] | {"head": "attentive"}])
    page.write(tmp_path / "index.html")
    text = (tmp_path / "index.html").read_text()
    assert '"name": "latents, linear"' in text and '"name": "latents, attentive"' in text
