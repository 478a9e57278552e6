"""What README.md and the pages show is true: its Python runs, commands compose, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import vidlbc
from tests.codec.small_models import noisy_frames, save_small_model
from tests.commands import spoken
from vidlbc.commands import compose
from vidlbc.shards import EncodingSettings, encode_corpus, make_plan, read_annotations

REPO = Path(__file__).resolve().parent.parent
TEXT = (REPO / "README.md").read_text()
CARDS = sorted((REPO / "vidlbc" / "weights").glob("*/README.md"))
EXPERIMENTS = sorted((REPO / "vidlbc" / "experiments").glob("*/README.md"))
PAGES = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md")), *CARDS, *EXPERIMENTS]
SHOWN = [page for page in PAGES if page.name in ("README.md", "results.md", "experiments.md", "training.md")]
TOLD = "\n".join(page.read_text() for page in SHOWN)
COMMANDS = sorted(set(re.findall(r"(?<![\w/])vidlbc [a-z][^`\n#]*=[^`\n#]+", TOLD)))


def test_two_commands_come_first():
    assert re.findall(r"^make (\w+)", TEXT.split("## ", 1)[0], re.MULTILINE) == ["demo", "test"]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood_by_its_tool(command):
    name, arguments = spoken(shlex.split(command)[1:])
    assert (REPO / "tools" / f"{name}.py").is_file()
    if "..." not in arguments:
        compose(name, arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_is_short():
    assert len(TEXT.split()) <= 1000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where there is one core
def test_the_python_example_runs(tmp_path, monkeypatch, make_clip, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    model = save_small_model(tmp_path / "model", kinds=())
    for number in range(2):
        make_clip(tmp_path / "videos" / "train" / "ab"[number] / f"{number}.mp4", frames=3, size=(32, 48), seed=number)
    monkeypatch.chdir(tmp_path)
    codec = vidlbc.load(model, "cpu")
    plan = make_plan(read_annotations("videos"), "out/shards", codec, EncodingSettings(model=str(model)))
    encode_corpus(plan, codec=codec)
    names = {"frames": noisy_frames(60, 32, 48)}
    exec(code.replace('"default"', repr(str(model))), names)
    assert names["video"].shape == (60, 32, 48, 3) and names["info"].frames == 60
    assert (names["some"] == names["video"][40:56]).all()
    assert (names["alone"] == names["video"]).all()  # of a model that predicts from no pictures
    assert [y.shape[0] for y in names["latents"]] == [60] * 4
    assert capsys.readouterr().out.count("(3, 1, 8, 12)") == 2
