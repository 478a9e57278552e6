"""torchcodec back end, an optional extra (`pip install vidlbc[torchcodec]`). Runs in a decoder process only.

It needs FFmpeg's shared libraries and a torch of its own age; a build that does not fit fails with ImportError, OSError
or RuntimeError, all of which mean "not there". Exact seek mode scans the file, so that index i is the i-th frame. It
imports torch into the decoder process (5-6 s at start-up on two busy cores) and counts frames that it then cannot
reach, with edit lists and some AVIs: such files come out damaged here.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from typing import Any

from vidlbc.video.backends import first_line
from vidlbc.video.contract import Damage, Missing, Picture, Unreadable, VideoInfo
from vidlbc.video.decord_backend import shrunk


class TorchcodecBackend:
    name = "torchcodec"

    def __init__(self, path: str) -> None:
        try:
            import torchcodec
            from torchcodec.decoders import VideoDecoder
        except (ImportError, OSError, RuntimeError) as error:
            raise Missing(f"back end torchcodec cannot be loaded: {first_line(error)}") from error
        self.version = str(torchcodec.__version__)
        self._path = path
        try:
            # stream_index counts all streams of the file, so the film has to be found by asking
            film = _film(path)
            self._decoder: Any = VideoDecoder(path, stream_index=film, dimension_order="NHWC", seek_mode="exact")
        except (RuntimeError, ValueError, OSError) as error:
            raise Unreadable(f"torchcodec cannot open it: {first_line(error)}") from error

    def pictures(self) -> Iterator[Picture]:
        meta = self._decoder.metadata
        for index in range(len(self._decoder)):
            try:
                frame = self._decoder.get_frame_at(index)
            except (RuntimeError, IndexError, ValueError) as error:
                raise Damage(f"frame {index}: {first_line(error)}") from error
            array = frame.data.numpy()
            seconds = float(frame.pts_seconds)
            yield Picture(array.shape[0], array.shape[1], seconds, partial(shrunk, array))
        promised, held = meta.num_frames_from_header, meta.num_frames_from_content
        if promised and held and held < promised:
            raise Damage(f"the header promises {promised} frames, the file holds {held}")

    def info(self, height: int, width: int) -> VideoInfo:
        meta = self._decoder.metadata
        fps = Fraction(meta.average_fps or 25).limit_denominator(1001)
        rotation = int(getattr(meta, "rotation", 0) or 0) % 360
        return VideoInfo(
            self._path,
            width,
            height,
            meta.num_frames_from_header,
            fps,
            _seconds(meta),
            meta.codec or "",
            str(getattr(meta, "pixel_format", "") or ""),
            rotation,
            self.name,
            self.version,
        )


def _seconds(meta: Any) -> float | None:
    return None if meta.duration_seconds is None else float(meta.duration_seconds)


def _film(path: str) -> int:
    import av

    from vidlbc.video.pyav_open import film_of, open_file

    try:
        with open_file(path) as container:
            film = film_of(container)
            if film is None:
                raise Unreadable("holds no video stream", settled=True)
            return int(film.index)
    except (av.FFmpegError, ValueError, OSError) as error:
        raise Unreadable(f"is no video file, or its header is damaged or cut off ({first_line(error)})") from error
