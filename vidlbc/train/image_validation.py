"""Rate and distortion of a trained image stage on whole pictures: true sizes, decoded pixels, the model as stored."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidlbc.codec.load import load
from vidlbc.errors import InputError, VidlbcError
from vidlbc.run.progress import progress_bar
from vidlbc.run.tables import format_table
from vidlbc.train.data.pictures import read_pictures
from vidlbc.train.loop import Outcome
from vidlbc.video.distortion import psnr


@dataclass(frozen=True)
class PictureRate:
    """Means over `pictures` at one QP. `bpp` counts every byte of a picture's bitstream; `bpp_estimated` ideal bits."""

    qp: int
    pictures: int
    bpp: float
    bpp_estimated: float
    psnr: float


def measure_pictures(
    model: Path, files: Sequence[Path], qps: Sequence[int], count: int, device: str = "auto"
) -> list[PictureRate]:
    """Code and decode up to `count` pictures, evenly spread over `files`, each alone.

    Raises InputError where a file cannot be read, VidlbcError where the trained prior has no exact form.
    """
    pictures = [picture for path in spread(files, count) for picture in read_pictures(path, 1)]
    if not pictures:
        raise InputError("no validation picture: expected at least one")
    try:
        codec = load(model, device, temporal="none")
    except ArithmeticError as error:
        raise VidlbcError(f"{model}: the trained prior cannot be coded exactly ({error}); lower train.lr") from None
    rates = []
    with progress_bar(desc="validate", unit="picture", total=len(qps) * len(pictures)) as meter:
        for qp in qps:
            rows = []
            for picture in pictures:
                sink = io.BytesIO()
                report = codec.compress_stream([picture[None]], sink, qp)
                decoded = codec.decompress(sink.getvalue())
                pixels = report.height * report.width
                quality = float(psnr(decoded, picture[None])[0])
                rows.append((8 * report.bytes / pixels, report.estimated_bits / pixels, quality))
                meter.update()
            bpp, estimated, quality = (float(value) for value in np.mean(rows, axis=0))
            rates.append(PictureRate(qp, len(pictures), bpp, estimated, quality))
    return rates


def spread(files: Sequence[Path], count: int) -> list[Path]:
    """Up to `count` of the files, evenly spread."""
    return [files[round(index)] for index in np.linspace(0, len(files) - 1, min(count, len(files)))]


def table(model: Path, outcome: Outcome, rates: Sequence[PictureRate]) -> str:
    """The table that ends a run."""
    title = f"image stage {model}: {outcome.steps} steps in {outcome.seconds / 60:.1f} min, {outcome.skipped} skipped"
    if not rates:
        return title
    header = ("QP", "bit/pixel", "estimated", "PSNR in dB")
    rows = [(r.qp, f"{r.bpp:.4f}", f"{r.bpp_estimated:.4f}", f"{r.psnr:.2f}") for r in rates]
    return format_table(rows, header, f"{title}\n{rates[0].pictures} validation pictures, true sizes")
