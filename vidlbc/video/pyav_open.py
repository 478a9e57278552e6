"""Opening a file with PyAV, whichever version is installed."""

from typing import Any

import av

# Up to PyAV 18, titles that are not UTF-8 (old AVI corpora) are an error unless told otherwise; 19 has no such option.
_LENIENT: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
# A playlist named .mp4 must not reach the network.
LOCAL = {"protocol_whitelist": "file"}


def open_file(path: str, options: dict[str, str] | None = None, **more: Any) -> Any:
    """As `av.open(path)` for reading; `options`: of the demuxer, by default `LOCAL`."""
    return av.open(path, options=LOCAL if options is None else options, **_LENIENT, **more)


def films(container: Any) -> list[Any]:
    """The video streams that are no cover pictures."""
    return [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]


def film_of(container: Any) -> Any:
    """The video stream that is read: FFmpeg's choice (most frames, then the highest rate), None where there is none."""
    found = films(container)
    best = container.streams.best("video") if len(found) > 1 else None
    return next(
        (stream for stream in found if best is not None and stream.index == best.index), next(iter(found), None)
    )
