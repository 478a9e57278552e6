"""Annotation families, read as they are distributed; every error is one line that says where."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from vidlbc.errors import InputError
from vidlbc.shards import Corpus, Item, read_annotations, split_corpus

Files = Callable[..., Path]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """`files("a/b.mp4", "list.txt=text")` writes them under the test's folder (videos hold their own name)."""

    def write(*names: str) -> Path:
        for name in names:
            path_text, _, content = name.partition("=")
            path = tmp_path / path_text
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content if "=" in name else path_text)
        return tmp_path

    return write


def told(corpus: Corpus) -> set[tuple[str, str | None, str | None, str | None]]:
    """(path, class name, group, split) of every item."""
    return {(i.path, None if i.label is None else corpus.classes[i.label], i.group, i.split) for i in corpus.items}


# --- path label lists ---


def test_path_label_list_splits_from_the_right(files: Files) -> None:
    root = files(
        "my video 1.mp4", "b.mp4", "c.avi", "list.txt=my video 1.mp4 3\n\nb.mp4\t0\r\nc.avi -1\nsub dir/2 3.mp4\n"
    )
    corpus = read_annotations(root / "list.txt")
    assert corpus.form == "path label list" and corpus.classes == ("0", "1", "2", "3")
    assert [(i.path, i.label) for i in corpus.items] == [
        ("my video 1.mp4", 3),
        ("b.mp4", 0),
        ("c.avi", None),
        ("sub dir/2 3.mp4", None),
    ]


@pytest.mark.parametrize("line", ["a b.mp4 riding a bike", "a b.mp4::riding a bike", "a b.mp4,riding a bike"])
def test_separators_and_named_labels(files: Files, line: str) -> None:
    corpus = read_annotations(files("a b.mp4", f"list.txt={line}\n") / "list.txt")
    assert told(corpus) == {("a b.mp4", "riding a bike", None, None)}


def test_numbers_are_never_shifted(files: Files) -> None:
    """A 1-based list, or one that lacks a class, keeps its numbers: the other split's list would shift otherwise."""
    corpus = read_annotations(files("a.mp4", "list.txt=a.mp4 1\na.mp4 4\n") / "list.txt")
    assert [corpus.classes[item.label or 0] for item in corpus.items] == ["1", "4"] and len(corpus.classes) == 5


def test_class_list_beside_the_list(files: Files) -> None:
    root = files("a.mp4", "list.txt=a.mp4 1\na.mp4 walk\n", "classes.txt=run\nwalk\n")
    assert {item.label for item in read_annotations(root / "list.txt").items} == {1}
    files("list.txt=a.mp4 1\na.mp4 fly\n")
    with pytest.raises(InputError, match=r"list.txt line 2: unknown label 'fly' \(not among the 2 classes known\)"):
        read_annotations(root / "list.txt")
    files("list.txt=a.mp4 2\n")
    with pytest.raises(InputError, match=r"line 1: unknown label '2'"):
        read_annotations(root / "list.txt")


def test_one_list_a_split_in_a_folder(files: Files) -> None:
    root = files("v/a.mp4", "v/b.mp4", "train.csv=v/a.mp4 0\nv/a.mp4 1\n", "val.csv=v/b.mp4 1\n")
    assert told(read_annotations(root)) == {
        ("v/a.mp4", "0", None, "train"),
        ("v/a.mp4", "1", None, "train"),
        ("v/b.mp4", "1", None, "val"),
    }
    files("val.csv=")
    with pytest.raises(InputError, match=r"val.csv: empty list"):
        read_annotations(root)


def test_lists_apart_from_the_videos(files: Files) -> None:
    root = files("videos/a.mp4", "lists/train.txt=a.mp4 0\n")
    assert read_annotations(root / "videos", labels=root / "lists" / "train.txt").root == str(root / "videos")
    assert read_annotations(root / "videos", labels=root / "lists").splits == ("train",)
    with pytest.raises(InputError, match=r"none of its 1 files exists \(first: .*lists/a.mp4\)"):
        read_annotations(root / "lists" / "train.txt")


# --- CSV with a header ---


