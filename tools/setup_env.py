"""Create the virtual environment that `make` uses, and install vidlbc with its `dev` extra into it.

Runs on the bare system Python (standard library only). Prints one moving line instead of pip's hundreds; the whole
log goes to `<venv>/install.log`, and its end is shown when something fails.

    python3.11 tools/setup_env.py .venv
    python3.12 tools/setup_env.py .venv-bare bare     # what a GPU node has, and a folder of what is carried there
    python3.13 tools/setup_env.py .venv-py313 plain   # the wheel as `pip install vidlbc` gives it, and what tests need
"""

import subprocess
import sys
import time
import venv
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 13)
# What a node with a GPU and no network is likely to have, without the rest of our dependencies (no PyAV, CompressAI,
# wandb, ...); PyYAML comes with timm there. The two of pytest are for `make test-bare`.
NODE = (
    "torch==2.11.*",
    "torchvision==0.26.*",
    "numpy>=2",
    "opencv-python-headless",
    "pyarrow",
    "safetensors",
    "scipy",
    "einops",
    "matplotlib",
    "pillow",
    "tqdm",
    "pyyaml",
    "pytest",
    "pytest-timeout",
)
# What has to be carried to it, 0.8 MB of wheels: enough to train, encode and decode.
CARRIED = (
    "antlr4-python3-runtime==4.9.3",
    "hydra-core==1.3.*",
    "omegaconf==2.3.*",
    "constriction>=0.4.1",
    "pytorch-msssim>=1.0",
)


def main(folder: Path, mode: str = "dev") -> int:
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        found = f"{sys.version_info[0]}.{sys.version_info[1]} at {sys.executable}"
        return fail(f"vidlbc needs Python 3.11 to 3.13, found {found}; try: make PYTHON=/path/to/python3.11")
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        say(f"creating {folder} with Python {sys.version.split()[0]}\n")
        try:
            venv.create(folder, with_pip=True)
        except (OSError, subprocess.CalledProcessError) as error:
            return fail(f"cannot create {folder}: {error} (on Debian and Ubuntu: install python3.11-venv)")
    if mode == "dev":
        # CompressAI's metadata forbid Python 3.13, where the rest is complete without it.
        extras = "dev" if sys.version_info < (3, 13) else "test,check"
        return install(python, folder / "install.log", "install", "-e", f".[{extras}]")
    if mode == "plain":
        return install(python, folder / "install.log", "install", ".[test]")
    wheels = folder / "wheels"
    return (
        install(python, folder / "install.log", "install", *NODE)
        or install(python, folder / "wheels.log", "wheel", "--no-deps", "--wheel-dir", str(wheels), *CARRIED)
        or carry(python, folder / "carried.log", sorted(wheels.glob("*.whl")), folder / "carried")
    )


def carry(python: Path, log: Path, wheels: list[Path], target: Path) -> int:
    """As on the node: no index, and into a folder that PYTHONPATH names."""
    where = "--no-index", "--no-deps", "--upgrade", "--target", str(target)
    return install(python, log, "install", *where, *map(str, wheels))


def install(python: Path, log: Path, *arguments: str) -> int:
    """A pip command, its output in `log`, its progress on one line. Returns 0, or 2 after showing what went wrong."""
    command = [str(python), "-m", "pip", *arguments, "--disable-pip-version-check", "--progress-bar=off"]
    start, last_shown, packages = time.monotonic(), -60.0, 0
    interactive = sys.stdout.isatty()
    with log.open("w") as record:
        pip = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert pip.stdout is not None
        for line in pip.stdout:
            record.write(line)
            seconds = time.monotonic() - start
            if line.startswith("Collecting "):
                packages += 1
                status = f"getting {line.split()[1][:40]}"
            elif line.startswith("Installing collected packages"):
                status, last_shown = f"installing {packages} packages (a minute or two)", -60.0
            else:
                continue
            # A terminal gets a moving line; a log file gets a line every 30 seconds.
            if interactive or seconds - last_shown > 30:
                say(f"{seconds:5.0f} s  {status}", interactive)
                last_shown = seconds
        code = pip.wait()
    if interactive:
        say("", True)
    if code:
        tail = log.read_text().splitlines()[-15:]
        print("\n".join(tail), file=sys.stderr)
        return fail(f"installation failed; the whole log is in {log}")
    say(f"environment ready in {log.parent} after {time.monotonic() - start:.0f} s\n")
    return 0


def say(text: str, moving: bool = False) -> None:
    sys.stdout.write(f"\r\033[K{text}" if moving else text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".venv"), *sys.argv[2:3]))
