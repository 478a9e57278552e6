"""`vidlbc COMMAND`, as a user types it; and the wheel, away from any checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.codec.small_models import save_small_model
from vidlbc import commands
from vidlbc.run.configs import configs_folder

REPO = Path(__file__).resolve().parents[1]
ALL = {**commands.COMMANDS, **commands.MORE, **commands.EXPERIMENTS, **commands.QUALITY}


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        commands.main(words)
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def test_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = typed(capsys)
    assert (status, err) == (0, "") and "  pretrain-video  The main job" in out
    status, out, err = typed(capsys, "experiment", "--help")
    assert (status, err) == (0, "") and "  scalable " in out and "pretrain-video" not in out


def test_a_command_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = typed(capsys, "encoed", "input=a")
    assert (status, out) == (2, "") and err.startswith("error: vidlbc encoed: no such command, expected one of")
    status, out, err = typed(capsys, "qa", "encode")
    assert (status, out) == (2, "")
    assert err == "error: vidlbc qa encode: no such command, expected one of benchmark, fuzz, soak\n"


@pytest.mark.parametrize("words", [("encode",), ("pretrain-video",), ("pretrain_video",), ("qa", "fuzz")])
def test_help_says_how_it_is_called(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    status, out, err = typed(capsys, *words, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: {' '.join(['vidlbc', *words]).replace('_', '-')} key=value ...\n")


def test_an_option_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = typed(capsys, "qa", "fuzz", "kount=3")
    assert (status, out) == (2, "") and err.startswith("error: unknown option 'kount' (in kount=3); did you mean count")


def test_every_command_has_a_door_and_nothing_else_has() -> None:
    own = {name for name, module in ALL.items() if name != "demo"}
    assert own == {path.stem for path in (REPO / "tools").glob("*.py")} - {"setup_env"}
    for name in own:
        assert f'run_command("{name}")' in (REPO / "tools" / f"{name}.py").read_text()
        assert callable(commands.command_module(name).main)


def test_models(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = save_small_model(tmp_path / "mine", kinds=())
    status, out, err = typed(capsys, "models", f"model={model}")
    assert (status, err) == (0, "") and out.splitlines()[-1].split()[:2] == ["mine", "none"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(REPO)], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_what_runs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    configs = {f"vidlbc/configs/{path.relative_to(configs_folder())}" for path in configs_folder().rglob("*.yaml")}
    assert configs <= names and "vidlbc/py.typed" in names and "vidlbc/evaluate/report/page.html" in names
    assert {f"vidlbc/weights/{name}/image_stage/model.safetensors" for name in ("default", "large")} <= names
    assert [name for name in names if name.split("/")[0] not in ("vidlbc", wheel.name[:12] + ".dist-info")] == []
    assert wheel.stat().st_size < 64e6


@pytest.mark.slow
def test_the_wheel_encodes_and_decodes_without_a_checkout(
    wheel: Path, tmp_path: Path, make_clip: Callable[..., Path]
) -> None:
    site, work = tmp_path / "site", tmp_path / "work"
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    make_clip(work / "videos" / "a.mp4", frames=5, size=(64, 96))
    env = {**os.environ, "PYTHONPATH": str(site)}

    def vidlbc(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "vidlbc", *words],
            cwd=work,
            env=env,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [sys.executable, "-P", "-c", "import vidlbc; print(vidlbc.__file__)"],
        cwd=work,
        env=env,
        capture_output=True,
        text=True,
    )
    assert where.stdout.startswith(str(site)), "the wheel's own code is what runs"
    vidlbc("encode", "input=videos", "output=shards", "device=cpu", "effort=fast")
    assert "1 videos, 5 frames" in vidlbc("decode", "input=shards", "output=out", "device=cpu")
    assert list((work / "out").rglob("*.mp4"))
