"""What `--help` prints: a tool's purpose, then every option with its default and the comment beside it in configs/."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf

from vidlbc.run.composed import keys_of, options_of, parent_of
from vidlbc.run.options import declared, members


def describe(
    main: Callable[..., Any],
    usage: str | None,
    options: type,
    folder: Path,
    config: DictConfig,
    choices: dict[str, str | None],
) -> str:
    """The help text of the tool that defines `main`, for a composed `config` and the choices made in its groups.

    `usage`: how it is called; None: as a script."""
    meaning = {key: option.help for key, option in declared(options)} | comments(folder, choices)
    ours = main.__module__.startswith("vidlbc.")
    script = Path(sys.argv[0] if ours else inspect.getfile(main))
    purpose = (inspect.getdoc(inspect.getmodule(main)) or inspect.getdoc(main) or "").strip()
    command = "COMMAND " if "command" in config.keys() else ""
    lines = [f"usage: {usage or f'python {script.parent.name}/{script.name}'} {command}key=value ...", ""]
    if purpose:
        lines += [purpose, ""]
    rows: list[tuple[str, str]] = []
    mappings = [key for key, option in declared(options) if any(get_origin(m) is dict for m in members(option.kind))]
    for key in keys_of(config):
        parent, last = parent_of(config, key)
        node = parent._get_node(last)
        if isinstance(node, DictConfig) and len(node) and key not in meaning:
            continue
        if any(key.startswith(f"{mapping}.") for mapping in mappings):
            continue
        rows.append((f"{key}={_show(node)}", meaning.get(key, "")))
    width = min(36, max((len(left) for left, _ in rows), default=0))
    lines.append("options, with their defaults (??? must be given):")
    lines += [f"  {left.ljust(width)}  {'# ' + right if right else ''}".rstrip() for left, right in rows]
    groups = {group: options_of(folder, group) for group in choices}
    if options_of(folder, "experiment"):
        groups.setdefault("experiment", options_of(folder, "experiment"))
    if groups:
        lines += ["", "choices (folders of configs/):"]
        for group, there in groups.items():
            picked = [f"[{name}]" if name == choices.get(group) else name for name in there]
            lines.append(f"  {group.partition('@')[2] or group}={'|'.join(picked)}")
    lines += ["", "debug=true shows the stack trace of an error; --cfg prints the composed config and stops"]
    return "\n".join(lines)


def comments(folder: Path, choices: dict[str, str | None]) -> dict[str, str]:
    """The comment of every key of the choices: beside its value, or on the lines right above it; {dotted key: text}."""
    found: dict[str, str] = {}
    for group, choice in choices.items():
        place, _, package = group.partition("@")
        if choice:
            prefix = (package or place.replace("/", ".")) + "."
            found |= _comments_of(folder / place / f"{choice}.yaml", prefix)
    return found


def _comments_of(file: Path, prefix: str) -> dict[str, str]:
    if not file.is_file():
        return {}
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    if lines and lines[0].startswith("# @package"):
        package = lines[0].split()[2]
        prefix = "" if package == "_global_" else prefix if package == "_group_" else package + "."
    found: dict[str, str] = {}

    def visit(node: yaml.Node | None, above: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            dotted = above + str(key.value)
            beside = lines[key.start_mark.line]
            if value.end_mark.line == key.start_mark.line:
                beside = beside[value.end_mark.column :]
            else:
                beside = beside[key.end_mark.column :]
            comment = beside.partition("#")[2].strip()
            row = key.start_mark.line - 1
            before: list[str] = []
            while not comment and row >= 0 and lines[row].strip().startswith("#") and "@package" not in lines[row]:
                before.insert(0, lines[row].strip().lstrip("# "))
                row -= 1
            found[dotted] = comment or " ".join(before)
            visit(value, dotted + ".")

    visit(yaml.compose(text), prefix)
    return {key: text for key, text in found.items() if text}


def _show(node: Any) -> str:
    if node._is_missing():
        return "???"
    raw = node._value()
    if raw is None:
        return "null"
    if OmegaConf.is_config(node):
        return str(OmegaConf.to_container(node, resolve=False)).replace("'", "").replace(" ", "")
    if isinstance(raw, bool):
        return str(raw).lower()
    return str(raw)
