"""What each step of a plan reads, found at home: its arguments are composed with its tool's own config.

A wrong option is so told before anything travels, and every path below `data=` in the config is a source.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vidlbc.data.corpus import locate
from vidlbc.errors import InputError
from vidlbc.offline.plan import ListedSource, OfflinePlan, Step, fill, merged
from vidlbc.shards import read_annotations
from vidlbc.train.data import pictures

# A command's name and arguments -> its config. Raises InputError; KeyError where there is no such command.
Compose = Callable[[str, Sequence[str]], DictConfig]
_TRAIN_ONLY = "tools/pretrain_image.py"  # of an annotation list it reads the train split


@dataclass(frozen=True)
class Needs:
    """Of a step: files by their place on the node below `data/`, and folders below vidlbc/weights."""

    files: Mapping[str, Path]
    weights: tuple[str, ...]


def needs_of(plan: OfflinePlan, step: Step, data: Path, compose: Compose) -> Needs:
    """`compose`: of the tools' options. Raises InputError for an option that the step's tool does not have, or a source
    that is not there."""
    found: dict[str, Path] = {}
    for variant in _variants(plan, step):
        for source, listed in _sources(plan, step, variant, data, compose):
            for path in _files(source, listed, data):
                found[_place(path, data)] = path
    for name, sets in plan.lists.items():
        if any(f"{{data}}/{name}" in text for text in step.args):
            found |= {_place(path, data): path for paths in listed_files(sets, data).values() for path in paths}
    return Needs(dict(sorted(found.items())), step.weights)


def _variants(plan: OfflinePlan, step: Step) -> list[tuple[str, ...]]:
    """All argument changes that may come to be, one by one."""
    chosen = step.choose.of if step.choose else ()
    variants = [other.variant for other in plan.steps if other.name in chosen] or [step.variant]
    return [*variants, *[(*variants[0], *changes) for changes in step.otherwise]]


def _sources(
    plan: OfflinePlan, step: Step, variant: Sequence[str], data: Path, compose: Compose
) -> Iterator[tuple[pictures.PictureSource, bool]]:
    """(source, whether all splits of a list count)."""
    tool, *words = step.run.split()
    if tool == "-m":
        return
    values = {"data": str(data), "out": "out", "until": "+1", "device": "cpu", **{s.name: s.name for s in plan.steps}}
    arguments = [*words, *[fill(text, values) for text in merged(step.args, variant)]]
    try:
        config = compose(Path(tool).stem, arguments)
    except KeyError:
        raise InputError(f"plan {plan.name}, step {step.name}: unknown step, there is no {tool}") from None
    except InputError as error:
        raise InputError(f"plan {plan.name}, step {step.name}: {error}") from None
    made = {str(data / name) for name in plan.lists}
    for entry in _below(OmegaConf.to_container(config, resolve=True), str(data)):
        if entry.path not in made:
            yield entry, step.run != _TRAIN_ONLY


def _below(value: Any, root: str) -> Iterator[pictures.PictureSource]:
    """Every path below `root` in a config, with what `every` stands beside it."""
    if isinstance(value, Mapping):
        if set(value) <= {"path", "every"} and str(value.get("path", "")).startswith(root):
            yield pictures.PictureSource.of(value)
            return
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _below(item, root)
    elif isinstance(value, str) and (value == root or value.startswith(root.rstrip("/") + "/")):
        yield pictures.PictureSource(value)


def _files(source: pictures.PictureSource, all_splits: bool, data: Path) -> list[Path]:
    """The media of a source, and the list that names them, if any."""
    path = Path(source.path)
    lists = [path] if path.is_file() and path.suffix.lower() in (".csv", ".txt") else []
    if all_splits and (path / "labels.csv").is_file():
        lists = [path / "labels.csv"]
    if all_splits and lists:
        corpus = read_annotations(path)
        media = [locate(corpus.root, item.path)[0] for item in corpus.items]
        return [*lists, *media[:: source.every]]
    return [*lists, *pictures.find_files([source])]


def listed_files(sets: Mapping[str, Sequence[ListedSource]], data: Path) -> dict[str, list[Path]]:
    """{split: files} of a list that the plan describes; sources are below `data`. Raises InputError."""
    listed: dict[str, list[Path]] = {}
    for split, entries in sets.items():
        sources = []
        for entry in pictures.sources(entries):
            if Path(entry.path).is_absolute() or ".." in Path(entry.path).parts:
                raise InputError(f"lists: {entry.path} is not below data=")
            sources.append(pictures.PictureSource(str(data / entry.path), entry.every))
        listed[str(split)] = pictures.find_files(sources)
    return listed


def list_text(sets: Mapping[str, Sequence[ListedSource]], data: Path) -> bytes:
    """The list as it lies on the node, beside the folders of its files: path,label,group,split.

    A file of several splits belongs to the last: what is held out is not trained on.
    """
    split_of = {path: split for split, paths in listed_files(sets, data).items() for path in paths}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "group", "split"])
    writer.writerows([_place(path, data), "", "", split] for path, split in sorted(split_of.items()))
    return text.getvalue().encode()


def _place(path: Path, data: Path) -> str:
    try:
        return path.relative_to(data).as_posix()
    except ValueError:
        raise InputError(f"{path} is not below data={data}: a plan's sources are") from None
