"""Writing videos and pictures for people to look at. Files appear under their name only when they are complete."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path

import numpy as np

from vidlbc.errors import InputError
from vidlbc.video.x264 import repeatable_x264

_MICROSECOND = Fraction(1, 1_000_000)
GAP = 4  # white columns between the two videos of a side-by-side


def write_mp4(
    path: str | os.PathLike[str],
    frames: Iterable[np.ndarray],
    fps: Fraction | float | str,
    crf: int = 18,
    times: Sequence[int] | None = None,
    aspect: Fraction = Fraction(1),
) -> int:
    """H.264 (libx264, yuv420p, BT.601) that every player opens. frames: uint8 (H, W, 3), all alike; returns how many.

    times: when each is shown, rising microseconds; None: at a constant rate. aspect: width of a pixel to its height.

    yuv420p needs even sides: an odd width or height gets one more column or row, a copy of the last. Streams: one
    frame in memory. Raises InputError on no frames, other shapes or types, a bad fps or crf; the file system's own
    OSError (a full disk) passes through, and no partial file remains.
    """
    if not writes_mp4():
        raise InputError(f"{path}: writing mp4 needs PyAV (pip install av); png does not")
    import av

    rate = _rate(fps)
    if not 0 <= crf <= 51:
        raise InputError(f"crf={crf}: expected 0 (lossless) to 51")
    count = 0
    with _appears_whole(Path(path)) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = None
        for frame in _checked(frames, path):
            height, width, _ = frame.shape
            if stream is None:
                options = {"crf": str(crf), "preset": "medium", **repeatable_x264()}
                stream = container.add_stream("libx264", rate=rate, options=options)
                stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
                stream.codec_context.colorspace = 5  # BT.470BG, the matrix swscale converts with
                stream.codec_context.color_range = 1
                if aspect != 1:
                    stream.codec_context.sample_aspect_ratio = aspect
                if times is not None:
                    stream.codec_context.time_base = _MICROSECOND
            padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), "rgb24")
            if times is not None:
                picture.pts, picture.time_base = times[count] - times[0], _MICROSECOND
            container.mux(stream.encode(picture))
            count += 1
        if stream is None:
            raise InputError(f"{path}: no frames to write")
        container.mux(stream.encode())
    return count


def writes_mp4() -> bool:
    """Whether PyAV is installed, the only encoder that is used."""
    return find_spec("av") is not None


def write_pngs(folder: str | os.PathLike[str], frames: Iterable[np.ndarray]) -> int:
    """FOLDER/000000.png and on, lossless. frames as in write_mp4, also of differing sizes; returns how many."""
    from PIL import Image

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    count = 0
    for frame in _checked(frames, folder, same_size=False):
        with _appears_whole(target / f"{count:06d}.png") as temporary:
            Image.fromarray(frame).save(temporary, format="png")
        count += 1
    if not count:
        raise InputError(f"{folder}: no frames to write")
    return count


def write_side_by_side(
    path: str | os.PathLike[str],
    left: Iterable[np.ndarray],
    right: Iterable[np.ndarray],
    fps: Fraction | float | str,
    crf: int = 18,
) -> int:
    """An mp4 of two videos of one size, GAP white columns between. Raises InputError when sizes or lengths differ."""

    def joined() -> Iterator[np.ndarray]:
        for index, (a, b) in enumerate(zip_longest(left, right)):
            if a is None or b is None:
                short = "left" if a is None else "right"
                raise InputError(f"{path}: the {short} video ends after {index} frames, the other goes on")
            if np.shape(a) != np.shape(b):
                raise InputError(f"{path}: frame {index} is {np.shape(a)} on the left and {np.shape(b)} on the right")
            yield np.concatenate([a, np.full((a.shape[0], GAP, 3), 255, np.uint8), b], axis=1)

    return write_mp4(path, joined(), fps, crf)


def _checked(
    frames: Iterable[np.ndarray], where: str | os.PathLike[str], same_size: bool = True
) -> Iterator[np.ndarray]:
    first: tuple[int, ...] | None = None
    for index, frame in enumerate(frames):
        array = np.asarray(frame)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
            raise InputError(
                f"{where}: frame {index} is {array.dtype} {array.shape}; expected uint8 (height, width, 3)"
            )
        first = first or array.shape
        if same_size and array.shape != first:
            raise InputError(f"{where}: frame {index} is {array.shape}, the first was {first}")
        yield array


def _rate(fps: Fraction | float | str) -> Fraction:
    try:
        rate = Fraction(fps).limit_denominator(1001)
    except (ValueError, TypeError, OverflowError, ZeroDivisionError) as error:
        raise InputError(f"fps={fps!r}: expected a positive number") from error
    if rate <= 0:
        raise InputError(f"fps={fps!r}: expected a positive number")
    return rate


@contextmanager
def _appears_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes it on success and vanishes on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    temporary = Path(name)
    try:
        os.fchmod(descriptor, 0o644)
        yield temporary
        os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
