"""A codec from a model folder, or from a model that is shipped."""

from pathlib import Path

from vidlbc.codec import models
from vidlbc.codec.codec import MAX_PIXELS, Codec
from vidlbc.codec.inputs import check_motion_options
from vidlbc.codec.moved_codec import MovedCodec
from vidlbc.codec.temporal_stage import MovedStage
from vidlbc.errors import InputError, check_switch


def load(
    name: str | Path = "default",
    device: str = "auto",
    temporal: str | None = None,
    precision: str = "fp32",
    refine: bool | None = None,
    max_pixels: int = MAX_PIXELS,
    effort: str = "default",
    keyint: int = 0,
) -> Codec:
    """Load a codec: a shipped name or a model folder. `temporal`: kind to use, by default the model's own.

    `refine`: `decompress` gives pictures that are refined from those before them: the reference pictures of a kind that
    predicts from moved ones, else those of vidlbc.codec.refinement; the bytes stay the same. False: pictures of the
    image stage alone. None: reference pictures of streams whose blocks may be copied, which symbols alone do not show.
    `max_pixels`: larger frames, padded, are not decoded; it bounds time and memory of a frame, whatever a forged header
    says.
    `effort`: of encoding's search for motion, and for symbols (vidlbc.codec.coding.refining), fast, default or best;
    without effect on kinds that have none. `keyint`: frames from one key frame to the next, where decoding may begin,
    0: only where the past is of no use; of kinds that predict from moved pictures.
    Raises InputError where there is no such model, kind, device, precision or effort, no video decoder to refine with,
    `refine` is none of the three, `max_pixels` is below 1, or `keyint` is below 0 or set for a kind without key frames.
    """
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 1:
        raise InputError(f"max_pixels={max_pixels}: expected at least 1")
    check_motion_options(effort, keyint)
    check_switch("refine", refine)
    folder = models.find_model(str(name))
    image = models.load_image_stage(folder / "image_stage")
    kind = temporal or models.default_kind(folder)
    if kind not in (kinds := models.kinds_of(folder)):
        raise InputError(f"model {name} has no temporal stage {kind!r}: it has {', '.join(kinds)}")
    path = folder / "temporal" / kind
    stage, digest = models.no_context(image) if kind == "none" else models.load_temporal(path, image)
    if isinstance(stage, MovedStage):
        return MovedCodec(image, stage, digest, device, precision, effort, keyint, refine, max_pixels)
    if keyint:
        raise InputError(f"keyint={keyint}: temporal stage {kind!r} of model {name} has no key frames, expected 0")
    decoder = models.load_video_decoder(folder, image) if refine else None
    return Codec(image, stage, digest, device, precision, decoder, max_pixels)
