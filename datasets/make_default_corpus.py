"""The list of videos that the shipped temporal stages were trained on, for `tools/pretrain_video.py data.root=LIST`.

    python datasets/make_default_corpus.py DATA LIST.csv

DATA holds `clips/` (unlabelled videos), `fights/labels.csv` and `actions/labels.csv` (path,label,group,split) and `rd/`
(test sequences); where there is `train_video/` (clips of moving cameras), its own too. Train: all clips, the fights'
train split, every fourth clip of the actions' train split, nine of ten of `train_video/`. Val: the tenth. Test: `rd/`.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

from vidlbc.data.corpus import is_video


def rows(data: Path) -> Iterator[tuple[str, str]]:
    """(path, split)."""
    for path in sorted((data / "clips").iterdir()):
        if is_video(path.name):
            yield str(path.resolve()), "train"
    moving = sorted((data / "train_video").glob("*.mp4"))
    for number, path in enumerate(moving):
        yield str(path.resolve()), "val" if number % 10 == 5 else "train"
    for name, every in (("fights", 1), ("actions", 4)):
        with open(data / name / "labels.csv", newline="") as file:
            listed = [row["path"] for row in csv.DictReader(file) if row["split"] == "train"]
        for relative in listed[::every]:
            yield str((data / name / relative).resolve()), "train"
    for path in sorted((data / "rd").iterdir()):
        if is_video(path.name):
            yield str(path.resolve()), "test"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("list", type=Path)
    arguments = parser.parse_args()
    listed = list(rows(arguments.data))
    with open(arguments.list, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "group", "split"])
        writer.writerows([path, "", "", split] for path, split in listed)
    train = sum(split == "train" for _, split in listed)
    print(f"{arguments.list}: {len(listed)} videos, {train} of them for training")


if __name__ == "__main__":
    main()
