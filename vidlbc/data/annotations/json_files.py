"""JSON as annotations use it: class names, lists of clips."""

import json
from pathlib import Path
from typing import Any

from vidlbc.errors import InputError


def read_json(path: Path) -> Any:
    """The file's JSON. Raises InputError with the place where it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None


def read_label_json(path: Path) -> list[str]:
    """Class names of a labels file: `{"name": "0", ...}` (20BN), `["name", ...]` or `{"classes": [...]}`."""
    data = read_json(path)
    if isinstance(data, dict) and isinstance(data.get("classes"), list):
        data = data["classes"]
    if isinstance(data, list) and all(isinstance(name, str) for name in data):
        return list(data)
    if isinstance(data, dict) and data and all(str(number).isdecimal() for number in data.values()):
        return [name for name, _ in sorted(data.items(), key=lambda pair: int(pair[1]))]
    raise InputError(f"{path}: expected a map of class name to number, or a list of class names")
