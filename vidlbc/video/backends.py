"""The back ends by name. None is imported before a decoder process asks for it."""

from __future__ import annotations

import importlib
import importlib.util

from vidlbc.errors import InputError
from vidlbc.video.contract import Backend, Missing

BACKENDS = {
    "pyav": "vidlbc.video.pyav_backend:PyavBackend",
    "decord": "vidlbc.video.decord_backend:DecordBackend",
    "torchcodec": "vidlbc.video.torchcodec_backend:TorchcodecBackend",
}


def candidates(backend: str) -> list[str]:
    """The back ends to try, in order: "auto" is PyAV, then decord where it is installed (docs/video.md says why)."""
    if backend == "auto":
        return ["pyav", "decord"] if importlib.util.find_spec("decord") else ["pyav"]
    if backend not in BACKENDS and ":" not in backend:
        known = ", ".join(["auto", *BACKENDS])
        raise InputError(f"backend={backend!r} is unknown; expected {known} or package.module:Class")
    return [backend]


def open_backend(backend: str, path: str) -> Backend:
    """Called in a decoder process. Raises Missing when the library does not load, Unreadable when the file does not."""
    module, _, attribute = BACKENDS.get(backend, backend).partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise Missing(f"back end {backend} cannot be loaded: {first_line(error)}") from error
    made: Backend = factory(path)
    return made


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none: verdicts are one line."""
    text = str(error).strip()
    return text.splitlines()[0].strip() if text else type(error).__name__
