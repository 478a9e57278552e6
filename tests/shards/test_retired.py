"""Shards that were written with temporal=chunk: one line names the last version that reads them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.codec.retired import RETIRED
from vidlbc.errors import InputError
from vidlbc.shards import LatentShards, Manifest, Plan


@pytest.fixture
def plan(encode_fake: Callable[..., tuple[Plan, Manifest]]) -> Path:
    """A folder's plan, as if it named the kind."""
    path = Path(encode_fake()[0].output) / "manifest" / "plan.json"
    data = json.loads(path.read_text())
    data["settings"]["temporal"] = "chunk"
    path.write_text(json.dumps(data))
    return path


def test_a_folder_is_refused(plan: Path) -> None:
    for read in (Plan.load, LatentShards):
        with pytest.raises(InputError) as error:
            read(plan.parents[1])
        assert str(error.value) == f"{plan}: shards were written with {RETIRED}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tool", "option"),
    [
        ("decode", "input"),
        ("verify", "input"),
        ("benchmark reading", "shards"),
        ("encode", "output"),
        ("shards verify", "input"),
        ("shards stats", "input"),
        ("shards repair", "input"),
    ],
)
def test_the_tools_refuse_it(
    call_tool: Callable[..., subprocess.CompletedProcess[str]], plan: Path, fake_corpus: Path, tool: str, option: str
) -> None:
    name, *command = tool.split()
    more = {"decode": ["output=out"], "encode": [f"input={fake_corpus}"]}.get(tool, [])
    done = call_tool(name, *command, f"{option}={plan.parents[1]}", *more)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"error: {plan}: shards were written with {RETIRED}"
