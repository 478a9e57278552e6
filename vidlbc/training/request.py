"""What a run was asked for, kept in its folder: the same command resumes it, another one is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidlbc.errors import InputError
from vidlbc.shards.layout import dump_json, write_atomic


def keep_request(path: Path, wanted: Mapping[str, Any], out: Path, write: bool) -> None:
    """Write `wanted` ({option: value}) where nothing is there yet; `out` is the folder that the user named.

    Raises InputError naming the first option that differs from what is there.
    """
    wanted = json.loads(json.dumps(wanted))
    if path.is_file():
        there = json.loads(path.read_text())
        for name in wanted:
            if there.get(name) != wanted[name]:
                told = f"{name}={there.get(name)}, this one has {name}={wanted[name]}".replace("=None", "=null")
                raise InputError(
                    f"out={out} holds a run with {told}: choose another out=, or give the old value to resume"
                )
    elif write:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, dump_json(wanted, indent=1))
