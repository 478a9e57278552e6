"""Which data set is this? Told from the folder's content, as `vidlbc.shards.read_annotations` does for videos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vidlbc.data.corpus import split_name
from vidlbc.data.picture_sets.base import PictureSet
from vidlbc.data.picture_sets.bsds import is_bsds, open_bsds
from vidlbc.data.picture_sets.cityscapes import is_cityscapes, open_cityscapes
from vidlbc.data.picture_sets.coco import is_coco, open_coco
from vidlbc.data.picture_sets.imagenet import is_imagenet, open_imagenet
from vidlbc.data.picture_sets.openimages import is_openimages, open_openimages
from vidlbc.data.picture_sets.voc import is_voc, open_voc
from vidlbc.errors import InputError

# In this order: folders of classes, which ImageNet's form is, come last.
_FORMS: dict[str, tuple[Callable[[Path], bool], Callable[[Path, str], PictureSet]]] = {
    "coco": (is_coco, open_coco),
    "openimages": (is_openimages, open_openimages),
    "cityscapes": (is_cityscapes, open_cityscapes),
    "voc": (is_voc, open_voc),
    "bsds": (is_bsds, open_bsds),
    "imagenet": (is_imagenet, open_imagenet),
}
FORMS = tuple(_FORMS)


def detect_form(root: str | Path) -> str | None:
    """The form of a folder, None where it is no picture set. Raises InputError where it is no folder."""
    folder = _folder(root)
    return next((form for form, (fits, _) in _FORMS.items() if fits(folder)), None)


def open_picture_set(root: str | Path, form: str = "auto", split: str = "train") -> PictureSet:
    """One split of the data set below `root`. `form`: one of FORMS, or `auto`.

    Raises InputError: no folder, no known form, no such split, an annotation file missing or not as expected.
    """
    folder = _folder(root)
    name = split_name(split)
    if name is None:
        raise InputError(f"split '{split}': expected train, val or test")
    if form == "auto":
        found = detect_form(folder)
        if found is None:
            raise InputError(f"{folder}: no picture set of a known form ({', '.join(FORMS)})")
        form = found
    if form not in _FORMS:
        raise InputError(f"form '{form}': expected auto, {', '.join(FORMS)}")
    return _FORMS[form][1](folder, name)


def _folder(root: str | Path) -> Path:
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder (expected a picture set)")
    return folder