def test_csv_with_groups_and_splits(files: Files) -> None:
    root = files(
        "a,b.mp4",
        "c.mp4",
        'labels.csv=\ufeffPath,label,group,split\n"a,b.mp4",x,p1,training\nc.mp4,x,p2,Validation\n',
    )
    corpus = read_annotations(root)
    assert corpus.form == "path,label,group,split CSV"
    assert told(corpus) == {("a,b.mp4", "x", "p1", "train"), ("c.mp4", "x", "p2", "val")}
    assert "    0  x" in corpus.label_map() and "train     val" in corpus.label_map()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "labels.csv: empty list"),
        ("path,label\n", "labels.csv: empty list"),
        ("path,label,split\na.mp4,x,trian\n", "line 2: unknown split 'trian' (expected train, val or test)"),
        ("path,label,split\na.mp4,x,train\na.mp4,x,\n", "a.mp4 has no split while other files have one"),
        ("path,label,split\na.mp4,x,train\na.mp4,y,test\n", "label 'y' is in test but not in train (a.mp4)"),
        ("path,label\n,x\n", "line 2: no path"),
        ("path,start\na.mp4,x\n", "line 2: 'x' is not a frame number"),
        ("path,label\nb.mp4,x\n", "none of its 1 files exists"),
        ("some prose that is\nno list\n", "labels.csv: unknown form, first line 'some prose that is'"),
    ],
)
def test_csv_errors_are_one_line(files: Files, text: str, message: str) -> None:
    root = files("a.mp4", f"labels.csv={text}")
    with pytest.raises(InputError) as caught:
        read_annotations(root)
    assert message in str(caught.value) and "\n" not in str(caught.value)


# --- benchmarks ---


def test_kinetics(files: Files) -> None:
    header = "label,youtube_id,time_start,time_end,split\n"
    root = files(
        "train/riding_a_bike/-a_1_000002_000012.mp4",
        "val/clean and jerk/bbb_000000_000010.mp4",
        "val/x/ccc.mp4",
        f"train.csv={header}riding a bike,-a_1,2,12,train\nclean and jerk,gone,3,13,train\n",
        f"val.csv={header}clean and jerk,bbb,0,10,validate\nclean and jerk,ccc,0,10,validate\n",
    )
    corpus = read_annotations(root)
    assert corpus.form == "Kinetics CSV"
    assert told(corpus) == {
        ("train/riding_a_bike/-a_1_000002_000012.mp4", "riding a bike", "-a_1", "train"),
        ("clean_and_jerk/gone_000003_000013.mp4", "clean and jerk", "gone", "train"),
        ("val/clean and jerk/bbb_000000_000010.mp4", "clean and jerk", "bbb", "val"),
        ("val/x/ccc.mp4", "clean and jerk", "ccc", "val"),
    }
    files(f"train.csv={header}riding a bike,-a_1,two,12,train\n")
    with pytest.raises(InputError, match="line 2: expected youtube_id, time_start and time_end in seconds"):
        read_annotations(root)


def test_ucf101(files: Files) -> None:
    root = files(
        "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi",
        "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
        "UCF-101/Archery/v_Archery_g09_c02.avi",
        "lists/classInd.txt=1 ApplyEyeMakeup\n2 Archery\n",
        "lists/trainlist01.txt=ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\nArchery/v_Archery_g09_c02.avi 2\n",
        "lists/testlist01.txt=ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\n",
        "lists/trainlist02.txt=Archery/v_Archery_g09_c02.avi 1\n",
        "lists/testlist02.txt=Archery/v_Archery_g09_c02.avi\n",
    )
    corpus = read_annotations(root / "UCF-101", labels=root / "lists")
    assert corpus.form == "UCF101 split files" and corpus.classes == ("ApplyEyeMakeup", "Archery")
    assert told(corpus) == {
        ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", "ApplyEyeMakeup", "v_ApplyEyeMakeup_g08", "train"),
        ("Archery/v_Archery_g09_c02.avi", "Archery", "v_Archery_g09", "train"),
        ("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", "ApplyEyeMakeup", "v_ApplyEyeMakeup_g01", "test"),
    }
    only = read_annotations(root / "UCF-101", labels=root / "lists" / "testlist01.txt")
    assert only.splits == ("test",) and only.items[0].label == 0
    with pytest.raises(InputError, match="label 1 is 'ApplyEyeMakeup' in classInd.txt, the folder says 'Archery'"):
        read_annotations(root / "UCF-101", labels=root / "lists", fold=2)
    with pytest.raises(InputError, match=r"trainlist03.txt: no such split file \(folds present: 01, 02\)"):
        read_annotations(root / "UCF-101", labels=root / "lists", fold=3)


def test_hmdb51(files: Files) -> None:
    root = files(
        "hmdb/cart wheel/Pippi_cartwheel_f_0.avi",
        "hmdb/clap/Movie_clap_u_1.avi",
        "hmdb/clap/Other_clap_u_2.avi",
        "splits/cartwheel_test_split1.txt=Pippi_cartwheel_f_0.avi 1 \n",
        "splits/clap_test_split1.txt=Movie_clap_u_1.avi 1 \nOther_clap_u_2.avi 2 \nunused.avi 0 \n",
        "splits/clap_test_split2.txt=Movie_clap_u_1.avi 3 \n",
    )
    corpus = read_annotations(root / "hmdb", labels=root / "splits")
    assert corpus.form == "HMDB51 split files"
    assert told(corpus) == {
        ("cart wheel/Pippi_cartwheel_f_0.avi", "cartwheel", "Pippi", "train"),
        ("clap/Movie_clap_u_1.avi", "clap", "Movie", "train"),
        ("clap/Other_clap_u_2.avi", "clap", "Other", "test"),
    }
    with pytest.raises(InputError, match=r"clap_test_split2.txt line 1: expected 'video 0\|1\|2'"):
        read_annotations(root / "hmdb", labels=root / "splits", fold=2)


