"""One plan behind another: what adding to a folder and merging folders share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidlbc.shards.layout import ShardFiles, read_stats
from vidlbc.shards.maintain.check import dropped_in
from vidlbc.shards.plan import Addition, Plan, PlannedFile, ShardRange


def followed_by(plan: Plan, part: Plan) -> Plan:
    """`plan` with the sources and shards of `part`, a plan without additions, behind its own, as one more addition."""
    sources, shards = len(plan.sources), len(plan.shards)
    shifted = [ShardRange(shard.split, shard.first + sources, shard.last + sources) for shard in part.shards]
    return replace(
        plan,
        sources=(*plan.sources, *part.sources),
        shards=(*plan.shards, *shifted),
        additions=(*plan.additions, Addition(part.root, part.form, sources, shards)),
    )


def stored_sources(plan: Plan, files: Sequence[dict[str, Any]]) -> list[PlannedFile]:
    """The sources all of whose clips lie in the folder. `files`: the manifest's, one a source, in the plan's order.

    Only of those is another file a repeat: what could not be read then, or was dropped by a repair, may come again.
    """
    dropped: set[str] = set()
    for index in range(len(plan.shards)):
        stats = read_stats(ShardFiles(Path(plan.output), index)) or {}
        dropped |= {str(clip.get("source")) for clip in dropped_in(stats)}
    pairs = zip(plan.sources, files, strict=True)
    return [source for source, file in pairs if file["clips"] and source.path not in dropped]
