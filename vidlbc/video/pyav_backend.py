"""PyAV (FFmpeg) back end, the default: it misses least and reads most. Runs in a decoder process only.

Strictness: `err_detect=explode` and `frame.is_corrupt` end the good part of a file. Without the former the decoder
conceals: over 96 bit-flipped copies of real clips it handed out a changed frame before its first complaint in 45,
with it in 8, and over 201 sound files neither complained once. One thread: frame and slice threads have deadlocked
in published FFmpeg builds, and several workers use several cores better.

FFmpeg's choice among the video streams is read (`film_of`). The display matrix is applied, turned and
mirrored; untagged colours of HD are BT.709. What is read but not as a viewer would see it is in `notes`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, islice
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter

from vidlbc.video.avi_index import empty_chunks
from vidlbc.video.backends import first_line
from vidlbc.video.contract import Damage, Picture, Unreadable, VideoInfo, fitted_size
from vidlbc.video.cut_end import Steps
from vidlbc.video.placement import Placement
from vidlbc.video.pyav_open import film_of, films, open_file
from vidlbc.video.raw_yuv import RawFormat, parse_name

# Matroska states a duration; a cut file is told by frames that end this many seconds, or three frames, earlier.
_DURATION_SLACK = 0.2
_HIDES_NO_FRAMES = ("h264", "hevc")  # one packet, one frame; VP8, VP9 and MPEG-4 have packets that show nothing
_HELD_PACKETS = 1000  # of a transport stream, until its first key frame: half a minute
_AFTER_JOIN = 8  # packets in which a joined recording's key frame follows the packet that its joining damaged
_JUMP = 0.5  # seconds from one packet to the next that only a joined recording makes
_HD = 720  # rows from which untagged colours are BT.709, as players have it
_SQUARE = 0.02  # pixels that are no wider or narrower than so are not worth a word
_UNSPECIFIED, _PQ, _HLG = 2, 16, 18  # colour matrix and transfer functions of ITU-T H.273


class PyavBackend:
    name = "pyav"
    version = f"{av.__version__} (libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))})"
    deinterlace = False  # set before `pictures` is called

    def __init__(self, path: str) -> None:
        av.logging.set_level(av.logging.PANIC)
        self._path = path
        self._empty_chunks: int | None = None  # of an AVI whose index is whole
        self._raw: RawFormat | None = parse_name(path) if path.lower().endswith(".yuv") else None
        self._container = self._open()
        self._stream = self._film()
        self._place = Placement()
        self._reformatter = VideoReformatter()
        self._noted: dict[str, int] = {}  # what is noted of frames, and of how many
        self._key_pts: int | None = None
        self._leading = self._skipped = self._joins = 0
        self._last_shown = self._shift = 0.0
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

    def _film(self) -> Any:
        name = self._container.format.name
        if name == "image2" or name.endswith("_pipe"):
            raise Unreadable("is a picture, not a video", settled=True)
        stream = film_of(self._container)
        if stream is None:
            videos = self._container.streams.video
            what = "a cover picture only" if videos else ", ".join(sorted({s.type for s in self._container.streams}))
            raise Unreadable(f"holds no video stream ({what or 'no stream at all'})", settled=True)
        if stream.codec_context is None:
            raise Unreadable("its video codec is unknown to FFmpeg")
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"err_detect": "explode"}
        return stream

    @property
    def notes(self) -> list[str]:
        """What a viewer would see otherwise, once the frames have been read."""
        others = [s for s in films(self._container) if s.index != self._stream.index]
        notes = [f"stream {s.index} is not read ({_described(s)})" for s in others]
        if self._skipped:
            notes.append(f"{self._skipped} leading pictures left out, which need some before the file's first")
        if self._joins:
            notes.append(f"{self._joins + 1} recordings in one, their timestamps joined")
        aspect = self._aspect()
        if abs(aspect - 1) > _SQUARE:
            notes.append(f"pixels are {aspect.numerator}:{aspect.denominator} wide")
        frames = self._noted.get("", 0)
        for what, count in self._noted.items():
            if what:
                notes.append(what if count == frames else f"{count} of {frames} frames {what}")
        if self._place.odd:
            notes.append(f"to be turned by {self._place.odd:.0f} degrees, which is not done")
        return notes

    def pictures(self) -> Iterator[Picture]:
        frames = self._frames()
        return map(self._picture, self._progressive(frames) if self.deinterlace else frames)

    def _frames(self) -> Iterator[VideoFrame]:
        """Every frame that decodes, then Damage where they are not all."""
        packets = discarded = frames = end = 0
        seconds = None
        steps, held = Steps(), list[VideoFrame]()
        for packet in self._packets():
            flush = packet.size == 0 and packet.dts is None
            packets += not flush
            discarded += packet.is_discard
            end = end if flush else (packet.pos or 0) + packet.size
            leading = not flush and self._leads(packet)
            try:
                decoded = packet.decode()
            except (av.FFmpegError, ValueError, OSError) as error:
                if not leading:
                    raise Damage(f"frame {frames - len(held)} does not decode ({_cause(error)})") from error
                self._skipped += 1
                continue
            for frame in decoded:
                if frame.is_corrupt:
                    raise Damage(f"frame {frames} is damaged")
                if frames == 0:
                    self._place = Placement.of(bytes(frame.side_data.get(SideDataType.DISPLAYMATRIX) or b""))
                seconds = frame.time
                frames += 1
                if flush:
                    held.append(frame)
                else:
                    steps.add(self._shown_at(frame))
                    yield frame
        missing = self._missing(packets, discarded, frames, seconds, end)
        good, cut = len(held), missing is not None and self._empty_chunks is None
        if held and self._lacks_pictures_perhaps(held[-1]) and (cut or self._frames_promised() is None):
            good = steps.before_gap([self._shown_at(frame) for frame in held], cut=cut)
        yield from held[:good]
        if missing:
            raise Damage(missing)
        if good < len(held):
            raise Damage("the file ends before pictures that belong in front of its last ones")

    def _packets(self) -> Iterator[Any]:
        """The film's packets, without those of a transport stream before its first key frame, and the last one.

        Raises Damage at one that is damaged in the container: what the decoder still holds is not flushed then, for a
        frame missing in between would shift the rest.
        """
        count, last, flagged = 0, None, False
        packets = self._demuxed()
        if self._container.format.name in ("mpegts", "mpeg"):
            packets = self._from_first_key(packets)
        while (packet := next(packets, None)) is not None:
            if packet.is_corrupt:
                coming = list(islice(packets, _AFTER_JOIN))
                if not self._joined(packet, coming):
                    raise Damage(f"packet {count} is damaged in the container")
                packets, flagged = chain(coming, packets), True
            # Unless something else tells, a clock that only goes on later is a pause.
            if last is not None and packet.is_keyframe and self._jumps(last, packet, back=not flagged):
                self._joins += 1
                self._key_pts, flagged = None, False
            if packet.dts is not None:
                last = packet
            count += not (packet.size == 0 and packet.dts is None)
            yield packet

    def _demuxed(self) -> Iterator[Any]:
        try:
            yield from self._container.demux(self._stream)
        except (av.FFmpegError, ValueError, OSError) as error:
            raise Damage(f"the container ends in damage ({_cause(error)})") from error

    def _from_first_key(self, packets: Iterator[Any]) -> Iterator[Any]:
        """A recording may begin anywhere: what comes before its first key frame shows nothing, or nonsense."""
        held = []
        for packet in packets:
            held.append(packet)
            if packet.is_keyframe:
                self._skipped += len(held) - 1
                yield packet
                break
            if len(held) == _HELD_PACKETS or (packet.size == 0 and packet.dts is None):
                yield from held
                break
        yield from packets

    def _joined(self, packet: Any, coming: list[Any]) -> bool:
        """Whether what follows is another recording: its joining, not a loss, damages the packet before it."""
        key = next((other for other in coming if other.is_keyframe), None)
        return self._container.format.name == "mpegts" and key is not None and self._jumps(packet, key)

    def _jumps(self, before: Any, after: Any, back: bool = False) -> bool:
        """Whether a transport stream's clock jumps from one packet to another; `back`: to what has been."""
        if self._container.format.name != "mpegts" or before.dts is None or after.dts is None:
            return False
        step = float((after.dts - before.dts) * after.time_base)
        return step < 0 or (not back and step > _JUMP + _AFTER_JOIN / float(self._fps()))

    def _leads(self, packet: Any) -> bool:
        """Whether a packet is shown before the file's first key frame, though it comes after it.

        An open group of pictures whose predecessor is not there begins with such; they need not decode.
        """
        if self._key_pts is None and packet.is_keyframe:
            self._key_pts = packet.pts
        leads = packet.pts is not None and self._key_pts is not None and packet.pts < self._key_pts
        self._leading += leads
        return leads

    def _progressive(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """Frames without fields (FFmpeg's bwdif, one frame for one); those that are progressive stay as they are."""
        graph: Any = None
        damage: Damage | None = None
        while damage is None:
            try:
                frame = next(frames, None)
            except Damage as error:
                frame, damage = None, error
            if graph is None and frame is not None:
                graph = _bwdif(frame, self._stream)
            if graph is not None:
                graph.push(frame)
                yield from _pulled(graph)
            if frame is None:
                break
        if damage is not None:
            raise damage

    def _picture(self, frame: VideoFrame) -> Picture:
        self._note(frame)

        def rgb(max_side: int | None) -> np.ndarray:
            height, width = fitted_size(frame.height, frame.width, max_side)
            smaller = (height, width) != (frame.height, frame.width)
            hd = (
                frame.colorspace == _UNSPECIFIED and frame.height >= _HD and frame.format.name[:3] not in ("rgb", "gbr")
            )
            try:
                converted = self._reformatter.reformat(
                    frame,
                    width,
                    height,
                    "rgb24",
                    src_colorspace=Colorspace.ITU709 if hd else None,
                    interpolation="AREA" if smaller else None,
                    threads=1,
                )
                array = converted.to_ndarray()
            except (av.FFmpegError, ValueError) as error:
                raise Damage(f"pixel format {frame.format.name} cannot be converted: {_cause(error)}") from error
            return self._place(array)

        return Picture(frame.height, frame.width, self._time(frame), rgb)

    def _time(self, frame: VideoFrame) -> float | None:
        """Seconds, that go on where a joined recording begins anew."""
        if frame.time is None:
            return None
        if self._joins and frame.time + self._shift <= self._last_shown:
            self._shift = self._last_shown - frame.time + float(1 / self._fps())
        self._last_shown = frame.time + self._shift
        return self._last_shown

    def _note(self, frame: VideoFrame) -> None:
        noted = [""]
        if frame.interlaced_frame and not self.deinterlace:
            noted.append("interlaced, which deinterlace=true undoes")
        if curve := {_PQ: "PQ", _HLG: "HLG"}.get(frame.color_trc):
            noted.append(f"HDR ({curve}), read as if SDR")
        for what in noted:
            self._noted[what] = self._noted.get(what, 0) + 1

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
        if self._codec() in _HIDES_NO_FRAMES and 2 * frames != shown:  # 2x: one field a packet
            if frames + self._leading < shown:
                return f"{shown - frames} of {shown} coded pictures gave no frame"
            self._skipped = max(self._skipped, min(packets - frames, self._leading))
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
            self._place.rotation,
            self.name,
            self.version,
            self._place.mirrored,
            self._aspect(),
        )

    def _aspect(self) -> Fraction:
        """Width of a pixel to its height, as shown; 1 where the file says nothing."""
        told = self._stream.sample_aspect_ratio
        aspect = Fraction(told) if told and 0 < told < 64 else Fraction(1)
        return 1 / aspect if self._place.rotation % 180 else aspect


def _described(stream: Any) -> str:
    context = stream.codec_context
    return "unknown codec" if context is None else f"{context.codec.canonical_name} {context.width}x{context.height}"


def _bwdif(frame: VideoFrame, stream: Any) -> Any:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or stream.time_base
    )
    chain_ends = source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")
    graph.link_nodes(*chain_ends).configure()
    return graph


def _pulled(graph: Any) -> Iterator[VideoFrame]:
    while True:
        try:
            yield graph.pull()
        except (BlockingIOError, EOFError):
            return


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
