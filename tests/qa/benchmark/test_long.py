"""The long benchmark: all lengths are coded, costs and memory are those of the processes, growth is found."""

import json

import numpy as np
import pytest

from tests.codec.small_models import save_small_model
from vidlbc.errors import InputError, VidlbcError
from vidlbc.qa.benchmark.clip import generated_clip
from vidlbc.qa.benchmark.long import Container, LongFigures, LongRun, LongSettings, measure_long, write_loop
from vidlbc.qa.benchmark.long_report import summary, table
from vidlbc.qa.benchmark.long_worker import Sample
from vidlbc.video import read_blocks


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("model"), kinds=())


def settings(frames, **others):
    given = {"size": 32, "clip": None, "model": "default", "temporal": None, "device": "cpu", "threads": 1, "qp": 32}
    return LongSettings(frames, **{**given, **others})


def test_a_loop_repeats_to_its_length(tmp_path):
    loop = np.stack(list(generated_clip(10, 32)))
    write_loop(tmp_path / "a.mp4", loop, 25)
    frames = np.concatenate(list(read_blocks(tmp_path / "a.mp4")))
    assert len(frames) == 25
    error = np.abs(frames.astype(float) - np.concatenate([loop, loop, loop[:5]])).mean()
    assert error < 0.7 * np.abs(frames[1:].astype(float) - loop[np.arange(24) % 10]).mean()


def test_short_clips_are_repeated_to_a_twentieth_of_the_longest():
    asked = settings([100, 1000, 10000, 100000])
    assert [asked.clips(n) for n in asked.frames] == [50, 5, 1, 1]
    assert asked.total == 5000 + 5000 + 10000 + 100000


@pytest.mark.slow
def test_the_tool_codes_all_lengths(run_tool, tiny_model, tmp_path):
    out = tmp_path / "long.json"
    done = run_tool(
        "benchmark", "long", f"model={tiny_model}", "threads=1", "long_size=32", "long_frames=[8,200]", f"out={out}"
    )
    assert done.returncode == 0, done.stderr
    data = json.loads(out.read_text())
    for way in ("encode", "decode"):
        assert [(run["frames"], run["clips"]) for run in data[way]] == [(8, 1), (200, 1)]
        assert [run["samples"][-1]["frames"] for run in data[way]] == [8, 200]
        longest = data[way][-1]["samples"]
        assert len(longest) > 10 and longest[0]["frames"] == 0
        for name in ("frames", "cpu_s", "reader_cpu_s", "wall_s", "peak_mb"):
            values = [sample[name] for sample in longest]
            assert values == sorted(values)
            assert values[-1] > values[0] or name in ("reader_cpu_s", "peak_mb")
        assert all(100 < sample["mb"] <= sample["peak_mb"] + 1 for sample in longest)
    # The video's decoder is a process of its own.
    assert all(sample["reader_mb"] > 10 for sample in data["encode"][-1]["samples"])
    assert data["container"]["frames"] == 200 and data["container"]["inspect_ms"] > 0
    assert data["settings"]["long_frames"] == [8, 200] and data["machine"]["threads"] == 1
    assert (tmp_path / "long.png").read_bytes().startswith(b"\x89PNG")
    for text in ("decode: cpu", "MB encode", "cost of a frame within 10% at all lengths: ", "ms to check every packet"):
        assert text in done.stdout


def run_of(frames, cost_ms, mb, clips=1):
    """Costs and memory at ten equal steps; functions of the frames done."""
    steps = [round(frames * clips * k / 10) for k in range(11)]
    spent = np.cumsum([0] + [cost_ms(n) * (n - m) / 1000 for m, n in zip(steps, steps[1:], strict=False)])
    return LongRun(frames, clips, [Sample(n, s, 0, 2 * s, mb(n), 50, mb(n)) for n, s in zip(steps, spent, strict=True)])


def test_what_grows_is_found():
    flat = [run_of(n, lambda _: 8, lambda _: 500) for n in (100, 10000)]
    grows = [flat[0], run_of(10000, lambda n: 8 + n / 2500, lambda n: 500 + n / 100)]
    found = summary(LongFigures(flat, grows, Container(1, 10000, 0, 0)))
    assert found["encode"] == pytest.approx({"cost_ratio": 1, "drift": 1, "memory_growth": 1})
    assert found["decode"] == pytest.approx(
        {"cost_ratio": (8 + 2.2) / 8, "drift": (8 + 4) / (8 + 0.4), "memory_growth": 650 / 560}
    )
    assert not found["constant"] and summary(LongFigures(flat, flat, Container(1, 1, 0, 0)))["constant"]
    text = table(LongFigures(flat, grows, Container(77, 10000, 0.5, 3)))
    assert "10.20" in text and "16.00" in text and "at all lengths: no" in text and "77 bytes: 0.50 ms to open" in text


def test_repeated_clips_count_by_the_frame():
    run = run_of(100, lambda _: 8, lambda _: 500, clips=50)
    assert run.cpu_ms == pytest.approx(8) and run.wall_ms == pytest.approx(16)


@pytest.mark.slow
def test_a_process_that_fails_says_why():
    with pytest.raises(VidlbcError, match=r"encoding 4 frames failed: .*no model 'nowhere'"):
        measure_long(settings([4, 40], model="nowhere"))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("long_frames=[]", "error: long_frames=[]: expected ascending numbers of frames, at least 1"),
        ("long_frames=[100,10]", "error: long_frames=[100, 10]: expected ascending numbers of frames, at least 1"),
        ("long_size=33", "error: long_size=33: expected an even number of pixels, at least 16"),
        ("command=pace", "error: command=pace: expected one of race, "),
    ],
)
def test_bad_input_is_one_line(call_tool, argument, message):
    done = call_tool("benchmark", "long", argument)
    assert done.returncode == 2 and done.stderr.startswith(message) and done.stderr.count("\n") == 1


def test_a_clip_shorter_than_the_loop(make_clip, tmp_path):
    path = make_clip(tmp_path / "a.mp4", frames=6, size=(64, 64))
    with pytest.raises(InputError, match=r"a.mp4: has 6 frames of 64x64; the benchmark needs 100 of at least 32x32"):
        measure_long(settings([4], clip=str(path)))