def test_something_something(files: Files) -> None:
    train = [
        {"id": "1", "template": "Holding [something]", "label": "holding a cup"},
        {"id": 2, "template": "Dropping"},
    ]
    root = files(
        "20bn/1.webm",
        "20bn/2.webm",
        "20bn/3.webm",
        "labels/something-something-v2-train.json=" + json.dumps(train),
        "labels/something-something-v2-validation.json=" + json.dumps([{"id": "3", "template": "Dropping"}]),
        "labels/something-something-v2-test.json=" + json.dumps([{"id": "3"}]),
        "labels/something-something-v2-labels.json=" + json.dumps({"Dropping": "1", "Holding something": "0"}),
    )
    corpus = read_annotations(root / "20bn", labels=root / "labels")
    assert corpus.form == "Something-Something JSON" and corpus.classes == ("Holding something", "Dropping")
    assert told(corpus) == {
        ("1.webm", "Holding something", None, "train"),
        ("2.webm", "Dropping", None, "train"),
        ("3.webm", "Dropping", None, "val"),
        ("3.webm", None, None, "test"),
    }
    files("labels/something-something-v2-validation.json=" + json.dumps([{"id": "3", "template": "Eating"}]))
    with pytest.raises(InputError, match=r"validation.json entry 0: unknown label 'Eating'"):
        read_annotations(root / "20bn", labels=root / "labels")


def test_jester(files: Files) -> None:
    root = files(
        "v/10.webm",
        "v/11.webm",
        "v/12.webm",
        "l/jester-v1-train.csv=10;Swiping Left\n",
        "l/jester-v1-validation.csv=11;Swiping Left\n",
        "l/jester-v1-test.csv=12\n",
        "l/jester-v1-labels.csv=Doing other things\nSwiping Left\n",
    )
    corpus = read_annotations(root / "v", labels=root / "l")
    assert corpus.form == "Jester CSV" and corpus.classes == ("Doing other things", "Swiping Left")
    assert told(corpus) == {
        ("10.webm", "Swiping Left", None, "train"),
        ("11.webm", "Swiping Left", None, "val"),
        ("12.webm", None, None, "test"),
    }


# --- folders, tars, single videos ---


def test_split_class_folders(files: Files) -> None:
    corpus = read_annotations(
        files("train/b/1.mp4", "train/a/2.mp4", "testing/a/3.mp4", "notes.md=x", ".cache/x/y.mp4")
    )
    assert corpus.form == "root/split/class/video folders" and corpus.classes == ("a", "b")
    assert told(corpus) == {
        ("train/b/1.mp4", "b", None, "train"),
        ("train/a/2.mp4", "a", None, "train"),
        ("testing/a/3.mp4", "a", None, "test"),
    }


