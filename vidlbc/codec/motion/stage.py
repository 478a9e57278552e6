"""What a temporal stage that predicts from moved pictures has beside its prior."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from vidlbc.codec.image_stage import ImageStage
from vidlbc.codec.image_stage.blocks import DepthwiseBlock
from vidlbc.codec.image_stage.lbc import LBC, STRIDES
from vidlbc.codec.motion.copies import CopyPrior
from vidlbc.codec.motion.networks import PredictionAnalysis, ReferenceSynthesis, take_over
from vidlbc.codec.motion.prior import VectorPrior
from vidlbc.codec.motion.warp import moved
from vidlbc.codec.prior.topdown import Level


class Prediction(NamedTuple):
    """Of frames: latents that the moved picture has, and features; fine to coarse, (B, H_l, W_l, C) each.

    `copied`: flags of their blocks, bool (B, H/16, W/16); None where no block is, or a stage has no such blocks."""

    latents: list[Tensor]
    features: list[Tensor]
    copied: Tensor | None = None


class MotionStage(nn.Module):
    """`synthesis`: latents to a reference picture; `analysis`: a moved picture to a prediction; `vectors`: their
    prior; `copies`: that of blocks that are not coded, None where all are."""

    def __init__(
        self,
        levels: Sequence[Level],
        widths: Sequence[int],
        encoder_blocks: Sequence[int],
        decoder_blocks: Sequence[int],
        fusion: int = 64,
        fusion_blocks: int = 2,
        copies: bool = False,
        overlap: bool = False,
    ):
        """`copies`: whether blocks may be copied (vidlbc.codec.motion.copies); `overlap`: whether blocks of the moved
        picture do (vidlbc.codec.motion.warp). Raises ValueError where the strides are not those of the networks."""
        super().__init__()
        if tuple(level.stride for level in levels) != STRIDES:
            raise ValueError(f"motion needs levels of strides {', '.join(map(str, STRIDES))}")
        self.feature_widths = tuple(widths)
        self.synthesis = ReferenceSynthesis(levels, widths, decoder_blocks, fusion, fusion_blocks)
        self.analysis = PredictionAnalysis(levels, widths, encoder_blocks)
        self.vectors = VectorPrior()
        self.copies = CopyPrior() if copies else None
        self.overlap = overlap

    def moved(self, reference: Tensor, field: Tensor) -> Tensor:
        """What a frame with these vectors is predicted from: see vidlbc.codec.motion.warp.moved."""
        return moved(reference, field, self.overlap)

    def predict(self, moved: Tensor) -> Prediction:
        return Prediction(*self.analysis(moved))


def motion_options(stage: ImageStage) -> dict[str, Any] | None:
    """Options of a new stage: widths and blocks as of the image stage's own networks; None where it is of another
    family."""
    if not isinstance(stage, LBC):
        return None
    blocks = {"encoder_blocks": _counts(stage.encode), "decoder_blocks": _counts(stage.decode)}
    return {"widths": list(stage.widths), **blocks, "copies": True, "overlap": True}


def gives_all(stage: ImageStage) -> bool:
    """Whether `start_from` sets every layer of the networks for pictures that `motion_options` describes."""
    if not isinstance(stage, LBC):
        return False
    blocks = [block for stack in (*stage.encode, *stage.decode) for block in stack.children()]
    return all(isinstance(block, DepthwiseBlock) for block in blocks)


def start_from(motion: MotionStage, stage: ImageStage) -> None:
    """Set the networks for pictures to the image stage's own, where it has such."""
    if isinstance(stage, LBC) and tuple(stage.widths) == motion.feature_widths:
        take_over(motion.synthesis, motion.analysis, stage)


def _counts(stacks: Iterable[nn.Module]) -> list[int]:
    return [len(list(stack.children())) for stack in stacks]
