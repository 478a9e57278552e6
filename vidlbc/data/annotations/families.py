"""Which annotation family is this? Told from content, then read by the family's own reader; nothing is converted.

folder --+-- labels.csv | *.json + labels | classInd.txt | *_test_split1.txt | train.csv ... --> lists, benchmarks
         +-- *.tar ------------------------------------------------------------------------> tars
         +-- class folders, split folders, plain videos -----------------------------------> folders
file ----+-- the same families by what the file says; a video is a corpus of one
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vidlbc.data.annotations import benchmarks, folders, joining, lists
from vidlbc.data.annotations.json_files import read_json
from vidlbc.data.annotations.lists import USUAL, Columns
from vidlbc.data.corpus import SPLITS, Corpus, Item, checked, is_video, split_name
from vidlbc.errors import InputError
from vidlbc.run.plugins import named_object
from vidlbc.video.sequences import is_sequence

AUTO = "auto"
_TEXT = (".csv", ".txt", ".json", ".jsonl", ".tsv", ".lst", ".list")
# Beside tars that hold our bitstreams, not videos (vidlbc.shards.layout).
_OUR_PLAN = "manifest/plan.json"
_TABLES = ("labels.csv", "metadata.csv", "metadata.jsonl")  # the last two as Hugging Face's video folders have them


Source = str | Path


def read_annotations(
    root_or_list: Source | Sequence[Source],
    labels: str | Path | None = None,
    *,
    fold: int = 1,
    form: str = AUTO,
    columns: Columns = USUAL,
) -> Corpus:
    """The corpus that a folder, a list or a video describes.

    `root_or_list`: a folder of videos, or an annotation file whose paths are relative to its own folder; a pattern of
    such (`videos/*/cam1`, `**/*.mp4`), or several, which become one corpus. With `labels`
    (an annotation file or a folder of them), `root_or_list` is the folder that the listed paths are relative to.
    `fold`: which of UCF101's or HMDB51's three splits. Raises InputError: nothing there, an empty list, an unknown
    label or split, a label in test that is not in train, a split with no files.
    `form`: `package.module:function` of a reader of your own, (root, labels or None) -> Corpus; auto: by content.
    `columns`: of tables whose columns have other names than the usual ones.
    """
    roots = [path for source in joining.sources(root_or_list) for path in joining.matches(source)]
    if len(roots) > 1:
        if labels is not None:
            raise InputError(f"labels={labels}: go with one folder of videos, and there are {len(roots)} inputs")
        if all(is_sequence(path) or (is_video(path.name) and path.is_file()) for path in roots):
            return checked(joining.read_files(roots))
        read = [read_annotations(path, fold=fold, form=form, columns=columns) for path in roots]
        return checked(joining.joined(read))
    root = roots[0]
    if not root.exists():
        raise InputError(f"{root}: no such file or folder (expected a folder of videos or an annotation list)")
    if form != AUTO:
        return _read_as(form, root, labels)
    if labels is not None:
        if not root.is_dir():
            raise InputError(f"{root}: expected the folder that the videos of {labels} lie in")
        source = Path(labels).expanduser()
        if not source.exists():
            raise InputError(f"{source}: no such file or folder (expected annotations)")
        corpus = (_read_list_folder if source.is_dir() else _read_file)(source, root, fold, columns)
        if corpus is None:
            raise InputError(f"{source}: no annotation files of a known form")
        return checked(corpus)
    if root.is_dir() and not is_sequence(root):
        return checked(_read_list_folder(root, root, fold, columns) or _read_media_folder(root))
    return checked(_read_file(root, root.parent, fold, columns))


def _read_as(form: str, root: Path, labels: str | Path | None) -> Corpus:
    """By somebody's own reader. Raises InputError where it is none, or gives no corpus."""
    if ":" not in form:
        raise InputError(f"form={form}: expected {AUTO}, or package.module:function")
    corpus = named_object("form", form)(root, None if labels is None else Path(labels).expanduser())
    if not isinstance(corpus, Corpus):
        raise InputError(f"form={form}: gave a {type(corpus).__name__}, expected a vidlbc.data.corpus.Corpus")
    return checked(corpus)


def _read_media_folder(root: Path) -> Corpus:
    """Loose videos, or tars where there are none: an archive beside its extracted files is not read a second time."""
    if folders.videos_under(root):
        return folders.read_folder(root)
    # Shards of ours below the videos' folder hold no videos.
    archives = [path for path in sorted(root.rglob("*.tar")) if not (path.parent / _OUR_PLAN).is_file()]
    return folders.read_tars(archives, root, root) if archives else folders.read_folder(root)


