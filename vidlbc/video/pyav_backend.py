"""PyAV (FFmpeg) back end, the default: it misses least and reads most. Runs in a decoder process only.

Strictness: `err_detect=explode` and `frame.is_corrupt` end the good part of a file. Without the former the decoder
conceals: over 96 bit-flipped copies of real clips it handed out a changed frame before its first complaint in 45,
with it in 8, and over 201 sound files neither complained once. One thread: frame and slice threads have deadlocked
in published FFmpeg builds, and several workers use several cores better.

The first video stream is read, cover pictures aside. Rotation metadata is applied; sample aspect ratio is not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import VideoReformatter

from vidlbc.video.avi_index import empty_chunks
from vidlbc.video.backends import first_line
from vidlbc.video.contract import Damage, Picture, Unreadable, VideoInfo, fitted_size
from vidlbc.video.cut_end import Steps
from vidlbc.video.pyav_open import open_file
from vidlbc.video.raw_yuv import RawFormat, parse_name

# Matroska states a duration; a cut file is told by frames that end this many seconds, or three frames, earlier.
_DURATION_SLACK = 0.2
_HIDES_NO_FRAMES = ("h264", "hevc")  # one packet, one frame; VP8, VP9 and MPEG-4 have packets that show nothing


class PyavBackend:
    name = "pyav"
    version = f"{av.__version__} (libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))})"

    def __init__(self, path: str) -> None:
        av.logging.set_level(av.logging.PANIC)
        self._path = path
        self._empty_chunks: int | None = None  # of an AVI whose index is whole
        self._raw: RawFormat | None = parse_name(path) if path.lower().endswith(".yuv") else None
        self._container = self._open()
        self._stream = self._first_video_stream()
        self._rotation = 0
        self._reformatter = VideoReformatter()
        if self._container.format.name == "avi":
            self._empty_chunks = empty_chunks(path, self._stream.index)

    def _open(self) -> Any:
        options = format_name = None
        if self._raw is not None:
            format_name = "rawvideo"
            options = {
                "video_size": f"{self._raw.width}x{self._raw.height}",
                "pixel_format": self._raw.pixel_format,
                "framerate": str(self._raw.fps),
            }
        try:
            return open_file(self._path, options, format=format_name)
        except (av.FFmpegError, ValueError, OSError) as error:
            raise Unreadable(f"is no video file, or its header is damaged or cut off ({_cause(error)})") from error

    def _first_video_stream(self) -> Any:
        name = self._container.format.name
        if name == "image2" or name.endswith("_pipe"):
            raise Unreadable("is a picture, not a video", settled=True)
        videos = list(self._container.streams.video)
        films = [s for s in videos if not s.disposition & s.disposition.attached_pic]
        if not films:
            what = "a cover picture only" if videos else ", ".join(sorted({s.type for s in self._container.streams}))
            raise Unreadable(f"holds no video stream ({what or 'no stream at all'})", settled=True)
        stream = films[0]
        if stream.codec_context is None:
            raise Unreadable("its video codec is unknown to FFmpeg")
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"err_detect": "explode"}
        return stream

    def pictures(self) -> Iterator[Picture]:
        packets = discarded = frames = end = 0
        seconds = None
        steps, held = Steps(), list[VideoFrame]()
        try:
            for packet in self._container.demux(self._stream):
                flush = packet.size == 0 and packet.dts is None
                packets += not flush
                discarded += packet.is_discard
                end = end if flush else (packet.pos or 0) + packet.size
                if packet.is_corrupt:
                    # what the decoder still holds is not flushed: a frame missing in between would shift the rest
                    raise Damage(f"packet {packets - 1} is damaged in the container")
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise Damage(f"frame {frames} is damaged")
                    if frames == 0:
                        self._rotation = _right_angle(frame.rotation)
                    seconds = frame.time
                    frames += 1
                    if flush:
                        held.append(frame)
                    else:
                        steps.add(self._shown_at(frame))
                        yield self._picture(frame)
        except (av.FFmpegError, ValueError, OSError) as error:
            raise Damage(f"frame {frames - len(held)} does not decode ({_cause(error)})") from error
        missing = self._missing(packets, discarded, frames, seconds, end)
        good = len(held)
        cut = missing is not None and self._empty_chunks is None
        if held and self._lacks_pictures_perhaps(held[-1]) and (cut or self._frames_promised() is None):
            good = steps.before_gap([self._shown_at(frame) for frame in held], cut=cut)
        yield from map(self._picture, held[:good])
        if missing:
            raise Damage(missing)
        if good < len(held):
            raise Damage("the file ends before pictures that belong in front of its last ones")

    def _picture(self, frame: VideoFrame) -> Picture:
        def rgb(max_side: int | None) -> np.ndarray:
            height, width = fitted_size(frame.height, frame.width, max_side)
            smaller = (height, width) != (frame.height, frame.width)
            try:
                converted = self._reformatter.reformat(
                    frame, width, height, "rgb24", interpolation="AREA" if smaller else None, threads=1
                )
                array = converted.to_ndarray()
            except (av.FFmpegError, ValueError) as error:
                raise Damage(f"pixel format {frame.format.name} cannot be converted: {_cause(error)}") from error
            return np.rot90(array, self._rotation // 90)

        return Picture(frame.height, frame.width, frame.time, rgb)

    def _missing(self, packets: int, discarded: int, frames: int, seconds: float | None, end: int) -> str | None:
        """Why the file is not whole, None where it is or nothing tells.

        Packets against the header, not frames: an edit list or a discard flag hides frames of a sound file.
        A cut that leaves whole packets goes unseen where no header tells the length, .ts, .264, .h265, gif, unless
        it leaves a gap among the last pictures (`cut_end`).
        """
        promised = self._frames_promised()
        if promised is not None and packets + (self._empty_chunks or 0) < promised:
            return f"the header promises {promised} frames, the file holds {packets}"
        if self._container.format.name in ("rawvideo", "yuv4mpegpipe") and end < os.path.getsize(self._path):
            return f"the last frame is cut off: {os.path.getsize(self._path) - end} bytes are left over"
        shown = packets - discarded
        if self._codec() in _HIDES_NO_FRAMES and frames < shown and 2 * frames != shown:  # 2x: one field a packet
            return f"{shown - frames} of {shown} coded pictures gave no frame"
        stated = self._seconds_promised()
        slack = max(_DURATION_SLACK, float(3 / self._fps()))
        if stated is not None and seconds is not None and seconds + slack < stated:
            return f"the header promises {stated:.2f} s, the last frame is at {seconds:.2f} s"
        return None

    def _lacks_pictures_perhaps(self, last: VideoFrame) -> bool:
        """Whether pictures shown before `last`, the last one shown, may come after it in the file.

        They do before a picture that others are predicted from, which in the older standards is no B picture.
        """
        between = self._codec() in ("h264", "mpeg4", "mpeg2video") and last.pict_type == PictureType.B
        return bool(self._stream.codec_context.has_b_frames) and not between

    def _shown_at(self, frame: VideoFrame) -> float | None:
        """Seconds, None where the container states none: AVI's count packets."""
        return None if self._container.format.name == "avi" else frame.time

    def _frames_promised(self) -> int | None:
        if self._raw is not None:
            return os.path.getsize(self._path) // self._raw.frame_bytes
        return int(self._stream.frames) or None

    def _seconds_promised(self) -> float | None:
        """Matroska's and FLV's: where frames are counted, the count is checked; other clocks are less reliable."""
        if self._container.format.name == "flv":
            alone = len(self._container.streams) == 1 and self._container.duration
            return self._container.duration / av.time_base if alone else None
        if "matroska" not in self._container.format.name:
            return None
        stated = _clock(self._stream.metadata.get("DURATION", ""))
        if stated is None and len(self._container.streams) == 1 and self._container.duration:
            stated = self._container.duration / av.time_base
        return stated

    def _codec(self) -> str:
        return str(self._stream.codec_context.codec.canonical_name)

    def _fps(self) -> Fraction:
        average, guessed = self._stream.average_rate, self._stream.guessed_rate
        if average and average <= 480:
            return Fraction(average)
        # a Matroska file without frame durations claims 1000/s: the millisecond clock, not the film
        return Fraction(guessed or average or 25)

    def info(self, height: int, width: int) -> VideoInfo:
        stream, frames, fps = self._stream, self._frames_promised(), self._fps()
        if stream.duration and stream.time_base:
            duration: float | None = float(stream.duration * stream.time_base)
        elif self._container.duration:
            duration = self._container.duration / av.time_base
        else:
            duration = float(frames / fps) if frames else None
        return VideoInfo(
            self._path,
            width,
            height,
            frames,
            fps,
            duration,
            self._codec(),
            str(stream.codec_context.pix_fmt),
            self._rotation,
            self.name,
            self.version,
        )


def _right_angle(degrees: int) -> int:
    """Counter-clockwise turn in 0, 90, 180, 270. A damaged display matrix gives INT_MIN or odd angles: no turn."""
    return degrees % 360 if abs(degrees) <= 360 and degrees % 90 == 0 else 0


def _clock(text: str) -> float | None:
    """Seconds of Matroska's "00:00:04.500000000"."""
    parts = text.split(":")
    try:
        return int(parts[0]) * 3600 + int(parts[1]) * 60 + float(parts[2]) if len(parts) == 3 else None
    except ValueError:
        return None


def _cause(error: BaseException) -> str:
    """FFmpeg's words without the number and the path, which the caller names."""
    return str(getattr(error, "strerror", None) or first_line(error))
