"""Media of equal bytes: the first encoder at a QP, and every other codec at the setting that comes nearest to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidlbc.codec.load import load
from vidlbc.errors import VidlbcError
from vidlbc.evaluate.codecs import Anchor, Jpeg, VideoCodec
from vidlbc.evaluate.codecs.equal_bytes import X264_FPS, nearest
from vidlbc.evaluate.codecs.ours import Vidlbc
from vidlbc.experiments.machine_perception.encoder import HeadSettings
from vidlbc.experiments.machine_perception.media import Medium, code_medium, pictures, stored_sizes
from vidlbc.run.atomic_files import write_atomic

_MEASURED = 8  # test clips whose PSNR is taken


class OutOfReach(VidlbcError):
    """A codec has no quality near the bytes wanted."""


def matched(anchor: Anchor, clips: Sequence[np.ndarray], target: int) -> float:
    """The quality at which the clips' bytes are nearest to `target`.

    Raises OutOfReach where even the ends of the scale are more than twice too large or too small.
    """
    quality, files = nearest(anchor, clips, target, X264_FPS, tolerance=0)
    size = sum(map(len, files))
    if not target / 2 <= size <= 2 * target:
        at = f"{anchor.scale} {quality:g}"
        raise OutOfReach(f"{anchor.name}: its nearest to {target} bytes are {size} at {at}; change probe.qps")
    return quality


@dataclass(frozen=True)
class Media:
    """`clips`: what is coded; `copies`: changed copies of some, to train on; `test`: indices of the test clips; `kept`:
    decoded frames that are kept of a clip; `sample`: every how many-th clip a setting is chosen on; media lie in
    out/media/qpQ/NAME."""

    out: Path
    clips: Sequence[np.ndarray]
    copies: Sequence[np.ndarray]
    test: Sequence[int]
    head: HeadSettings
    kept: int
    sample: int

    @property
    def pixels(self) -> int:
        """Of all coded frames."""
        return sum(clip.shape[0] * clip.shape[1] * clip.shape[2] for clip in self.clips)

    def first(self, name: str, qp: int) -> Medium:
        """The encoder that sets the rate, at `qp`."""
        return self._coded(self.anchor(name), qp, self.folder(name, qp))

    def like(self, name: str, first: str, qp: int) -> Medium:
        """A medium at the bytes of `first` at `qp`, coded before. Raises OutOfReach where none is near."""
        if name == "rgb":
            return pictures(name, [*self.clips, *self.copies], self.kept)
        anchor, folder = self.anchor(name), self.folder(name, qp)
        stored = folder / "setting.txt"
        if not stored.is_file():
            target = sum(stored_sizes(self.folder(first, qp))[:: self.sample])
            value = matched(anchor, self.clips[:: self.sample], target)
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(stored, f"{value!r}\n".encode())
        return self._coded(anchor, float(stored.read_text()), folder)

    def folder(self, name: str, qp: int) -> Path:
        return self.out / "media" / f"qp{qp}" / name

    def anchor(self, name: str) -> Anchor:
        """x264, jpeg, or the encoder of that name."""
        if name in ("x264", "jpeg"):
            return VideoCodec("x264", bare=False) if name == "x264" else Jpeg(shared_tables=True)
        return Vidlbc(name, load(self.out / "encoders" / name, device="cpu", temporal="none"))

    def _coded(self, anchor: Anchor, value: float, folder: Path) -> Medium:
        levels = self.head.chosen(anchor.codec.stage) if isinstance(anchor, Vidlbc) else ()
        measured = list(self.test)[:: max(1, len(self.test) // _MEASURED)]
        return code_medium(anchor, value, self.clips, self.copies, self.kept, measured, folder, levels)