def test_split_without_files_and_label_only_in_test(files: Files, tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    with pytest.raises(InputError, match=r"/val: split 'val' has no files"):
        read_annotations(files("train/a/1.mp4"))
    with pytest.raises(InputError, match=r"label 'b' is in val but not in train \(val/b/2.mp4\)"):
        read_annotations(files("val/b/2.mp4"))
    (tmp_path / "val" / "b").rename(tmp_path / "val" / "a")
    with pytest.raises(InputError, match=r"split 'test' has no files \(splits found: train, val\)"):
        read_annotations(tmp_path).require("train", "test")


def test_class_folders_and_flat_folders(files: Files, tmp_path: Path) -> None:
    assert told(read_annotations(files("x/a/1.mp4", "x/b/2.mp4", "x/b/readme.txt=no") / "x")) == {
        ("a/1.mp4", "a", None, None),
        ("b/2.mp4", "b", None, None),
    }
    flat = files("y/1.mp4", "y/2.264", "y/picture.png") / "y"
    (flat / "junk").write_bytes(b"\x00\x01G")
    corpus = read_annotations(flat)
    assert (corpus.form, corpus.classes) == ("flat folder", ()) and len(corpus.items) == 3
    assert "3 videos, no labels" in corpus.label_map()


def test_nothing_there(files: Files, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such file or folder \(expected a folder of videos"):
        read_annotations(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no videos \(the folder is empty\)"):
        read_annotations(tmp_path)
    with pytest.raises(InputError, match=r"no videos \(it holds 2 '\.png' files; expected"):
        read_annotations(files("p/1.png", "p/2.png") / "p")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"bytes.txt: not a text list \(byte 0 is not UTF-8\)"):
        read_annotations(tmp_path / "bytes.txt")
    with pytest.raises(InputError, match=r"picture.png: not a folder, a list"):
        read_annotations(files("picture.png") / "picture.png")
    with pytest.raises(InputError, match=r"bad.json: not JSON"):
        read_annotations(files("bad.json={") / "bad.json")


def test_one_video(files: Files) -> None:
    assert read_annotations(files("a b.mp4") / "a b.mp4").items == (Item("a b.mp4"),)


def test_webdataset_tars(tmp_path: Path) -> None:
    for split, names in (("train", ("k1", "k2")), ("val", ("k3",))):
        (tmp_path / split).mkdir()
        with tarfile.open(tmp_path / split / "00000.tar", "w") as tar:
            for name in names:
                meta = json.dumps({"label": "run" if name == "k2" else "walk"}).encode()
                for suffix, data in ((".mp4", b"video"), (".json", meta), (".txt", b"caption")):
                    info = tarfile.TarInfo(f"{name}{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    corpus = read_annotations(tmp_path)
    assert corpus.form == "WebDataset tars"
    assert told(corpus) == {
        ("train/00000.tar::k1.mp4", "walk", None, "train"),
        ("train/00000.tar::k2.mp4", "run", None, "train"),
        ("val/00000.tar::k3.mp4", "walk", None, "val"),
    }
    (tmp_path / "bad.tar").write_bytes(b"x" * 2000)
    with pytest.raises(InputError, match="bad.tar: damaged tar"):
        read_annotations(tmp_path / "bad.tar")


def test_archives_beside_loose_videos_are_left_alone(files: Files, tmp_path: Path) -> None:
    root = files("a/1.mp4", "shards/manifest/plan.json={}")
    for name in ("a.tar", "shards/00000.tar"):
        (tmp_path / name).write_bytes(b"")
    assert [item.path for item in read_annotations(root).items] == ["a/1.mp4"]
    (tmp_path / "a.tar").unlink()
    (tmp_path / "a" / "1.mp4").unlink()
    with pytest.raises(InputError, match="no videos"):
        read_annotations(root)


def test_real_annotations(shared_data: Path) -> None:
    actions = read_annotations(shared_data / "actions")
    assert Counter(item.split for item in actions.items) == {"train": 280, "val": 55, "test": 127}
    assert len(actions.classes) == 17 and actions.splits == ("train", "val", "test")
    coarse = read_annotations(shared_data / "actions" / "labels_coarse.csv")
    assert len(coarse.classes) == 10 and len(coarse.items) == 462
    assert len(read_annotations(shared_data / "hostile").items) == 86
    assert read_annotations(shared_data / "clips").classes == ()


# --- splits for corpora without one ---


def corpus_of(root: Path, items: list[tuple[str, str, str | None]]) -> Corpus:
    """(content, class, group) of every file."""
    lines = ["path,label,group"]
    for number, (content, label, group) in enumerate(items):
        (root / f"{number}.mp4").write_text(content)
        lines.append(f"{number}.mp4,{label},{group or ''}")
    (root / "labels.csv").write_text("\n".join(lines))
    return read_annotations(root)


def test_split_by_group_or_content(tmp_path: Path) -> None:
    items = [(f"content {n if n % 7 else 0}", "ab"[n % 2], f"g{n // 4}" if n < 40 else None) for n in range(80)]
    corpus = corpus_of(tmp_path, items)
    split = split_corpus(corpus, test=0.25, val=0.1)
    assert split == split_corpus(corpus, test=0.25, val=0.1) != split_corpus(corpus, test=0.25, val=0.1, seed=1)
    counts = Counter(item.split for item in split.items)
    assert 14 <= counts["test"] <= 26 and 5 <= counts["val"] <= 12
    for tie in range(2):
        sides: dict[str, set[str | None]] = {}
        for item, (content, _, group) in zip(split.items, items, strict=True):
            key = content if tie else group
            if key:
                sides.setdefault(key, set()).add(item.split)
        assert all(len(side) == 1 for side in sides.values())
    assert {i.label for i in split.items if i.split == "test"} <= {i.label for i in split.items if i.split == "train"}
    renamed = corpus_of(tmp_path, items[::-1])
    again = split_corpus(renamed, test=0.25, val=0.1)
    assert [item.split for item in again.items] == [item.split for item in split.items][::-1]


def test_split_that_cannot_be(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, [("x", "a", "g"), ("y", "a", "g")])
    with pytest.raises(
        InputError, match="cannot hold out a test split: each of its 1 groups holds all items of a class"
    ):
        split_corpus(corpus)
    with pytest.raises(InputError, match="expected each in"):
        split_corpus(corpus, test=1.5)
    with pytest.raises(InputError, match=r"already split \(train\)"):
        split_corpus(Corpus((Item("a", split="train"),), (), "", "", "x"))
