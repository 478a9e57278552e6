"""How frames are coded: everything but the frames themselves that decides a bitstream."""

from dataclasses import dataclass
from fractions import Fraction
from typing import TypedDict

from vidlbc.codec.coding import SKIP
from vidlbc.codec.inputs import check_qp, frame_rate
from vidlbc.errors import InputError, check_switch


@dataclass(frozen=True)
class CodingOptions:
    """`context=False` codes every frame from the null context (the baseline).

    fps: frames a second, told by the header; 0: unknown. variant: one of the codec's `variants`, which codes only the
    first channels of each level. rdo: symbols are chosen for rate and distortion under this codec's priors
    (vidlbc.codec.coding.rdo): fewer bits at equal quality, slower; None: where blocks may be copied
    (vidlbc.codec.coding.copying), which no rounded symbols allow. skip: symbols whose scale index is below it are not
    coded, 0: all are; None: SKIP where symbols are chosen for rate and distortion.

    Raises InputError where qp, fps or rdo is no such thing.
    """

    qp: int = 32
    context: bool = True
    fps: float | Fraction | str | None = 0
    variant: str | None = None
    rdo: bool | None = None
    skip: int | None = None

    def __post_init__(self) -> None:
        check_switch("rdo", self.rdo)
        object.__setattr__(self, "qp", check_qp(self.qp))
        object.__setattr__(self, "fps", frame_rate(self.fps))
        if not isinstance(self.context, bool):
            raise InputError(f"context={self.context!r}: expected True or False")
        if self.skip is not None and (isinstance(self.skip, bool) or not isinstance(self.skip, int) or self.skip < 0):
            raise InputError(f"skip={self.skip!r}: expected a scale index, 0 or more, or None")

    @property
    def rate(self) -> Fraction:
        """`fps`, 0 where unknown."""
        return frame_rate(self.fps)

    @property
    def skipped(self) -> int:
        """`skip` of an encoder that has settled on `rdo`."""
        return (SKIP if self.rdo else 0) if self.skip is None else self.skip


class Options(TypedDict, total=False):
    """`CodingOptions` as keyword arguments of methods that take `qp` by itself."""

    context: bool
    fps: float | Fraction | str | None
    variant: str | None
    rdo: bool | None
    skip: int | None
