"""This package's codecs in a comparison, by name: KIND[+OPTION ...][@MODEL][-rdo], as `none` or `lstm+best@large-rdo`.

Options of vidlbc.load: refine; fast or best, the effort; keyint and a number, as keyint24.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import chain
from typing import Any

import numpy as np

from vidlbc.codec.codec import Codec
from vidlbc.codec.inputs import check_qp
from vidlbc.codec.load import load
from vidlbc.codec.models import default_kind, find_model, kinds_of
from vidlbc.codec.motion.search import EFFORTS
from vidlbc.codec.prior.topdown import NUM_QP
from vidlbc.errors import InputError
from vidlbc.evaluate.codecs.base import Anchor

# After a kind's name: its symbols were chosen for rate and distortion (vidlbc.codec.coding.rdo).
RDO = "-rdo"


class Vidlbc(Anchor):
    """A loaded codec beside others."""

    scale, suffix = "qp", ".vlbc"
    qualities = (8, 20, 32, 44, 56)
    steps = range(NUM_QP)

    def __init__(self, name: str, codec: Codec) -> None:
        self.name, self.codec, self.settings = name, codec, codec.picture_fingerprint

    def check(self, quality: float) -> None:
        if quality != int(quality):
            raise InputError(f"qp={quality}: expected an integer")
        check_qp(int(quality))

    def encode(self, frames: np.ndarray, quality: float, fps: Fraction) -> bytes:
        return self.codec.compress(frames, qp=int(quality), fps=fps)

    def decode(self, data: bytes, height: int | None = None, width: int | None = None) -> np.ndarray:
        return self.codec.decompress(data)


_KEYINT = "keyint"


def load_codecs(
    models: Sequence[str], kinds: Sequence[str] | None, device: str, precision: str, rdo: bool | None
) -> tuple[dict[str, Codec], dict[str, str]]:
    """Codecs by name, and why those that a model lacks are left out: {name: why}.

    `kinds`: KIND or KIND+OPTION; None: each model's own. The first model's names are the kinds alone, the others end
    in @ and the name of the model's folder. `rdo`: also each that sees the past with symbols chosen for rate and
    distortion; None: each as it codes where nothing is said. Raises InputError for a model or a kind that is not
    there, or for two models of one name.
    """
    folders = [find_model(model) for model in models]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise InputError(f"models {', '.join(models)}: the folders' names must differ, they name the codecs")
    own = [kinds_of(folder) for folder in folders]
    there = set(chain.from_iterable(own))
    plain: dict[str, Codec] = {}
    left_out: dict[str, str] = {}
    for number, (folder, name, known) in enumerate(zip(folders, names, own, strict=True)):
        for wanted in [default_kind(folder)] if kinds is None else kinds:
            kind, called = wanted.partition("+")[0], wanted if number == 0 else f"{wanted}@{name}"
            options = _options(wanted)
            refine = "refine" in options
            # What no model has is an error, and so is what the only one lacks: `load` says it.
            if len(folders) > 1 and kind in there and kind not in known:
                left_out[called] = f"model {folder} has no temporal stage {kind}"
            else:
                try:
                    plain[called] = load(str(folder), device, kind, precision, **options)
                except InputError as error:
                    # A model that has the kind may still have nothing that refines its pictures.
                    if len(folders) == 1 or not refine:
                        raise
                    left_out[called] = str(error)
    if rdo is None:
        return {f"{name}{RDO if codec.prefers_rdo else ''}": codec for name, codec in plain.items()}, left_out
    chosen = {f"{name}{RDO}": codec for name, codec in plain.items() if rdo and codec.sees_past}
    return plain | chosen, left_out


def _options(wanted: str) -> dict[str, Any]:
    """What `vidlbc.load` is given besides. Raises InputError."""
    options: dict[str, Any] = {}
    for option in wanted.split("+")[1:]:
        if option == "refine":
            options["refine"] = True
        elif option in EFFORTS:
            options["effort"] = option
        elif option.startswith(_KEYINT) and option[len(_KEYINT) :].isdecimal():
            options["keyint"] = int(option[len(_KEYINT) :])
        else:
            expected = f"refine, {', '.join(EFFORTS)}, or {_KEYINT} and a number, as {_KEYINT}24"
            raise InputError(f"temporal={wanted}: unknown option {option!r}, expected {expected}")
    return options
