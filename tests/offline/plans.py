"""Plans, data and a stand-in for a trainer, for tests of the way to a node and back that need no training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vidlbc.offline.plan import OfflinePlan, plan_of, with_calls
from vidlbc.offline.state import Call, Root
from vidlbc.run.atomic_files import dump_json

# Counts to `ticks`, or until its time; its checkpoint is the count, so it resumes. `fail=N`: it fails at that tick.
TRAINER = """
import json, os, sys, time
from pathlib import Path

given = dict(word.split("=", 1) for word in sys.argv[1:])
out = Path(given["out"])
(out / "training").mkdir(parents=True, exist_ok=True)
(out / "training" / "request.json").write_text("{}")
place = out / "training" / "count"
tick = int(place.read_text()) if place.exists() else 0
with open(out / "starts", "a") as file:
    file.write(f"{tick}\\n")
while tick < int(given["ticks"]) and time.time() < float(given.get("until", "@9e9")[1:]):
    time.sleep(0.01)
    tick += 1
    if given.get("average"):
        (out / "training" / "average.safetensors").write_text("")
    if str(tick) == given.get("fail"):
        print("error: it cannot go on")
        sys.exit(3)
    with open(out / "training" / "log.jsonl", "a") as file:
        file.write(json.dumps({"step": tick, "loss": 9}) + "\\n")
    with open(out / "training" / "validation.jsonl", "a") as file:
        file.write(json.dumps({"step": tick, "cost": float(given.get("cost", 1))}) + "\\n")
    place.with_suffix(".tmp").write_text(str(tick))
    os.replace(place.with_suffix(".tmp"), place)
if given.get("stay"):
    (out / "finished").write_text("")
    time.sleep(60)
(out / "config.json").write_text("{}")
"""


def make_plan(*steps: dict[str, Any], minutes: float = 10, **more: Any) -> OfflinePlan:
    """Steps are trainers where they do not say otherwise; each ends a minute after the one before."""
    usual = {"run": "tools/pretrain_image.py", "closing": 0.0}
    whole = [{**usual, "until": number + 1, **step} for number, step in enumerate(steps)]
    return with_calls(plan_of({"name": "tested", "minutes": minutes, "steps": whole, **more}, "tested"), 10)


def make_root(folder: Path, plan: OfflinePlan, began: float, needs: dict[str, list[int]] | None = None) -> Root:
    """What start.py and the first call leave, with the stand-in as the project's code."""
    tools = folder / "code" / "tools"
    tools.mkdir(parents=True)
    (tools / "pretrain_image.py").write_text(TRAINER)
    index = {"plan": plan.as_json(), "commit": "0" * 12, "parts": 1, "needs": {s.name: [0] for s in plan.steps}}
    index["needs"] |= needs or {}
    (folder / "pack.json").write_bytes(dump_json(index))
    (folder / "parts").mkdir()
    (folder / "parts" / "0").write_text("")
    root = Root(folder)
    root.write_call(Call(began, began + 60 * plan.minutes, "cpu", {"torch": "none"}))
    return root


def args(ticks: int, **more: Any) -> list[str]:
    return ["out={out}", f"ticks={ticks}", *[f"{key}={value}" for key, value in more.items()]]


def logged(root: Root, step: str) -> list[int]:
    """The steps in a stand-in's log."""
    text = (root.path / "out" / step / "training" / "log.jsonl").read_text()
    return [json.loads(line)["step"] for line in text.splitlines()]
