"""The wheels that travel: the few packages that a bare node with torch lacks.

A folder of wheels is used as it is; an empty or missing one is filled by pip, where there is a network.
"""

import subprocess
import sys
from pathlib import Path

from vidlbc.errors import InputError


def find_wheels(folder: Path, packages: list[str], python: str, platforms: list[str]) -> list[Path]:
    """Every wheel in `folder`; an empty or missing folder is filled first, for `python` ("3.12") and the first of
    `platforms` that has a wheel. A package without wheels is built here, which must give a pure one.

    Raises InputError where pip cannot.
    """
    found = sorted(folder.glob("*.whl")) if folder.is_dir() else []
    if found or not packages:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages:
        if not _download(package, folder, python, platforms):
            _build(package, folder)
    return sorted(folder.glob("*.whl"))


def _download(package: str, folder: Path, python: str, platforms: list[str]) -> bool:
    command = ["download", "--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    for platform in platforms:
        command += ["--platform", platform]
    return _pip([*command, "--dest", str(folder), package]) is None


def _build(package: str, folder: Path) -> None:
    before = set(folder.glob("*.whl"))
    wrong = _pip(["wheel", "--wheel-dir", str(folder), package])
    made = [path for path in folder.glob("*.whl") if path not in before]
    if wrong is None and not all(path.name.endswith("-none-any.whl") for path in made):
        for path in made:
            path.unlink()
        wrong = "it has no wheel for that Python, and what is built here fits this machine alone"
    if wrong is not None:
        raise InputError(f"wheels={folder}: no wheel of {package}: {wrong}")


def _pip(words: list[str]) -> str | None:
    """None, or why it failed."""
    verb, *rest = words
    command = [sys.executable, "-m", "pip", verb, "--no-deps", "--quiet", "--disable-pip-version-check", *rest]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.returncode:
        return None
    lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
    return lines[-1].removeprefix("ERROR: ")
