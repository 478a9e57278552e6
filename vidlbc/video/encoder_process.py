"""Video encoders in a process of their own, so that what they do to heap and priorities stays there.

libx265 of PyAV 18.1 corrupts the heap on some small pictures, now and then, and a run of hours should not die of it.
SVT-AV1, run by root, puts the thread that starts it and its own at the highest real-time priority, for good.

One process serves one encoding after another (its start costs 0.3 s, its stop nothing) until it dies or the parent
ends; where it dies, a new one tries again, as what it did to its heap is seldom met twice. A request is a line of JSON
and the frames' bytes, an answer a line of JSON and the stream's. This file is also the process's program; it imports
neither torch nor vidlbc.
"""

import atexit
import contextlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np

_TRIES = 3


class EncoderError(Exception):
    """The encoder refused, or its process died each time. The text says which."""


class _Died(Exception):
    pass


class EncoderProcess:
    """Starts its process when first asked, and again after it died or after a fork. Safe to call from threads."""

    def __init__(self, command: Sequence[str] = ()) -> None:
        """`command`: what to run in place of this file."""
        # -P: the script's folder, whose modules bear the names of libraries, stays off the path.
        self._command = command or (sys.executable, "-P", str(Path(__file__).resolve()))
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def encode(self, frames: np.ndarray, library: str, container: str, options: dict[str, str], fps: Fraction) -> bytes:
        """uint8 (T, H, W, 3), sides even -> a raw stream of `library` in FFmpeg's format `container`. EncoderError."""
        request = {
            "shape": frames.shape,
            "library": library,
            "container": container,
            "options": options,
            "fps": [fps.numerator, fps.denominator],
        }
        reason = ""
        with self._lock:
            for _ in range(_TRIES):
                try:
                    return self._ask(json.dumps(request).encode() + b"\n", np.ascontiguousarray(frames))
                except _Died as died:
                    reason = str(died)
        raise EncoderError(f"{reason}, {_TRIES} times in a row")

    def _ask(self, request: bytes, frames: np.ndarray) -> bytes:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        answer: dict[str, Any] = {}
        data = b""
        try:
            process.stdin.write(request)
            process.stdin.write(frames.data)
            process.stdin.flush()
            line = process.stdout.readline()
            answer = json.loads(line) if line else {}
            data = process.stdout.read(answer.get("bytes", 0))
        except BrokenPipeError:
            pass
        if not answer or len(data) != answer.get("bytes", 0):
            process.kill()
            self.close()
            raise _Died(f"its process ended with status {process.returncode}")
        if "error" in answer:
            raise EncoderError(answer["error"])
        return data

    def close(self) -> None:
        """End the process, if there is one of this parent."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                assert pipe is not None
                pipe.close()
        process.wait()

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None or self._owner != os.getpid():
            self.close()
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._owner = os.getpid()
            atexit.register(self.close)
        return self._process


def _serve(source: IO[bytes], sink: IO[bytes]) -> None:
    while line := source.readline():
        request: dict[str, Any] = json.loads(line)
        count = int(np.prod(request["shape"]))
        data = source.read(count)
        if len(data) < count:
            return
        try:
            stream = _encode(np.frombuffer(data, np.uint8).reshape(request["shape"]), request)
        except Exception as error:  # whatever it is, the parent is told
            sink.write(json.dumps({"error": str(error) or type(error).__name__}).encode() + b"\n")
        else:
            sink.write(json.dumps({"bytes": len(stream)}).encode() + b"\n" + stream)
        sink.flush()


def _encode(frames: np.ndarray, request: dict[str, Any]) -> bytes:
    import av

    rate, sink = Fraction(*request["fps"]), io.BytesIO()
    with av.open(sink, "w", format=request["container"]) as container:
        stream: Any = container.add_stream(request["library"], rate=rate, options=request["options"])
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, 1 / rate
            packets = stream.encode(frame)
            if not index:
                at_ordinary_priority()
            container.mux(packets)
        container.mux(stream.encode(None))
    return sink.getvalue()


def at_ordinary_priority() -> None:
    """Back from real time: all other processes would wait."""
    if not hasattr(os, "sched_setscheduler"):
        return
    for thread in map(int, os.listdir("/proc/self/task")):
        try:
            if os.sched_getscheduler(thread) == os.SCHED_FIFO:
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
        except OSError:  # it has ended
            continue


def _main() -> None:
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.environ.setdefault("SVT_LOG", "1")  # errors alone; it prints forty lines a clip otherwise
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    _main()
