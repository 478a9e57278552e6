"""The fixtures themselves: a generated clip is real media with the motion that was asked for."""

import numpy as np


def test_make_clip_writes_the_frames_asked_for(make_clip, make_frames, tmp_path):
    import av

    path = make_clip(tmp_path / "a.mp4", frames=7, size=(48, 80), fps=12)
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 12
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert frames.shape == (7, 48, 80, 3)
    source = make_frames(7, (48, 80))
    assert np.abs(frames.astype(float) - source).mean() < 12
    moved = np.abs(np.roll(source[0], (1, 2), (0, 1)).astype(float) - source[1])[4:-4, 4:-4].mean()
    assert moved < 6 < np.abs(source[0].astype(float) - source[1])[4:-4, 4:-4].mean()
