"""This package's codecs in a comparison, by name: KIND[+refine][@MODEL][-rdo], as `none` or `transformer@large-rdo`."""

from collections.abc import Sequence
from itertools import chain

from vidlbc.codec import Codec, load
from vidlbc.errors import InputError
from vidlbc.evaluation.rate_distortion import RDO
from vidlbc.models import find_model, kinds_of

REFINED = "+refine"


def load_codecs(
    models: Sequence[str], kinds: Sequence[str] | None, device: str, precision: str, rdo: bool
) -> tuple[dict[str, Codec], dict[str, str]]:
    """Codecs by name, and why those that a model lacks are left out: {name: why}.

    `kinds`: KIND or KIND+refine; None: all that each model has. The first model's names are the kinds alone, the others
    end in @ and the name of the model's folder. `rdo`: also each that sees the past with symbols chosen for rate and
    distortion. Raises InputError for a model or a kind that is not there, or for two models of one name.
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
        for wanted in known if kinds is None else kinds:
            kind, called = wanted.removesuffix(REFINED), wanted if number == 0 else f"{wanted}@{name}"
            refine = True if kind != wanted else None
            # What no model has is an error, and so is what the only one lacks: `load` says it.
            if len(folders) > 1 and kind in there and kind not in known:
                left_out[called] = f"model {folder} has no temporal stage {kind}"
            else:
                try:
                    plain[called] = load(str(folder), device, kind, precision, refine=refine)
                except InputError as error:
                    # A model that has the kind may still have nothing that refines its pictures.
                    if len(folders) == 1 or not refine:
                        raise
                    left_out[called] = str(error)
    chosen = {f"{name}{RDO}": codec for name, codec in plain.items() if rdo and codec.sees_past}
    return plain | chosen, left_out
