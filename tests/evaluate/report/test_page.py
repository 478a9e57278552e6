"""The report: one file that needs no other, harmless names, a page that works in a real browser."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import vidlbc
from tests.codec.small_models import save_small_model
from tests.conftest import motion_frames
from tests.evaluate.report.browser import CHROMIUM, Browser
from vidlbc.codec.codec import Codec
from vidlbc.errors import InputError
from vidlbc.evaluate.codecs import VideoCodec
from vidlbc.evaluate.rate_distortion.comparison import compare
from vidlbc.evaluate.rate_distortion.measure import Point
from vidlbc.evaluate.report import (
    Page,
    Panel,
    Player,
    ShownClip,
    add_clip,
    environment,
    show_clip,
    write_evaluation_report,
)


def points() -> list[Point]:
    rates = {"transformer": 1.0, "x265": 0.8}
    return [
        Point(
            clip,
            kind,
            qp,
            8,
            32,
            48,
            round(1536 * factor * 2**qp),
            0,
            1.0 if kind == "transformer" else 0.0,
            30.0 + qp,
            0.9 + qp / 100,
            "w" * 40 if kind == "transformer" else "libx265, preset medium",
            fps=25.0,
            encode_seconds=0.5,
            decode_seconds=0.25,
        )
        for clip in ("a.mp4", "b</script><b>.mp4")
        for kind, factor in rates.items()
        for qp in range(4)
    ]


CLIP = motion_frames(6, (32, 47), motion=(1.0, 1.0))


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return vidlbc.load(save_small_model(tmp_path_factory.mktemp("model") / "m", kinds=("lstm",)), "cpu", "lstm")


@pytest.fixture(scope="module")
def shown(codec: Codec) -> ShownClip:
    return show_clip("a.mp4", CLIP, 25, codec, codec.compress(CLIP, 40), VideoCodec("x265"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, shown: ShownClip) -> Path:
    path = tmp_path_factory.mktemp("report") / "report" / "index.html"
    differences = [d for measure in ("psnr", "ms_ssim") for d in compare(points(), measure)]
    problems = {"c.mp4": "left out: <broken>"}
    made_with = environment(torch.device("cpu"))
    write_evaluation_report(path, points(), differences, problems, shown, {"data": "FOLDER"}, made_with)
    return path


@pytest.mark.slow
def test_the_page_holds_all_that_it_shows(page):
    text = page.read_text()
    assert not re.search(r"(src|href)=[\"']?(https?:|//|[^\"'d#])", text), "nothing is fetched"
    assert "{{" not in text and text.count("data:video/mp4;base64,") == 1
    assert "vidlbc transformer" in text and "libx265, preset medium" in text and "+25.0" in text
    assert "b&lt;/script&gt;&lt;b&gt;.mp4" in text and "left out: &lt;broken&gt;" in text


@pytest.mark.slow
def test_the_data_is_json_that_cannot_end_its_script(page):
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    told = json.loads(data)
    assert [curve["name"] for curve in told["curves"]] == ["vidlbc transformer", "x265"]
    assert told["curves"][0]["points"][0]["bpp"] == pytest.approx(8 * 1536 / (8 * 32 * 48))
    assert [panel["name"] for panel in told["players"][0]["panels"]] == ["source", "vidlbc lstm", "x265"]
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


def test_what_is_shown_is_what_the_files_hold(codec: Codec, shown: ShownClip) -> None:
    data = codec.compress(CLIP, qp=40, fps=25)
    source, ours, other = shown.player.panels
    assert shown.bytes == len(data) and np.array_equal(ours.frames, codec.decompress(data))
    assert f"qp 40: {len(data):,} bytes" in ours.caption and np.array_equal(source.frames, CLIP)
    assert other.frames.shape == CLIP.shape and re.search(r"crf \d+: [\d,]+ bytes", other.caption)
    null = codec.compress(CLIP, qp=40, context=False)
    assert shown.bits.frames.sum() + shown.bits.other == pytest.approx(8 * len(data))
    assert shown.bits_null is not None
    assert shown.bits_null.frames.sum() + shown.bits_null.other == pytest.approx(8 * len(null), abs=64)


def test_a_codec_that_cannot_code_the_clip_is_left_out_with_a_line(codec: Codec, tmp_path: Path) -> None:
    class Refuses(VideoCodec):
        def encode(self, *_: object) -> bytes:
            raise InputError("x265 cannot code pictures of 47x32 (why)")

    clip = show_clip("a.mp4", CLIP, 25, codec, codec.compress(CLIP, 40), Refuses("x265"))
    page = Page("one codec")
    add_clip(page, clip)
    page.write(tmp_path / "index.html")
    assert [panel.name for panel in clip.player.panels] == ["source", "vidlbc lstm"]
    assert "No other codec beside: x265 cannot code pictures of 47x32 (why)" in (tmp_path / "index.html").read_text()


def test_a_video_too_large_for_a_page_is_cut_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    player = Player((Panel("a", "", noise), Panel("b", "", noise)), 25)
    data, frames = player.video()
    assert frames == 12
    monkeypatch.setattr("vidlbc.evaluate.report.player._LARGEST", len(data) // 2)
    page = Page("cut")
    page.player(player)
    page.write(tmp_path / "index.html")
    (shown,) = re.findall(r"Shown: the first (\d+) of 12 frames", (tmp_path / "index.html").read_text())
    assert 2 <= int(shown) <= 6 and len(player.video()[0]) <= len(data) // 2


def test_the_environment_names_what_decides_a_result() -> None:
    told = environment(torch.device("cpu"))
    assert told["torch"] == torch.__version__ and told["threads"] == torch.get_num_threads()
    assert told["vidlbc"] == vidlbc.__version__ and all(told[name] for name in ("PyAV", "constriction"))
    assert (told["compressai"] is None) == (importlib.util.find_spec("compressai") is None)
    assert told["commit"] is None or re.fullmatch(r"[0-9a-f]{12,}(-dirty)?", told["commit"])
    assert told["command"].startswith("python ") and told["device"] == "cpu"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt install chromium)")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_runs_in_a_browser(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width)
    assert browser.complaints() == [] and browser.requests() == [page.resolve().as_uri()]
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.querySelectorAll('[data-chart] path').length") == 2 * 2
    assert browser.value("document.querySelectorAll('[data-chart] circle').length") == 2 * 2 * 4
    assert browser.value("document.querySelectorAll('[data-series] path').length") == 2
    note = browser.value("document.querySelector('.bar + .note').textContent")
    assert note.startswith("left: source, a.mp4\nright: vidlbc lstm, qp 40: ")
    # The divider parts two different pictures; left of it is the source.
    picture = """(() => { const c = document.querySelector('.player canvas');
      return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; })()"""
    pixels = np.array(browser.value(picture)).reshape(32, 48, 4)[..., :3].astype(float)
    assert np.abs(pixels[:, :22] - CLIP[0, :, :22]).mean() < 8 < np.abs(pixels[:, 26:47] - CLIP[0, :, 26:]).mean()
