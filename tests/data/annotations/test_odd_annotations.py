"""What lists and folders of other people hold: read as it is meant, or an error that names the line. Never shifted."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidlbc.data.annotations.lists import Columns, read_table
from vidlbc.data.content import content_of, contents_of
from vidlbc.data.corpus import Corpus
from vidlbc.errors import InputError
from vidlbc.shards import read_annotations

Read = dict[str, str | None]
HEADERS = [
    ("path", "label"),
    ("file_name", "label"),
    ("Video", "Class"),
    ("filename", "category"),
    ("video_path", "action"),
]


def read(path: Path) -> Read:
    corpus = read_annotations(path)
    return {item.path: None if item.label is None else corpus.classes[item.label] for item in corpus.items}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, text: str | bytes) -> Path:
        for stem in "abcd":
            (tmp_path / f"{stem}.mp4").write_text(stem)
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "\ufeffpath;label\na.mp4;put down, cup\nb.mp4;wave\n"),
        ("labels.csv", "Video\tClass\r\na.mp4\tput down, cup\r\nb.mp4\twave\r\n"),
        ("labels.tsv", "filename\tlabel\na.mp4\tput down, cup\nb.mp4\twave\n"),
        ("metadata.csv", 'label,file_name\n"put down, cup",a.mp4\nwave,b.mp4\n'),
        ("metadata.jsonl", '{"file_name": "a.mp4", "label": "put down, cup"}\n{"file_name": "b.mp4", "label": "wave"}'),
        ("list.txt", '"a.mp4" put down, cup\nb.mp4;wave\n'),
    ],
)
def test_tables_of_other_forms(write: Callable[..., Path], name: str, text: str) -> None:
    assert read(write(name, text)) == {"a.mp4": "put down, cup", "b.mp4": "wave"}


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.mp4,2.0\nb.mp4,10.0\nc.mp4,\nd.mp4,-1.0\n",
        '{"path": "a.mp4", "label": 2.0}\n{"path": "b.mp4", "label": [10]}\n{"path": "c.mp4", "label": null}\n'
        '{"path": "d.mp4"}',
    ],
)
def test_numbers_that_pandas_wrote(write: Callable[..., Path], text: str) -> None:
    corpus = read_annotations(write("labels.csv" if text.startswith("path") else "labels.jsonl", text))
    assert [item.label for item in corpus.items] == [2, 10, None, None] and len(corpus.classes) == 11


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labels.csv", "path,label\na.mp4,put down, cup\nb.mp4,wave\n", "line 2: 3 cells, expected 2 as in line 1: is"),
        ("labels.csv", "path,label\na.mp4,wave\nb.mp4\n", "line 3: 1 cells, expected 2 as in line 1"),
        ("labels.csv", 'path,label\na.mp4,"open door\nb.mp4,wave\n', "line 2: quotes do not match"),
        ("labels.csv", 'path,label\na.mp4,"open\nb.mp4,wave\nc.mp4,wave"\n', "line 2: a quoted cell goes on to line 4"),
        ("labels.csv", 'path,label\na.mp4,"open" door\n', "line 2: quotes do not match"),
        ("labels.csv", "path,label,label\na.mp4,1,2\n", "line 1: two columns 'label'"),
        ("labels.csv", "path,label\na.mp4,1\nb.mp4,2\nc.mp4,wave\n", "line 4: numbers and names among the labels"),
        ("labels.csv", "path,label\na.mp4,1\nb.mp4,2\nc.mp4,1.5\n", "line 4: numbers and names among the labels"),
        ("labels.csv", "path,label\na.mp4,1\nb.mp4,nan\nc.mp4,3\n", "line 3: numbers and names among the labels"),
        ("labels.csv", 'path,label\na.mp4,1\nb.mp4,"1,3"\n', "line 3: several labels, '1,3': expected one"),
        ("labels.csv", "path,label\na.mp4,1\nb.mp4,-2\n", "line 3: label -2: expected a number of at least 0, -1 for"),
        ("list.txt", "a.mp4 0\nb.mp4 2\nc.mp4 10\nd.mp4 1 3\n", "line 4: several labels, '1 3': expected one"),
        ("list.txt", "a.mp4 walk\nb.mp4 run\nc.mp4 3\n", "line 3: numbers and names among the labels"),
        ("x.jsonl", '{"path": "a.mp4"}\n["b.mp4"]\n', "line 2: expected a JSON object, found '[\"b.mp4\"]'"),
        ("x.jsonl", '{"path": "a.mp4", "label": [1, 3]}\n', "line 1: several labels, '[1, 3]'"),
        ("x.jsonl", '{"path": "a.mp4", "label": true}\n', "line 1: label=true: expected a text or a number"),
        ("labels.csv", b"path,label\na.mp4,caf\xe9\n", "labels.csv: not a text list (byte 20 is not UTF-8)"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    write: Callable[..., Path], name: str, text: str | bytes, message: str
) -> None:
    path = write(name, text)
    with pytest.raises(InputError) as caught:
        read(path)
    assert message in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


LABELS = st.text(alphabet='ab1 20.,;"\t-\n|', max_size=6)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from(["a", "b c", 'd"e', "f,g"]), LABELS), min_size=1, max_size=5),
    header=st.sampled_from(HEADERS),
    delimiter=st.sampled_from(",;\t|"),
    quoted=st.booleans(),
)
def test_every_row_is_read_or_a_line_is_named(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    header: tuple[str, str],
    delimiter: str,
    quoted: bool,
) -> None:
    """Tables as a library writes them, and as people put them together without a thought of quotes."""
    # A line of its own that holds nothing but delimiters is an empty row, as spreadsheets write them.
    named = [
        (f"{number}{stem}.mp4", label if quoted else label.replace("\n", " "))
        for number, (stem, label) in enumerate(rows)
    ]
    if quoted:
        out = io.StringIO()
        csv.writer(out, delimiter=delimiter).writerows([header, *named])
        text = out.getvalue()
    else:
        text = "\n".join(delimiter.join(row) for row in (header, *named)) + "\n"
    path = tmp_path_factory.getbasetemp() / "generated.csv"
    path.write_text(text, newline="")
    try:
        corpus = read_table(path, path.parent)
    except InputError as error:
        assert " line " in str(error) and "\n" not in str(error)
        return
    assert len(corpus.items) == len(named)
    for item, (name, label) in zip(corpus.items, named, strict=True):
        number = re.fullmatch(r"(-?\d+)(\.0+)?", label.strip())
        plain = str(int(number[1])) if number else label.strip()
        found = "" if item.label is None else corpus.classes[item.label]
        assert item.path.replace('"', "") == name.replace('"', "")
        assert found.replace('"', "").strip() == ("" if plain in ("", "-1") else plain).replace('"', "").strip()


def test_one_metadata_file_a_split(tmp_path: Path) -> None:
    for split, label in (("train", "wave"), ("validation", "wave")):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.mp4").write_text(split)
        (tmp_path / split / "metadata.csv").write_text(f"file_name,label\na.mp4,{label}\n")
    corpus = read_annotations(tmp_path)
    assert {(item.path, item.split) for item in corpus.items} == {
        ("train/a.mp4", "train"),
        ("validation/a.mp4", "val"),
    }
    assert corpus.classes == ("wave",)


def test_folders_of_mmaction2(tmp_path: Path) -> None:
    for split, name in (("train", "yoga/y"), ("val", "abseiling/z")):
        path = tmp_path / f"videos_{split}" / f"{name}.mp4"
        path.parent.mkdir(parents=True)
        path.write_text(name)
    (tmp_path / "videos_train" / "abseiling").mkdir()
    (tmp_path / "videos_train" / "abseiling" / "x.mp4").write_text("x")
    found = {(item.path, item.label, item.split) for item in read_annotations(tmp_path).items}
    expected = {
        ("videos_train/abseiling/x.mp4", 0, "train"),
        ("videos_train/yoga/y.mp4", 1, "train"),
        ("videos_val/abseiling/z.mp4", 0, "val"),
    }
    assert found == expected
    (tmp_path / "kinetics400_train_list_videos.txt").write_text("abseiling/x.mp4 0\nyoga/y.mp4 1\n")
    (tmp_path / "kinetics400_val_list_videos.txt").write_text("abseiling/z.mp4 0\n")
    assert {(item.path, item.label, item.split) for item in read_annotations(tmp_path).items} == expected


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep" / "a.mp4").write_text("a")
    (elsewhere / "deep" / "up").symlink_to(elsewhere)
    root = tmp_path / "videos"
    (root / "run").mkdir(parents=True)
    (root / "run" / "b.mp4").write_text("b")
    (root / "walk").symlink_to(elsewhere)
    assert read(root) == {"run/b.mp4": "run", "walk/deep/a.mp4": "walk/deep"}


def test_a_folder_beside_the_splits(tmp_path: Path) -> None:
    for name in ("train/swim/a", "test/swim/b", "extra/c"):
        path = tmp_path / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    with pytest.raises(InputError, match="extra: holds videos beside the splits test, train, and is none"):
        read_annotations(tmp_path)
    (tmp_path / "extra" / "c.mp4").unlink()
    assert read_annotations(tmp_path).splits == ("train", "test")


def tar(path: Path, members: dict[str, str]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))


def test_keys_labels_and_splits_of_tars(tmp_path: Path) -> None:
    tar(tmp_path / "train-000.tar", {"001.video.mp4": "a", "001.cls": "3", "v1.5_b.mp4": "b", "v1.5_b.cls": "1"})
    tar(tmp_path / "val-000.tar", {"x/c.mp4": "c", "x/c.json": json.dumps({"label": 1.0})})
    found = {(item.path.partition("::")[2], item.label, item.split) for item in read_annotations(tmp_path).items}
    assert found == {("001.video.mp4", 3, "train"), ("v1.5_b.mp4", 1, "train"), ("x/c.mp4", 1, "val")}
    for members, message in (
        ({"a.mp4": "", "a.json": '{"label": [1, 3]}'}, "val-000.tar: a.json: several labels"),
        ({"a.1.mp4": "", "a.2.mp4": "", "a.cls": "1"}, "val-000.tar: 2 videos of key 'a', which has one label"),
        ({"a.mp4": "", "a.cls": "walk"}, "val-000.tar: a.mp4: numbers and names among the labels"),
    ):
        tar(tmp_path / "val-000.tar", members)
        with pytest.raises(InputError) as caught:
            read_annotations(tmp_path)
        assert message in str(caught.value)


# ---- names of columns, several inputs, names of files


def test_columns_by_other_names(write: Callable[..., Path]) -> None:
    """Options name columns that no usual name fits, and may overrule a usual one; any character may part them."""
    path = write("x.csv", "clip,label,verb\na.mp4,1,wave\nb.mp4,2,walk\n")
    corpus = read_annotations(path, columns=Columns(path="Clip", label="verb"))
    assert [(item.path, corpus.classes[item.label or 0]) for item in corpus.items] == [
        ("a.mp4", "wave"),
        ("b.mp4", "walk"),
    ]
    path = write("y.csv", "file^person^what\na.mp4^p1^wave\nb.mp4^p2^walk\n")
    corpus = read_annotations(path, columns=Columns(label="what", group="person", delimiter="^"))
    assert [item.group for item in corpus.items] == ["p1", "p2"] and corpus.classes == ("walk", "wave")
    lines = write("z.jsonl", '{"clip": "a.mp4", "verb": "wave"}\n{"clip": "b.mp4", "verb": "walk"}\n')
    assert read_annotations(lines, columns=Columns(path="clip", label="verb")).classes == ("walk", "wave")
    with pytest.raises(
        InputError, match=r"x.csv line 1: no column 'noun' .columns.label.: there are clip, label, verb"
    ):
        read_annotations(write("x.csv", "clip,label,verb\na.mp4,1,wave\n"), columns=Columns(path="clip", label="noun"))
    with pytest.raises(InputError, match="columns.delimiter='ab': expected one character, or tab"):
        Columns(delimiter="ab")


def make(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    return root


def told(corpus: Corpus) -> Read:
    return {item.path: None if item.label is None else corpus.classes[item.label] for item in corpus.items}


def test_several_inputs_are_one_corpus(tmp_path: Path) -> None:
    make(tmp_path, "one/wave/a.mp4", "one/walk/b.mp4", "two/run/c.mp4", "two/wave/d.mp4", "e.mp4")
    (tmp_path / "two" / "labels.csv").write_text("path,label\nrun/c.mp4,run\nwave/d.mp4,wave\n")
    corpus = read_annotations([tmp_path / "one", str(tmp_path / "two" / "labels.csv"), tmp_path / "e.mp4"])
    assert corpus.classes == ("run", "walk", "wave") and corpus.root == str(tmp_path)
    assert told(corpus) == {
        "one/walk/b.mp4": "walk",
        "one/wave/a.mp4": "wave",
        "two/run/c.mp4": "run",
        "two/wave/d.mp4": "wave",
        "e.mp4": None,
    }
    assert len(read_annotations([tmp_path / "one", tmp_path / "one"]).items) == 2
    (tmp_path / "two" / "labels.csv").write_text("path,label\nrun/c.mp4,1\n")
    with pytest.raises(InputError, match="labels.csv: labels are numbers, those of .*one are names"):
        read_annotations([tmp_path / "one", tmp_path / "two"])
    with pytest.raises(InputError, match="go with one folder of videos, and there are 2 inputs"):
        read_annotations([tmp_path / "one", tmp_path / "two"], labels=tmp_path / "two")
    for nothing, message in (([], "no input"), ([""], "expected the path of a folder"), ([3], "3: expected the path")):
        with pytest.raises(InputError, match=message):
            read_annotations(nothing)  # type: ignore[arg-type]


def test_patterns(tmp_path: Path) -> None:
    make(tmp_path, "p1/cam1/wave/a.mp4", "p1/cam2/wave/b.mp4", "p2/cam1/walk/c.mp4", "p2/.old/cam1/d.mp4", "x[1]/e.mp4")
    corpus = read_annotations(str(tmp_path / "*" / "cam1"))
    assert told(corpus) == {"p1/cam1/wave/a.mp4": "wave", "p2/cam1/walk/c.mp4": "walk"}
    files = read_annotations(str(tmp_path / "**" / "*.mp4"))
    assert len(files.items) == 4 and "x[1]" in files.classes and files.form.startswith("videos by name")
    assert told(read_annotations(str(tmp_path / "x[1]"))) == {"e.mp4": None}  # a folder of that name, no pattern
    with pytest.raises(InputError, match=r"cam9: no file or folder matches"):
        read_annotations(str(tmp_path / "*" / "cam9"))


def test_names_that_are_not_text(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, and line breaks: written as escapes, and found again on the disk and in tars."""
    root = tmp_path / "videos"
    make(root, "wave/a.mp4", "walk/new\nline.mp4")
    odd = os.fsencode(root / "wave") + b"/caf\xe9.mp4"
    with open(odd, "w") as file:
        file.write("odd")
    os.mkdir(os.fsencode(root) + b"/\xff")
    with open(os.fsencode(root) + b"/\xff/b.mp4", "w") as file:
        file.write("odder")
    corpus = read_annotations(root)
    assert set(told(corpus)) == {"wave/a.mp4", "walk/new\\x0aline.mp4", "wave/caf\\xe9.mp4", "\\xff/b.mp4"}
    contents = contents_of(corpus)
    assert not [content for content in contents.values() if content.problem]
    assert contents["wave/caf\\xe9.mp4"].size == 3 and contents["\\xff/b.mp4"].size == 5
    json.dumps([item.path for item in corpus.items], ensure_ascii=False).encode()
    (root / "wave" / "caf\\xe9.mp4").write_text("of that very name")  # what is there as written comes first
    assert content_of(root, "wave/caf\\xe9.mp4").size == 17
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("caf\udce9.mp4")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"odd"))
    corpus = read_annotations(tmp_path / "a.tar")
    assert [item.path for item in corpus.items] == ["a.tar::caf\\xe9.mp4"]
    assert contents_of(corpus)["a.tar::caf\\xe9.mp4"].size == 3
