"""The benchmark: contestants give back what they were given, ratios are ratios, and the tool runs as a user runs it."""

import json
import math
import time

import numpy as np
import pytest

from tests.codec.small_models import save_small_model
from vidlbc.errors import InputError, VidlbcError
from vidlbc.evaluate.codecs import Anchor
from vidlbc.qa.benchmark.clip import generated_clip, read_clip
from vidlbc.qa.benchmark.contestants import OTHERS, Contestant, build_others, ours, x265
from vidlbc.qa.benchmark.memory import MemoryTask, measure
from vidlbc.qa.benchmark.race import race
from vidlbc.qa.benchmark.range_coder import CHUNK, draw_symbols, race_coders
from vidlbc.qa.benchmark.report import table


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A model folder with random weights, small enough for a test."""
    return save_small_model(tmp_path_factory.mktemp("model"), kinds=())


def clip(frames, size):
    return np.stack(list(generated_clip(frames, size)))


def test_the_generated_clip_is_the_same_every_time_and_moves():
    first = clip(5, 64)
    assert first.shape == (5, 64, 64, 3) and first.dtype == np.uint8
    assert (first == clip(5, 64)).all()
    assert (clip(3, 64) == first[:3]).all()
    change = np.abs(np.diff(first.astype(float), axis=0)).mean((1, 2, 3))
    assert (change > 2).all()  # more than the noise alone (2 * 2 / sqrt(pi) = 2.3 only where nothing moves)
    assert 15 < first.astype(float).std() < 80


@pytest.mark.slow
def test_a_clip_of_the_users(make_clip, tmp_path):
    path = make_clip(tmp_path / "a.mp4", frames=6, size=(80, 96))
    assert read_clip(path, 4, 64).shape == (4, 64, 64, 3)
    with pytest.raises(InputError, match=r"a.mp4: has 6 frames of 80x96; the benchmark needs 9 of at least 64x64"):
        read_clip(path, 9, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_every_contestant_gives_back_as_many_frames(name):
    frames = clip(2, 128)
    (contestant,) = build_others([name], "cpu", 2)
    coded = contestant.encode(frames)
    decoded = contestant.decode(coded, frames)
    assert decoded.shape == frames.shape and decoded.dtype == np.uint8
    assert 0 < len(coded) < frames.size
    if contestant.trained:
        assert np.abs(decoded.astype(float) - frames).mean() < 12


def test_an_unknown_contestant():
    with pytest.raises(InputError, match="against: unknown codec 'vvc', expected some of bmshj2018-hyperprior, "):
        build_others(["vvc"], "cpu", 2)


class Sleeper(Anchor):
    """Takes known times; loses a frame or decodes values too high on request. Its files have 512 bytes."""

    def __init__(self, encode_s, decode_s, lose=0, off=0):
        self.encode_s, self.decode_s, self.lose, self.off = encode_s, decode_s, lose, off

    def encode(self, frames, quality, fps):
        time.sleep(self.encode_s)
        self.frames = frames
        return bytes(512)

    def decode(self, data, height=None, width=None):
        time.sleep(self.decode_s)
        return self.frames[self.lose :] + np.uint8(self.off)

    def check(self, quality):
        pass


def sleeper(name, *args, trained=False, **options):
    return Contestant(name, Sleeper(*args, **options), 0, trained)


def test_ratios_are_ours_over_theirs():
    us, theirs = race([sleeper("us", 0.05, 0.1), sleeper("them", 0.2, 0.05)], clip(4, 32), rounds=3)
    assert (us.encode_ratio, us.decode_ratio) == (1, 1)
    assert math.isclose(theirs.encode_ratio, 4, rel_tol=0.5) and math.isclose(theirs.decode_ratio, 0.5, rel_tol=0.5)
    assert us.encode_fps == pytest.approx(theirs.encode_fps * theirs.encode_ratio)
    assert us.encode_fps <= 4 / 0.05
    assert us.bpp is None and us.psnr is None


def test_a_contestant_that_loses_a_frame_is_found_out():
    with pytest.raises(InputError, match=r"them decoded \(3, 32, 32, 3\), expected \(4, 32, 32, 3\)"):
        race([sleeper("us", 0, 0), sleeper("them", 0, 0, lose=1)], clip(4, 32), rounds=1)


def test_rate_and_quality_come_from_bytes_and_pixels():
    frames = np.minimum(clip(4, 32), 250)
    (speed,) = race([sleeper("them", 0.001, 0, off=3, trained=True)], frames, rounds=2)
    assert speed.bpp == 8 * 512 / (4 * 32 * 32) == 1
    assert speed.psnr == pytest.approx(20 * math.log10(255 / 3))


def test_finer_x265_costs_more_bits_and_is_closer():
    coarse, fine = race([x265("ultrafast", 40, 1), x265("veryfast", 15, 1)], clip(4, 64), rounds=1)
    assert coarse.bpp < fine.bpp and coarse.psnr < fine.psnr


@pytest.mark.compressai
def test_range_coders_agree_with_the_entropy_of_the_symbols():
    coders = {c.name: c for c in race_coders(CHUNK, rounds=1)}
    assert len(coders) == 3 and all(c.encode_msps > 0 and c.decode_msps > 0 for c in coders.values())
    from scipy.stats import logistic

    bits = 0.0
    symbols = draw_symbols(CHUNK)
    for values, mean, log2_scale in symbols.chunks:
        exact = logistic(mean, 2**log2_scale)
        bits -= np.log2(np.maximum(exact.cdf(values + 0.5) - exact.cdf(values - 0.5), 1e-12)).sum()
    assert coders["vidlbc"].bits_per_symbol == pytest.approx(bits / symbols.count, rel=0.01)
    for other in coders.values():  # another family, and the mean's fraction lost
        assert 0.99 < other.bits_per_symbol / (bits / symbols.count) < 1.25


@pytest.mark.slow
def test_memory_does_not_grow_with_the_clip(tiny_model):
    short, long = (measure(MemoryTask(str(tiny_model), None, "cpu", 1, 32, 64, frames)) for frames in (16, 160))
    assert short.frames == 16 and long.frames == 160 and long.bytes > 5 * short.bytes
    # 144 more frames are 1.8 MB of pixels and 7 MB of floats.
    assert long.peak_mb < short.peak_mb * 1.05


@pytest.mark.slow
def test_a_child_that_fails_says_why():
    with pytest.raises(VidlbcError, match=r"memory measurement of 4 frames failed: .*no model 'nowhere'"):
        measure(MemoryTask("nowhere", None, "cpu", 1, 32, 64, 4))


def test_vidlbc_races(tiny_model):
    import vidlbc

    codec = vidlbc.load(tiny_model, device="cpu")
    (speed,) = race([ours(codec, 32)], clip(3, 64), rounds=1)
    assert speed.name == "vidlbc none" and speed.bpp > 0 and speed.encode_fps > 0


@pytest.mark.slow
def test_the_tool_prints_a_table_and_writes_json(run_tool, tiny_model, tmp_path):
    done = run_tool(
        "benchmark",
        f"model={tiny_model}",
        "frames=3",
        "size=64",
        "rounds=1",
        "against=[x265]",
        "threads=1",
        "coder_symbols=1000",
        "memory_frames=[16]",
        f"out={tmp_path / 'b.json'}",
    )
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "b.json").read_text())
    assert [row["name"] for row in data["speed"]] == ["vidlbc none", "x265 medium"]
    assert data["speed"][1]["encode_ratio"] == pytest.approx(
        data["speed"][0]["encode_fps"] / data["speed"][1]["encode_fps"]
    )
    assert data["machine"]["threads"] == 1 and data["settings"]["against"] == ["x265"]
    assert [row["frames"] for row in data["memory"]] == [16] and len(data["range_coder"]) == 3
    for text in ("frames a second", "x265 medium", "million symbols a second", "16 frames", "written to"):
        assert text in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "argument, message",
    [
        ("against=[vvc]", "error: against: unknown codec 'vvc', expected some of "),
        ("model=nowhere", "error: no model 'nowhere': expected a model folder or one of "),
        ("frames=many", "error: frames=many: expected an integer (default 32)"),
        ("clip=/none.mp4", "error: /none.mp4"),
    ],
)
def test_the_tool_refuses_bad_input_in_one_line(call_tool, tiny_model, argument, message):
    quick = [f"model={tiny_model}", "memory_frames=[]", "coder_symbols=0", "against=[]"]
    done = call_tool("benchmark", *quick, argument)
    assert done.returncode == 2 and done.stderr.startswith(message) and done.stderr.count("\n") == 1


def test_an_empty_benchmark_prints_nothing():
    assert table([], [], []) == ""
