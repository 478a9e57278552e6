"""The back ends by name. None is imported before a decoder process asks for it."""

from __future__ import annotations

import importlib
import importlib.util

from vidlbc.errors import InputError
from vidlbc.video.contract import Backend, Missing
from vidlbc.video.sequences import is_sequence

BACKENDS = {
    "pyav": "vidlbc.video.pyav_backend:PyavBackend",
    "decord": "vidlbc.video.decord_backend:DecordBackend",
    "opencv": "vidlbc.video.opencv_backend:OpencvBackend",
    "torchcodec": "vidlbc.video.torchcodec_backend:TorchcodecBackend",
    "pictures": "vidlbc.video.pictures_backend:PicturesBackend",
}


def candidates(backend: str, path: str = "") -> list[str]:
    """The back ends to try, in order: "auto" is PyAV, then decord where it is installed; OpenCV where PyAV is not.

    Folders of pictures and animated WebP go to `pictures`, whichever library was named. docs/video.md says why. Raises
    InputError for a name that is none, or where no back end is installed.
    """
    if backend in ("auto", *BACKENDS) and path and is_sequence(path):
        return ["pictures"]
    if backend == "auto":
        if _installed("av"):
            return ["pyav", "decord"] if _installed("decord") else ["pyav"]
        if _installed("cv2"):
            return ["opencv"]
        raise InputError("no library that reads videos is installed: pip install av (or opencv-python-headless)")
    if backend not in BACKENDS and ":" not in backend:
        known = ", ".join(["auto", *(name for name in BACKENDS if name != "pictures")])  # that one chooses its files
        raise InputError(f"backend={backend!r} is unknown; expected {known} or package.module:Class")
    return [backend]


def open_backend(backend: str, path: str) -> Backend:
    """Called in a decoder process. Raises Missing when the library does not load, Unreadable when the file does not."""
    module, _, attribute = BACKENDS.get(backend, backend).partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise Missing(f"back end {backend} cannot be loaded: {first_line(error)}") from error
    try:
        made: Backend = factory(path)
    except ImportError as error:  # some import theirs only now
        raise Missing(f"back end {backend} cannot be loaded: {first_line(error)}") from error
    return made


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none: verdicts are one line."""
    text = str(error).strip()
    return text.splitlines()[0].strip() if text else type(error).__name__
