"""torchcodec is optional: it may be absent, or present and unable to load, and then it says so in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from vidlbc.errors import InputError
from vidlbc.video import examine, open_source, probe


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failure", "text"),
    [
        ("ImportError('no wheel for this system')", "no wheel for this system"),
        ("OSError('libavutil.so.60: cannot open shared object file')", "libavutil.so.60: cannot open"),
        ("RuntimeError('Could not load libtorchcodec.\\nLikely causes: ...')", "Could not load libtorchcodec."),
    ],
)
def test_a_build_that_does_not_load(
    monkeypatch: pytest.MonkeyPatch, numbered_clip, tmp_path: Path, failure: str, text: str
) -> None:
    package = tmp_path / "site" / "torchcodec"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"raise {failure}\n")
    monkeypatch.setattr(sys, "path", [str(package.parent), *sys.path])
    clip = numbered_clip(tmp_path / "c.mp4")
    with pytest.raises(InputError) as caught:
        probe(clip, "torchcodec")
    message = str(caught.value)
    assert message.startswith(f"back end torchcodec cannot be loaded: {text}") and "\n" not in message
    assert str(examine(clip)[1]) == "ok"  # nothing else needs it


@pytest.mark.slow
def test_it_gives_the_same_frames(numbered_clip, tmp_path: Path) -> None:
    clip = numbered_clip(tmp_path / "c.mp4", frames=20)
    try:
        source = open_source(clip, "torchcodec")
    except InputError as error:
        pytest.skip(str(error))
    indices = [0, 7, 19]
    np.testing.assert_array_equal(source.frames_at(indices), open_source(clip, "pyav").frames_at(indices))
    assert probe(clip, "torchcodec").fps == probe(clip, "pyav").fps
