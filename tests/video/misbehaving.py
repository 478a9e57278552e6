"""Back ends that do in a decoder process what broken files make real decoders do. Selected as `misbehaving:Class`."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from fractions import Fraction
from functools import partial

import numpy as np

from vidlbc.video.contract import Picture, VideoInfo, fitted_size

SIZE = (24, 32)


def _picture(index: int) -> Picture:
    def rgb(index: int, max_side: int | None) -> np.ndarray:
        height, width = fitted_size(*SIZE, max_side)
        return np.full((height, width, 3), index % 256, np.uint8)

    return Picture(*SIZE, index / 10, partial(rgb, index))


class Sound:
    """100 frames, each filled with its index."""

    name = "misbehaving"
    version = "1"
    length = 100
    good = 40  # frames before the misbehaviour

    def __init__(self, path: str) -> None:
        self.path = path

    def misbehave(self) -> None:
        return

    def pictures(self) -> Iterator[Picture]:
        for index in range(self.length):
            if index == self.good:
                self.misbehave()
            yield _picture(index)

    def info(self, height: int, width: int) -> VideoInfo:
        return VideoInfo(self.path, width, height, self.length, Fraction(10), 10.0, "", "", 0, self.name, self.version)


class HoldsTheLock(Sound):
    def misbehave(self) -> None:
        ctypes.PyDLL(None).sleep(600)  # PyDLL does not release the interpreter lock: no signal handler, no thread runs


class HoldsTheLockOnOpen(Sound):
    def __init__(self, path: str) -> None:
        ctypes.PyDLL(None).sleep(600)


class Spins(Sound):
    def misbehave(self) -> None:
        while True:
            pass


class Segfaults(Sound):
    def misbehave(self) -> None:
        ctypes.string_at(0)


class SegfaultsOnOpen(Sound):
    def __init__(self, path: str) -> None:
        ctypes.string_at(0)


class IsKilled(Sound):
    def misbehave(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Exits(Sound):
    def misbehave(self) -> None:
        os._exit(3)


class RaisesOddly(Sound):
    def misbehave(self) -> None:
        raise ZeroDivisionError("in the\nlibrary")


class Slow(Sound):
    """Slower than the deadline as a whole, never for a single frame."""

    length = 30

    def pictures(self) -> Iterator[Picture]:
        for index in range(self.length):
            time.sleep(0.1)
            yield _picture(index)


class Endless(Sound):
    length = 10**9


class TellsWhatIsImported(Sound):
    """One frame if this process has imported neither torch nor the caller's main module, none otherwise."""

    def pictures(self) -> Iterator[Picture]:
        import sys

        if "torch" not in sys.modules and not hasattr(sys.modules["__main__"], "__file__"):
            yield _picture(0)


class TellsItsProcess(Sound):
    """The process number as the codec's name."""

    length = 3

    def info(self, height: int, width: int) -> VideoInfo:
        who = str(os.getpid())
        return VideoInfo(self.path, width, height, 3, Fraction(10), 0.3, who, "", 0, self.name, self.version)


class NeedsWhatIsNotThere(Sound):
    def __init__(self, path: str) -> None:
        from vidlbc.video.contract import Missing

        raise Missing("back end torchcodec cannot be loaded: libavutil.so.60: cannot open shared object file")
