"""A run that goes on: what the folder's plan decides for it, and in what way another run differs."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

from vidlbc.data.content import Content
from vidlbc.data.corpus import Corpus, locate
from vidlbc.errors import ShardError, check_switch
from vidlbc.shards.layout import MANIFEST
from vidlbc.shards.plan import Plan
from vidlbc.shards.settings import INVISIBLE, EncodingSettings


def begin(plan: Plan) -> Plan:
    """Save the plan where there is none, an equal one, or its beginning; returns the folder's plan.

    A plan that is only the first part of the one there stands for the whole: later additions stay. Raises ShardError
    naming what differs from the plan that is there.
    """
    folder = Path(plan.output)
    if (folder / MANIFEST / "plan.json").exists():
        stored = Plan.load(folder)
        ours, theirs = [part.identity for part in plan.parts], [part.identity for part in stored.parts]
        if ours[: len(theirs)] != theirs and (plan.additions or ours != theirs[:1]):
            told = "; ".join(differences(stored if plan.additions else stored.parts[0], plan))
            raise ShardError(f"{folder}: holds shards of another run ({told}); choose a new folder")
        if len(ours) < len(theirs):
            plan = replace(stored, root=plan.root)
    elif any(folder.glob("[0-9]*.tar")):
        raise ShardError(f"{folder}: holds tars but no {MANIFEST}/plan.json; choose a new folder")
    plan.save()
    return plan


def differences(there: Plan, here: Plan) -> list[str]:
    """In words, what makes two plans differ."""
    found = []
    if there.fingerprint != here.fingerprint:
        found.append(f"codec weights {there.fingerprint[:8]} there, {here.fingerprint[:8]} here")
    for field in fields(EncodingSettings):
        old, new = getattr(there.settings, field.name), getattr(here.settings, field.name)
        if old != new and field.name not in INVISIBLE:
            found.append(f"{field.name}={old} there, {field.name}={new} here")
    if there.classes != here.classes:
        found.append(f"{len(there.classes)} classes there, {len(here.classes)} here, or other names")
    old_paths, new_paths = {s.path for s in there.sources}, {s.path for s in here.sources}
    for extra, text in ((new_paths - old_paths, "here, not there"), (old_paths - new_paths, "there, not here")):
        if extra:
            found.append(f"{len(extra)} files {text}, such as {min(extra)}")
    if old_paths == new_paths and set(there.sources) != set(here.sources):
        changed = {s.path for s in set(there.sources) ^ set(here.sources)}
        found.append(f"{len(changed)} files changed in content, label, group or split, such as {min(changed)}")
    return found or ["other shard sizes (shard_videos)"]


def choice_of_rdo(wanted: bool | None, output: str | Path, preferred: bool) -> bool:
    """What `rdo` of None stands for: what an earlier run into `output` did, else what the codec prefers
    (`Codec.prefers_rdo`). Raises InputError where it is none of the three.
    """
    check_switch("rdo", wanted)
    if wanted is not None:
        return wanted
    try:
        return Plan.load(output).settings.rdo
    except ShardError:
        return preferred


def known_contents(output: str | Path, corpus: Corpus) -> dict[str, Content]:
    """Contents of a corpus, from the plan in `output` where a file's size is still the same: resuming hashes nothing.

    A file changed at equal size is caught when it is encoded: its bytes are hashed again then.
    """
    try:
        stored = {source.path: Content(source.sha256, source.size) for source in Plan.load(output).parts[0].sources}
    except ShardError:
        return {}
    known = {}
    for path in {item.path for item in corpus.items} & stored.keys():
        file, member = locate(corpus.root, path)
        if stored[path].sha256 and file.is_file() and (member or file.stat().st_size == stored[path].size):
            known[path] = stored[path]
    return known
