"""Packs: sizes, order of need, the same bytes twice, what does not fit; and start.py, which unpacks them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vidlbc.commands import compose
from vidlbc.errors import InputError
from vidlbc.offline.commands import commands
from vidlbc.offline.pack import pack
from vidlbc.offline.packing import Packs, PackSettings, describe, make_packs
from vidlbc.offline.plan import OfflinePlan, plan_of, read_plan, with_calls

REPO = Path(__file__).resolve().parents[2]
PLANS = REPO / "configs" / "offline"
FILE = 1 << 17


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the shipped plans name, every file with the name of a picture or a video, and other bytes than another."""
    folder = tmp_path_factory.mktemp("data")
    names = [f"images/imagenet/{n}.png" for n in range(3)]
    names += [f"images/bsds/{n}_{split}.png" for n in range(4) for split in ("train", "val")]
    names += [f"{place}/{n}.mp4" for place in ("clips", "train_video", "fights", "actions") for n in range(4)]
    names.append("clips/mmaction2_demo.mp4")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(hashlib.sha256(name.encode()).digest() * (FILE // 32))
    for place in ("fights", "actions"):
        rows = [f"{n}.mp4,{n % 2},,{'train' if n < 3 else 'test'}" for n in range(4)]
        (folder / place / "labels.csv").write_text("\n".join(["path,label,group,split", *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def code_size(tmp_path_factory: pytest.TempPathFactory, data: Path) -> int:
    """Of a part without any of the 15 files, with the room that is kept for the index."""
    packed = packed_as(two_steps(), data, tmp_path_factory.mktemp("size") / "packs", 1 << 30)
    return packed.packed.parts[0].bytes - 15 * FILE + (1 << 16)


def two_steps(**second: object) -> OfflinePlan:
    steps = [
        {
            "name": "image",
            "run": "tools/pretrain_image.py",
            "until": 5,
            "args": ["data.train=[{data}/images/imagenet,{data}/images/bsds/*train*]", "out={out}"],
        },
        {
            "name": "video",
            "run": "tools/pretrain_video.py",
            "until": 15,
            "args": ["data.root={data}/list.csv", "image_stage={image}", "out={out}"],
            **second,
        },
    ]
    lists = {"list.csv": {"train": ["clips", {"path": "fights/labels.csv"}], "test": ["clips/0.mp4"]}}
    return with_calls(plan_of({"name": "two", "minutes": 20, "steps": steps, "lists": lists}, "two"), 10)


def packed_as(plan: OfflinePlan, data: Path, out: Path, part: int) -> Packs:
    settings = PackSettings(
        data=data,
        out=out,
        repo=REPO,
        compose=compose,
        wheels=None,
        packages=(),
        python="3.12",
        platforms=(),
        part=part,
        command_chars=2000,
        root="/tmp/node",
        results="$OUT",
        options={"device": "cpu"},
    )
    return make_packs(plan, settings)


def names_in(tar: Path) -> list[str]:
    with tarfile.open(tar) as archive:
        return archive.getnames()


def test_parts_hold_what_is_needed_in_order_and_no_more(data, tmp_path, code_size):
    limit = code_size + 8 * FILE
    packs = packed_as(two_steps(), data, tmp_path / "packs", limit)
    first, second = packs.packed.parts
    assert max(first.bytes, second.bytes) <= limit
    names = names_in(first.path)
    assert names[0] == "pack.json" and "code/vidlbc/codec/codec.py" in names
    assert not any(name.startswith("code/vidlbc/weights/") for name in names)
    assert {name for name in names if name.startswith("data/images/")} == {
        *[f"data/images/imagenet/{n}.png" for n in range(3)],
        *[f"data/images/bsds/{n}_train.png" for n in range(4)],
    }
    assert "data/list.csv" in names_in(second.path) and "data/clips/3.mp4" in names_in(second.path)
    with tarfile.open(second.path) as archive:
        rows = archive.extractfile("data/list.csv").read().decode().splitlines()
    assert rows[:3] == ["path,label,group,split", "clips/0.mp4,,,test", "clips/1.mp4,,,train"]
    assert "fights/2.mp4,,,train" in rows and "fights/3.mp4,,,train" not in rows
    assert packs.packed.parts[1].needed_from == 5


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes(data, tmp_path, code_size):
    first = packed_as(two_steps(), data, tmp_path / "a", code_size + 8 * FILE)
    again = packed_as(two_steps(), data, tmp_path / "b", code_size + 8 * FILE)
    assert [part.sha256 for part in first.packed.parts] == [part.sha256 for part in again.packed.parts]
    for part in first.packed.parts:
        told = part.path.with_name(part.path.name + ".sha256").read_text()
        assert told == f"{hashlib.sha256(part.path.read_bytes()).hexdigest()}  {part.path.name}\n"
    assert packed_as(two_steps(), data, tmp_path / "a", code_size + 8 * FILE)  # its own packs may be replaced
    (tmp_path / "a" / "mine.txt").write_text("")
    with pytest.raises(InputError, match="holds mine.txt, which is no pack"):
        packed_as(two_steps(), data, tmp_path / "a", code_size + 8 * FILE)


def test_what_does_not_fit_is_told_in_one_line(data, tmp_path, code_size):
    one_call = replace(two_steps(), calls=(20.0,))
    with pytest.raises(InputError, match=r"sources do not fit: 1\.\d MiB, from data/images/\S+ on, are beyond 1 part"):
        packed_as(one_call, data, tmp_path / "packs", code_size + FILE)
    with pytest.raises(InputError, match=r"code and wheels are [\d.]+ MiB, more than part_mb=1"):
        packed_as(two_steps(), data, tmp_path / "packs", 1 << 20)
    assert not (tmp_path / "packs").exists()


def test_a_part_that_comes_after_its_step_began_is_told(data, tmp_path, code_size):
    packs = packed_as(two_steps(), data, tmp_path / "packs", code_size + 8 * FILE)
    assert "two.1.tar comes with call 2, minute 10, but is wanted from minute 5 on: the step waits" in describe(packs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("second", "told"),
    [
        ({"args": ["data.rot={data}/list.csv", "out={out}"]}, "unknown option 'data.rot'"),
        ({"args": ["data.root={data}/lists.csv", "out={out}"]}, "lists.csv: no such file or folder"),
        ({"run": "tools/pretrain_vidoe.py"}, "unknown step, there is no tools/pretrain_vidoe.py"),
        ({"otherwise": [["qp=high"]]}, "qp=high: expected an integer"),
        ({"weights": ["default/images"]}, "no weights default/images"),
        ({"args": ["data.root={data}/list.csv"]}, "missing value: give out="),
    ],
)
def test_what_would_fail_on_the_node_is_told_at_home(data, tmp_path, second, told):
    with pytest.raises(InputError) as caught:
        packed_as(two_steps(**second), data, tmp_path / "packs", 1 << 30)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_weights_travel_with_the_step_that_needs_them(data, tmp_path):
    packs = packed_as(two_steps(weights=["default/image_stage"]), data, tmp_path / "packs", 1 << 30)
    weights = [name for name in names_in(packs.packed.parts[0].path) if name.startswith("code/vidlbc/weights/")]
    wanted = ("config.json", "image_stage/config.json", "image_stage/model.safetensors")
    assert weights == [f"code/vidlbc/weights/default/{name}" for name in wanted]


@pytest.mark.slow
@pytest.mark.parametrize("plan", sorted(path.stem for path in PLANS.glob("*.yaml")))
def test_a_shipped_plan_is_understood_by_its_tools_and_its_commands_are_short(plan, data, tmp_path):
    packs = packed_as(with_calls(read_plan(plan, PLANS), 10), data, tmp_path / "packs", 60 << 20)
    assert len(packs.commands) == len(packs.plan.calls) and max(packs.plan.calls) <= 10
    first = packs.commands[0]
    assert first.text.startswith(f'python3 {first.carry}/start.py root="/tmp/node" results="$OUT" call_minutes=')
    with pytest.raises(InputError, match="more than command_chars=100"):
        commands(packs.plan, packs.packed.parts, "/tmp/node", "$OUT" * 30, {}, 100)


def test_a_folder_that_is_no_checkout_is_told(data, tmp_path):
    with pytest.raises(InputError, match="packing needs a git checkout"):
        pack(two_steps(), data, [], tmp_path / "packs", tmp_path, compose, 1 << 30)


# ---- start.py, as on the node


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs it beside a small tar of its own; a stand-in for `python -m vidlbc offline run` prints what it is told."""
    folder = tmp_path / "carried"
    folder.mkdir()
    code = tmp_path / "vidlbc" / "__main__.py"
    code.parent.mkdir()
    (code.parent / "__init__.py").write_text("")
    code.write_text("import os, sys; print('RUN', *sys.argv[1:], os.getcwd())")
    (tmp_path / "pack.json").write_text("{}")
    tar = folder / "small.0.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(tmp_path / "pack.json", "pack.json")
        archive.add(code, "code/vidlbc/__main__.py")
        archive.add(tmp_path / "vidlbc" / "__init__.py", "code/vidlbc/__init__.py")
    (folder / "start.py").write_bytes((REPO / "vidlbc" / "offline" / "start.py").read_bytes())
    (folder / "small.0.tar.sha256").write_text(f"{hashlib.sha256(tar.read_bytes()).hexdigest()}  small.0.tar\n")

    def run(*arguments: str, script: Path = folder / "start.py") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    return run


def test_start_unpacks_once_and_runs_the_packs_own_code(start, tmp_path):
    first = start("root=node", "results=here", "device=cpu")
    assert first.returncode == 0, first.stderr
    assert "unpacked small.0.tar" in first.stdout
    told = first.stdout.splitlines()[-1].split()
    assert told[:5] == ["RUN", "offline", "run", f"root={tmp_path}/node", f"results={tmp_path}/here"]
    assert told[5] == "device=cpu" and told[6].startswith("called=@") and told[7] == f"{tmp_path}/node/code"
    again = start("root=node", "results=here")
    assert "unpacked" not in again.stdout and "RUN" in again.stdout
    later = start("root=node", "results=here", script=tmp_path / "node" / "start.py")
    assert "RUN" in later.stdout


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda f: (f / "small.0.tar").write_bytes(b"x"), "small.0.tar: damaged, its SHA-256 is not that of"),
        (lambda f: (f / "small.0.tar.sha256").unlink(), "small.0.tar.sha256: does not exist"),
        (lambda f: (f / "small.0.tar").unlink(), "holds no pack, and none whose first part lies beside start.py"),
    ],
)
def test_start_tells_a_damaged_pack_in_one_line(start, tmp_path, damage, told):
    damage(tmp_path / "carried")
    done = start("root=node", "results=here")
    assert done.returncode == 2 and told in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("given", ["root", "results"])
def test_start_needs_both_folders(start, given):
    done = start(f"{given}=node")
    missing = "results" if given == "root" else "root"
    assert done.returncode == 2 and done.stderr == f"error: missing value: give {missing}=FOLDER\n"


@pytest.mark.slow
def test_start_refuses_another_pack_and_wheels_that_do_not_fit(start, tmp_path):
    assert start("root=node", "results=here").returncode == 0
    (tmp_path / "node" / "parts" / "0").write_text("another")
    done = start("root=node", "results=here")
    assert done.returncode == 2 and "holds another pack; choose another root=" in done.stderr
    (tmp_path / "node" / "wheels").mkdir()
    (tmp_path / "node" / "wheels" / "none-1-py9-none-any.whl").write_bytes(b"")
    done = start("root=node", "results=here", script=tmp_path / "node" / "start.py")
    assert done.returncode == 2 and "pip cannot install the wheels under Python 3." in done.stderr
