"""Scripts in processes of their own that begin with torch imported: that import takes four seconds of processor time
(and training imports three seconds more), most of what a tool needs for a few tiny clips.

    pytest --first run--> server, which imports once --fork, for each run--> the script, as `python SCRIPT` runs it

The process is as real as any other: it has its own memory, signals and file descriptors, and can be killed.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
# Nothing of ours: the server is not to keep what a test has changed.
_CONTEXT.set_forkserver_preload(
    ["torch", "torch._dynamo", "hydra", "omegaconf", "pyarrow.parquet", "scipy.stats", "PIL.Image"]
)


class ScriptProcess:
    """`python SCRIPT ARGUMENTS...` at work. `environment` is laid over this process's; the output is kept in files."""

    def __init__(self, command: Sequence[str], cwd: Path, environment: Mapping[str, str] | None = None) -> None:
        self._command = list(command)
        self._folder = tempfile.TemporaryDirectory()
        self._files = [str(Path(self._folder.name) / name) for name in ("out", "err")]
        given = (self._command, str(cwd), {**os.environ, **(environment or {})}, self._files)
        self._process = _CONTEXT.Process(target=_run, args=given)
        self._process.start()

    def running(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        self._process.kill()

    def finish(self, timeout: float) -> subprocess.CompletedProcess[str]:
        """Wait for its end. Raises subprocess.TimeoutExpired, and kills it, where that takes longer than `timeout`."""
        self._process.join(timeout)
        late = self._process.is_alive()
        if late:
            self._process.kill()
            self._process.join()
        out, err = self._told()
        self._folder.cleanup()
        if late:
            raise subprocess.TimeoutExpired(self._command, timeout, out, err)
        status = self._process.exitcode
        assert status is not None
        return subprocess.CompletedProcess(self._command, status, out, err)

    def _told(self) -> list[str]:
        return [Path(name).read_text() if Path(name).exists() else "" for name in self._files]


def _run(command: Sequence[str], cwd: str, environment: Mapping[str, str], files: Sequence[str]) -> None:
    for name, stream in zip(files, (1, 2), strict=True):
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, stream)
        os.close(descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    script, *_ = sys.argv = list(command)
    sys.path.insert(0, str(Path(script).parent))
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()  # multiprocessing ends its processes without
