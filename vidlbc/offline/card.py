"""What is told of a model that came home: a card in the form that model hubs read, and an entry for docs/log.md."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vidlbc.codec.codec import Codec
from vidlbc.offline import weights
from vidlbc.offline.plan import Step
from vidlbc.offline.run import Run

_LOG, _VALIDATION = "log.jsonl", "validation.jsonl"


def card(name: str, run: Run, step: Step, codec: Codec) -> str:
    """README.md of the model folder: what was measured and recorded, nothing else."""
    record, environment = run.records[step.name], run.state["environment"]
    stage = codec.image.config
    options = json.dumps(stage.get("options", {}), sort_keys=True)
    made_from = "image stage" if step.run == weights.IMAGE else f"temporal stage `{codec.kind}`"
    lines = [
        "---",
        "license: apache-2.0",
        "library_name: vidlbc",
        "tags: [video-compression]",
        "---",
        "",
        f"# Model card: `{name}`",
        "",
        f"Step `{step.name}` ({made_from}) of plan `{run.plan.name}`, commit `{run.state['commit']}`, "
        f"{_day(run.state['began'])}; generation {run.generation.number} of its results. "
        f"Kind `{codec.kind}`, fingerprint `{codec.fingerprint}`.",
        "",
        "## Architecture",
        "",
        f"Image stage of family `{stage['family']}` with options `{options}`.",
        "",
        "## Data and settings",
        "",
        *[f"- `{text}`" for text in record.args],
        "",
        "## Steps of the plan",
        "",
        *_table(run),
        "",
        "## Figures",
        "",
        *[f"- {told}" for told in _figures(run, step)],
        "",
        "## Machine",
        "",
        *[f"- {key}: {value}" for key, value in environment.items() if value is not None],
        "",
    ]
    return "\n".join(lines)


def log_entry(out: Path, run: Run, step: Step) -> str:
    """Markdown, to be read and completed by whoever keeps the log."""
    environment = run.state["environment"]
    where = ", ".join(f"{key} {environment.get(key)}" for key in ("device_name", "torch", "exact sums"))
    lines = [
        f"## {_day(run.state['began'])}: plan `{run.plan.name}`, joined as `{out.name}`",
        "",
        f"Machine: {where}. Commit `{run.state['commit']}`, generation {run.generation.number}; the model is that of "
        f"step `{step.name}`.",
        "",
        *_table(run),
        "",
        *[f"- {told}" for told in _figures(run, step)],
        "",
    ]
    return "\n".join(lines)


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _table(run: Run) -> list[str]:
    rows = ["| step | until minute | status | minutes | steps | notes |", "| --- | --- | --- | --- | --- | --- |"]
    for step in run.plan.steps:
        record = run.records[step.name]
        took = f"{(record.ended - record.started) / 60:.1f}" if record.ended and record.started else ""
        last = _last(run, step.name)
        told = "; ".join(([f"as {record.chosen}"] if record.chosen else []) + record.reasons)
        rows.append(f"| {step.name} | {step.until:.1f} | {record.status} | {took} | {last.get('step', '')} | {told} |")
    return rows


def _last(run: Run, name: str, log: str = _LOG) -> dict[str, Any]:
    """The last line that is whole: one may have been half written."""
    for text in reversed(run.generation.files.get(f"{name}/{log}", b"").decode(errors="replace").splitlines()):
        try:
            return dict(json.loads(text))
        except (ValueError, TypeError):
            continue
    return {}


def _figures(run: Run, step: Step) -> list[str]:
    """The last line of the log, the last validation, and metrics.json of every step, as they were written."""
    told = []
    for what, log in (("log line", _LOG), ("validation", _VALIDATION)):
        if row := _last(run, step.name, log):
            told.append(f"last {what}: `{json.dumps(row)}`")
    for other in run.plan.steps:
        metrics = run.generation.files.get(f"{other.name}/metrics.json")
        if metrics is not None:
            told.append(f"`{other.name}`: `{json.dumps(json.loads(metrics))}`")
    return told or ["none came home"]
