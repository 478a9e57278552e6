"""First command on a node; needs nothing but Python. It travels beside the tars of a pack.

    python3 PACK/start.py root=FOLDER results=FOLDER [options of `vidlbc offline run`]

    tars beside this file --sha256, unpack once--> root/   --pip, once--> root/site   --> python -m vidlbc offline run

Exit status 2, with one line, for what the caller can mend.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path


def fail(line):
    print(f"error: {line}", file=sys.stderr)
    sys.exit(2)


def value(arguments, key):
    for argument in arguments:
        if argument.startswith(f"{key}="):
            return Path(argument.partition("=")[2]).expanduser().resolve()
    fail(f"missing value: give {key}=FOLDER")


def unpack(tar, root):
    """Once for each content of a tar: its marker is written when all of it is there."""
    told = tar.with_name(tar.name + ".sha256")
    if not told.is_file():
        fail(f"{told}: does not exist; every tar of a pack has one")
    wanted, found = told.read_text().split()[:1], hashlib.sha256()
    with open(tar, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    if wanted != [found.hexdigest()]:
        fail(f"{tar}: damaged, its SHA-256 is not that of {told.name}: copy it again")
    marker = root / "parts" / tar.name.rpartition(".tar")[0].rpartition(".")[2]
    if marker.is_file():
        if marker.read_text() != found.hexdigest():
            fail(f"root={root}: holds another pack; choose another root=")
        return
    with tarfile.open(tar) as archive:
        archive.extractall(root, filter="data")
    marker.parent.mkdir(exist_ok=True)
    temporary = marker.with_suffix(".tmp")
    temporary.write_text(found.hexdigest())
    os.replace(temporary, marker)
    print(f"unpacked {tar.name}, {tar.stat().st_size / 2**20:.1f} MiB", flush=True)


def install(root):
    """The wheels, into root/site. They are told to be there only when they are."""
    site, wheels = root / "site", sorted((root / "wheels").glob("*.whl"))
    if site.is_dir() or not wheels:
        return
    temporary = root / "site.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--target", str(temporary), *map(str, wheels)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        python = ".".join(map(str, sys.version_info[:2]))
        fail(f"pip cannot install the wheels under Python {python}: {lines[-1].removeprefix('ERROR: ')}")
    os.replace(temporary, site)


def main(arguments):
    called = time.time()
    root, results, here = value(arguments, "root"), value(arguments, "results"), Path(__file__).resolve().parent
    root.mkdir(parents=True, exist_ok=True)
    for tar in sorted(here.glob("*.tar")):
        unpack(tar, root)
    if not (root / "pack.json").is_file():
        fail(f"root={root}: holds no pack, and none whose first part lies beside {Path(__file__).name}")
    if here != root:
        shutil.copyfile(__file__, root / "start.py")
    install(root)
    paths = [str(root / "site"), str(root / "code"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    absolute = [f"root={root}", f"results={results}"]
    others = [argument for argument in arguments if argument.partition("=")[0] not in ("root", "results")]
    command = [sys.executable, "-m", "vidlbc", "offline", "run", *absolute, *others, f"called=@{called:.0f}"]
    os.chdir(root / "code")  # `-m` looks in the current folder first, which may hold another vidlbc
    sys.stdout.flush()
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main(sys.argv[1:])
