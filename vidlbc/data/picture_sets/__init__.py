"""Picture sets: public data sets of pictures, read from the folders that they are distributed as.

    open_picture_set(root, form="auto", split="train") -> PictureSet     classes, kinds, len(), picture(i), sample(i)

Nothing is downloaded or converted.
"""

from vidlbc.data.picture_sets.base import IGNORE, Boxes, PictureSet, Sample
from vidlbc.data.picture_sets.forms import FORMS, detect_form, open_picture_set

__all__ = ["FORMS", "IGNORE", "Boxes", "PictureSet", "Sample", "detect_form", "open_picture_set"]
