"""Some frames of a clip, decoded from the key frame before them: LatentShards.span, tools/decode.py span=."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vidlbc
from tests.codec.small_models import noisy_frames, save_small_model
from tests.shards.test_layers import encode
from vidlbc.errors import InputError
from vidlbc.shards import LatentShards

Tool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_spans_of_clips_begin_at_their_key_frames(
    call_tool: Tool, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    moved = save_small_model(tmp_path / "moved", moved=True, copies=True)
    make_clip(tmp_path / "videos" / "a" / "0.mp4", frames=9)
    out = tmp_path / "shards"
    done = encode(call_tool, tmp_path / "videos", moved, out, "keyint=3", "temporal=lstm")
    assert done.returncode == 0, done.stderr
    for mode in ("symbols", "latents", "frames"):
        shards = LatentShards(out, mode=mode)
        whole, part = shards[0], shards.span(0, 4, 6)
        pairs = [(part[mode], whole[mode])] if mode == "frames" else zip(part[mode], whole[mode], strict=True)
        assert all(np.array_equal(some, every[4:6]) for some, every in pairs)
        assert vidlbc.inspect(part["bitstream"]).frames == 3 and len(part["bitstream"]) < len(whole["bitstream"])
    cached = LatentShards(out, mode="latents", cache=tmp_path / "cache")
    part = cached.span(0, 4, 6)
    assert all(torch.equal(*pair) for pair in zip(part["latents"], cached.span(0, 4, 6)["latents"], strict=True))
    assert all(len(level) == 2 for level in part["latents"])
    decoded = LatentShards(out, mode="latents")[0]["latents"]
    assert all(torch.equal(some, every[4:6]) for some, every in zip(part["latents"], decoded, strict=True))
    with pytest.raises(InputError, match="^frames 4 to 10: the bitstream holds 9$"):
        cached.span(0, 4, 10)


@pytest.mark.slow
def test_the_tool_decodes_a_span_of_a_file(call_tool: Tool, tmp_path: Path) -> None:
    model = save_small_model(tmp_path / "model", moved=True, copies=True)
    codec = vidlbc.load(model, "cpu", temporal="lstm", keyint=3)
    data = codec.compress(noisy_frames(8, 32, 48), 30)
    (tmp_path / "a.vlbc").write_bytes(data)
    plain = ("decode", f"input={tmp_path / 'a.vlbc'}", f"output={tmp_path / 'made'}", f"model={model}", "format=png")
    done = call_tool(*plain, "span=[4,7]")
    assert done.returncode == 0 and "1 videos, 3 frames" in done.stdout
    pictures = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "made" / "a").glob("*.png"))]
    assert np.array_equal(np.stack(pictures), codec.decompress(data)[4:7])
    for wrong, line in (
        ("[4]", "span=[4]: expected [START, STOP], two numbers of frames"),
        ("[6,9]", f"{tmp_path / 'a.vlbc'}: frames 6 to 9: the bitstream holds 8"),
    ):
        done = call_tool(*plain, f"span={wrong}")
        assert done.returncode == 2 and done.stderr.strip() == f"error: {line}"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["keyint=3", "effort=fast"])
def test_what_encoded_them_verifies_and_adds_to_them(
    call_tool: Tool, make_clip: Callable[..., Path], tmp_path: Path, how: str
) -> None:
    """`verify` chooses symbols again and `add` encodes, both as the folder was, whatever they are told of it."""
    model = save_small_model(tmp_path / "model", moved=True, copies=True)
    make_clip(tmp_path / "videos" / "0.mp4", frames=9)
    make_clip(tmp_path / "more" / "1.mp4", frames=9, seed=1)
    assert encode(call_tool, tmp_path / "videos", model, tmp_path / "shards", how, "temporal=lstm").returncode == 0
    done = call_tool("shards", "add", f"input={tmp_path / 'shards'}", f"videos={tmp_path / 'more'}", "device=cpu")
    assert done.returncode == 0, done.stderr
    done = call_tool("verify", f"input={tmp_path / 'shards'}", "device=cpu")
    assert done.returncode == 0 and ": 0 differ. 2 clips were compared with a new analysis" in done.stdout, done.stderr

    assert encode(call_tool, tmp_path / "more", model, tmp_path / "alone", how, "temporal=lstm").returncode == 0
    added, alone = LatentShards(tmp_path / "shards"), LatentShards(tmp_path / "alone")
    assert added.bitstream(1) == alone.bitstream(0)
