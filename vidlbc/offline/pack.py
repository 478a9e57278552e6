"""Pack a plan: tars of code, wheels, data and weights, each below a size, in the order in which the steps need them.

    OUT/0/NAME.0.tar  NAME.0.tar.sha256  start.py      travels with the first call: index, code, wheels, first data
    OUT/1/NAME.1.tar  ...                              with the second, and so on

A tar holds pack.json (in the first), code/, wheels/, data/ and code/vidlbc/weights/. Same input, same bytes.
"""

import hashlib
import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidlbc import offline
from vidlbc.errors import InputError
from vidlbc.offline.plan import OfflinePlan, Step
from vidlbc.offline.sources import Compose, list_text, needs_of
from vidlbc.run.atomic_files import dump_json

WEIGHTS = "vidlbc/weights"
START = "start.py"
_BLOCK, _END = 512, 10240


@dataclass(frozen=True)
class Member:
    """A file of a tar: its bytes, or where they are."""

    name: str
    content: Path | bytes
    executable: bool = False

    @property
    def size(self) -> int:
        """In the tar: header, an extended header for a long name, padding."""
        plain = len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size
        extended = 2 * _BLOCK if len(self.name) > 100 or not self.name.isascii() else 0
        return _BLOCK + extended + -(-plain // _BLOCK) * _BLOCK


@dataclass(frozen=True)
class Part:
    """`needed_from`: minute of the plan at which the first step starts that reads from it."""

    path: Path
    sha256: str
    bytes: int
    needed_from: float


@dataclass(frozen=True)
class Packed:
    """`changed`: tracked files that differ from `commit`; they travelled as they are."""

    parts: tuple[Part, ...]
    commit: str
    changed: int


def pack(
    plan: OfflinePlan, data: Path, wheels: Sequence[Path], out: Path, repo: Path, compose: Compose, limit: int
) -> Packed:
    """Write `out`; `limit`: bytes of a tar. Raises InputError where the sources are no such thing or do not fit.

    `repo`: a git checkout of this project, whose tracked files travel, weights aside.
    """
    commit, changed = _commit(repo)
    groups = _in_order_of_need(plan, data, repo, compose)
    fixed = [*_code(repo), *[Member(f"wheels/{path.name}", path) for path in sorted(wheels)]]
    bins = _fill(plan, fixed, groups, limit)
    places = {member.name: number for number, (members, _) in enumerate(bins) for member in members}
    needs = {name: sorted({places[member.name] for member in members}) for name, members in groups}
    index = {"plan": plan.as_json(), "commit": commit, "changed": changed, "parts": len(bins), "needs": needs}
    bins[0][0].append(Member("pack.json", dump_json(index, indent=1)))
    if out.exists() and any(out.iterdir()):
        _require_packs(out)
        shutil.rmtree(out)
    parts = [_write(out, plan.name, number, *each) for number, each in enumerate(bins)]
    return Packed(tuple(parts), commit, changed)


def _require_packs(out: Path) -> None:
    """Raises InputError where the folder holds anything that an earlier `pack` did not write."""
    for path in out.rglob("*"):
        own = path.is_dir() or path.name == START or path.name.endswith((".tar", ".tar.sha256"))
        if not own:
            raise InputError(f"out={out}: holds {path.relative_to(out)}, which is no pack; choose another folder")


def _commit(repo: Path) -> tuple[str, int]:
    head = _git(repo, "rev-parse", "--short=12", "HEAD").strip()
    return head, len(_git(repo, "status", "--porcelain", "--untracked-files=no").splitlines())


def _git(repo: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=repo, capture_output=True, text=True, check=False)
    except OSError as error:
        raise InputError(f"packing needs git: {error}") from None
    if done.returncode:
        raise InputError(f"{repo}: packing needs a git checkout ({' '.join(done.stderr.split())[:120]})")
    return done.stdout


def _code(repo: Path) -> list[Member]:
    """Every tracked file but the weights, as it is on the disk."""
    names = [name for name in _git(repo, "ls-files", "-z").split("\0") if name and not name.startswith(WEIGHTS + "/")]
    return [
        Member(f"code/{name}", repo / name, (repo / name).stat().st_mode & 0o100 != 0)
        for name in sorted(names)
        if (repo / name).is_file()
    ]


def _in_order_of_need(plan: OfflinePlan, data: Path, repo: Path, compose: Compose) -> list[tuple[str, list[Member]]]:
    """[(step, everything that it reads)]."""
    made = {name: list_text(sets, data) for name, sets in plan.lists.items()}
    groups = []
    for step in plan.steps:
        needs = needs_of(plan, step, data, compose)
        members = [Member(f"data/{name}", path) for name, path in needs.files.items()]
        members += [
            Member(f"data/{name}", text) for name, text in made.items() if any(f"/{name}" in arg for arg in step.args)
        ]
        groups.append((step.name, members + _weights(step, repo)))
    return groups


def _weights(step: Step, repo: Path) -> list[Member]:
    found: list[Path] = []
    for name in step.weights:
        folder = repo / WEIGHTS / name
        if not folder.is_dir():
            raise InputError(f"step {step.name}: no weights {name} in {WEIGHTS}")
        model = repo / WEIGHTS / Path(name).parts[0]
        found += [model / "config.json", *sorted(path for path in folder.rglob("*") if path.is_file())]
    return [Member(f"code/{path.relative_to(repo).as_posix()}", path) for path in dict.fromkeys(found)]


def _fill(
    plan: OfflinePlan, fixed: list[Member], groups: list[tuple[str, list[Member]]], limit: int
) -> list[tuple[list[Member], float]]:
    """Parts in the order of need: [(members, minute at which they are first wanted)]. Raises InputError."""
    starts = dict(zip([s.name for s in plan.steps], [0.0, *[s.until for s in plan.steps]], strict=False))
    index_room = 1 << 16
    bins: list[tuple[list[Member], float]] = [(list(fixed), 0.0)]
    room = limit - _END - index_room - sum(member.size for member in fixed)
    if room < 0:
        raise InputError(f"code and wheels are {(limit - room) / 2**20:.1f} MiB, more than part_mb={limit >> 20}")
    placed: set[str] = set()
    for name, members in groups:
        for member in members:
            if member.name in placed:
                continue
            placed.add(member.name)
            if member.size + _END > limit:
                raise InputError(f"{member.name} is {member.size / 2**20:.1f} MiB, more than part_mb={limit >> 20}")
            if member.size > room:
                bins.append(([], starts[name]))
                room = limit - _END
            bins[-1][0].append(member)
            room -= member.size
    most = len(plan.calls)
    if len(bins) > most:
        beyond = sum(member.size for members, _ in bins[most:] for member in members)
        first = bins[most][0][0].name
        raise InputError(
            f"the sources do not fit: {beyond / 2**20:.1f} MiB, from {first} on, are beyond {most} part(s) of "
            f"{limit >> 20} MiB, one a call; leave out sources, or raise part_mb or the plan's calls"
        )
    return bins


def _write(out: Path, name: str, number: int, members: Iterable[Member], needed_from: float) -> Part:
    folder = out / str(number)
    folder.mkdir(parents=True)
    path = folder / f"{name}.{number}.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        # The index comes last in the list and first in the tar: whoever reads a tar begins with it.
        for member in sorted(members, key=lambda m: (m.name != "pack.json", m.name)):
            content = member.content if isinstance(member.content, bytes) else member.content.read_bytes()
            info = tarfile.TarInfo(member.name)
            info.size, info.mode = len(content), 0o755 if member.executable else 0o644
            tar.addfile(info, io.BytesIO(content))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{digest}  {path.name}\n")
    shutil.copyfile(Path(offline.__file__).parent / START, folder / START)
    return Part(path, digest, path.stat().st_size, needed_from)