def _read_list_folder(folder: Path, root: Path, fold: int, columns: Columns) -> Corpus | None:
    """The annotations that lie in `folder` itself, if there are any."""
    for name in _TABLES:
        if (folder / name).is_file():
            return _read_file(folder / name, root, fold, columns)
    if tables := _tables_of_splits(folder):
        return lists.read_tables(tables, root, folder, columns)
    names = {path.name for path in folder.iterdir() if path.is_file()}
    if "classInd.txt" in names:
        return benchmarks.read_ucf101(folder, root, fold)
    if any(benchmarks._HMDB_FILE.match(name) for name in names):
        return benchmarks.read_hmdb51(folder, root, fold)
    by_split = [
        folder / name for name in sorted(names) if Path(name).suffix in _TEXT and lists.split_from_file(Path(name))
    ]
    for form in (_is_something, _is_jester, _is_kinetics, lists.is_path_list):
        files = [path for path in by_split if path.stat().st_size and form(path)]
        if files:
            empty = [path for path in by_split if not path.stat().st_size]
            if empty:
                raise InputError(f"{empty[0]}: empty list")
            return _read_family(form, sorted(files, key=_split_order), root, folder)
    return None


def _tables_of_splits(folder: Path) -> list[tuple[Path, str | None, str]]:
    """`train/metadata.csv` and the like: the table, its split, the folder of its paths."""
    found: list[tuple[Path, str | None, str]] = []
    for path in sorted(folder.iterdir()):
        split = split_name(path.name) if path.is_dir() else None
        tables = [path / name for name in _TABLES[1:] if split and (path / name).is_file()]
        found += [(table, split, f"{path.name}/") for table in tables[:1]]
    return found


def _read_file(path: Path, root: Path, fold: int, columns: Columns) -> Corpus:
    """One annotation file, by what it says."""
    if path.suffix == ".tar":
        return folders.read_tars([path], path.parent, path)
    if is_video(path.name) or is_sequence(path):
        return Corpus((Item(path.name),), (), "one video", str(path.parent), str(path))
    if path.suffix.lower() not in _TEXT:
        raise InputError(f"{path}: not a folder, a list ({', '.join(_TEXT)}), a .tar or a video")
    if not lists.read_lines(path):
        raise InputError(f"{path}: empty list")
    if benchmarks._UCF_FILE.match(path.name):
        return benchmarks.read_ucf101(path.parent, root, fold, only=path)
    if benchmarks._HMDB_FILE.match(path.name):
        return benchmarks.read_hmdb51(path.parent, root, fold)
    if path.suffix.lower() == ".jsonl":
        return lists.read_table(path, root, columns)
    if path.suffix != ".json":
        header = lists.csv_header(path, columns)
        if "path" in header:
            return lists.read_table(path, root, columns)
    for form in (_is_something, _is_jester, _is_kinetics, lists.is_path_list):
        if form(path):
            return _read_family(form, [path], root, path)
    first = lists.read_lines(path)[0][1].strip()[:80]
    raise InputError(
        f"{path}: unknown form, first line '{first}' (expected 'path label' lines, a CSV with a 'path' column,"
        " or the files of Kinetics, UCF101, HMDB51, Something-Something or Jester)"
    )


def _read_family(form: Callable[[Path], bool], files: list[Path], root: Path, source: Path) -> Corpus:
    if form is _is_kinetics:
        return benchmarks.read_kinetics(files, root, source)
    if form is lists.is_path_list:
        return lists.read_path_lists([(path, lists.split_from_file(path)) for path in files], root, source)
    return benchmarks.read_something(files, root, _labels_beside(files[0]), source)


def _labels_beside(path: Path) -> Path | None:
    """`labels.json`, `something-something-v2-labels.json`, `jester-v1-labels.csv`: the class list next to a split."""
    found = sorted(other for other in path.parent.iterdir() if other.stem.lower().endswith("labels"))
    return next((other for other in found if other.suffix == path.suffix), None)


def _is_something(path: Path) -> bool:
    if path.suffix != ".json":
        return False
    data = read_json(path)
    return isinstance(data, list) and bool(data) and isinstance(data[0], dict) and "id" in data[0]


def _is_jester(path: Path) -> bool:
    lines = lists.read_lines(path)[:20] if path.suffix == ".csv" else []
    # Jester's test list holds bare ids: it reads as `id` lines and is told by its neighbours' form.
    return bool(lines) and all(line.partition(";")[0].strip().isdecimal() for _, line in lines)


def _is_kinetics(path: Path) -> bool:
    return path.suffix == ".csv" and "youtube_id" in lists.csv_header(path)


def _split_order(path: Path) -> int:
    return SPLITS.index(lists.split_from_file(path) or "train")
