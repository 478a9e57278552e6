"""One clip on a page: source, this codec and another at the same bytes side by side, and where its bits go."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from einops import reduce

from vidlbc.codec.bitstream import inspect
from vidlbc.codec.bitstream.rates import bits_per_pixel
from vidlbc.codec.codec import Codec
from vidlbc.errors import InputError
from vidlbc.evaluate.codecs import Anchor
from vidlbc.evaluate.codecs.equal_bytes import nearest
from vidlbc.evaluate.rate_distortion.bit_maps import CELL, BitMaps, bit_maps
from vidlbc.evaluate.report.page import Page
from vidlbc.evaluate.report.player import Panel, Player
from vidlbc.video.distortion import psnr

SHOWN_FRAMES = 64
_MAP_FRAMES, _MAP_COLUMNS = 24, 160  # of the maps: what a page can carry of a long or large clip


@dataclass(frozen=True)
class ShownClip:
    """`bits`: of the bitstream; `bits_null`: of the same symbols without temporal context, None for kind `none`.

    `left_out`: why no other codec is beside, or "". `moved`: frames are predicted from moved pictures.
    """

    name: str
    player: Player
    bytes: int
    bits: BitMaps
    bits_null: BitMaps | None
    left_out: str = ""
    moved: bool = False


def show_clip(
    name: str,
    source: np.ndarray,
    fps: Fraction | float,
    codec: Codec,
    stream: bytes,
    other: Anchor | None,
    left_out: str = "",
) -> ShownClip:
    """Decode and count one clip: at most the first SHOWN_FRAMES of `source`, uint8 (T, H, W, 3).

    `stream`: a bitstream of the same frames, and maybe of more after them. `other`: codes the same frames to the bytes
    nearest to this codec's; left out where it cannot code them.
    """
    source, info = source[:SHOWN_FRAMES], inspect(stream)
    qp, (count, height, width) = info.qp, source.shape[:3]
    rate = Fraction(fps).limit_denominator(1001)
    coded = stream
    if count < info.frames and info.copies:
        # Symbols of copied blocks mean nothing without the pictures: the frames are coded again.
        variant = next((name for name in codec.variants if codec.kept(name) == info.kept), None)
        coded = codec.compress(source, qp, context=info.context, fps=rate, variant=variant, rdo=True)
    (symbols, qps), decoded = codec.decode_shown(coded)
    if count < len(decoded):
        symbols, decoded = [q[:count] for q in symbols], decoded[:count]
        coded, _ = codec.compress_symbols(
            symbols, qp, height, width, kept=info.kept, context=info.context, fps=rate, skip=info.skip
        )
    panels = [
        Panel("source", f"source, {name}", source),
        _panel(f"vidlbc {codec.kind}", f"qp {qp}", coded, decoded, source),
    ]
    if other is not None:
        try:
            quality, data = nearest(other, [source], len(coded), rate)
            beside = other.decode(data[0], height, width)
            panels.append(_panel(other.name, f"{other.scale} {quality:g}", data[0], beside, source))
        except InputError as error:
            left_out = str(error)
    null = None
    if codec.kind != "none":
        null = bit_maps(codec, codec.compress_symbols(symbols, qp, height, width, kept=info.kept, context=False)[0])
    return ShownClip(name, Player(tuple(panels), rate), len(coded), bit_maps(codec, coded), null, left_out, codec.moves)


def add_clip(page: Page, shown: ShownClip) -> None:
    """Two sections: side by side, and where the bits go."""
    page.heading("Side by side")
    page.text("Move over the picture to shift the divider. Shown through H.264 at high quality.", note=True)
    page.player(shown.player)
    if shown.left_out:
        page.text(f"No other codec beside: {shown.left_out}", note=True)
    add_bits(page, shown)


def add_bits(page: Page, shown: ShownClip) -> None:
    """Bits over time, over levels and over the picture."""
    bits, null = shown.bits, shown.bits_null
    page.heading("Where the bits go")
    share = 100 * bits.other / (8 * shown.bytes)
    page.text(
        f"{shown.name}, {len(bits.levels)} frames, {shown.bytes:,} bytes. Bits of symbols under the priors that coded "
        f"them in the file; {'vectors, flags of copied blocks, ' if shown.moved else ''}headers and checksums are the "
        f"other {share:.1f}%."
    )
    named = {"each frame alone": bits} if null is None else {"with context": bits, "without context": null}
    over_time = {name: (maps.frames / 1000).tolist() for name, maps in named.items()}
    levels = {f"stride {s}": (bits.levels[:, i] / 1000).tolist() for i, s in enumerate(bits.strides)}
    page.row(
        [
            page.series("Bits over time", over_time, "frame", "kbit", digits=2),
            page.series("Bits of each level over time", levels, "frame", "kbit", stacked=True, digits=2),
        ]
    )
    page.table(["level", *_columns(named)], _rows(bits, null))
    page.text(
        "Maps: bits of all levels at the pixels that they stand for. One scale for all; move over a map for the values "
        "of a cell.",
        note=True,
    )
    source = shown.player.panels[0].frames
    frames = np.unique(np.linspace(0, len(source) - 1, min(_MAP_FRAMES, len(source))).round().astype(int))
    pooled = -(-bits.shown.shape[2] // _MAP_COLUMNS)
    maps = {name: _pool(some.shown[frames], pooled) for name, some in named.items()}
    page.bit_maps(source[frames], frames.tolist(), maps, CELL * pooled)


def _columns(named: dict[str, BitMaps]) -> list[str]:
    return [f"kbit, {name}" for name in named] + ["share", *(["saved"] if len(named) > 1 else [])]


def _rows(bits: BitMaps, null: BitMaps | None) -> list[list[str]]:
    """A row a level, and their sum."""
    names = [*(f"stride {stride}" for stride in bits.strides), "all levels"]
    ours, total = [*bits.levels.sum(0), bits.levels.sum()], bits.levels.sum()
    rows = []
    theirs = None if null is None else [*null.levels.sum(0), null.levels.sum()]
    for i, name in enumerate(names):
        row = [name, f"{ours[i] / 1000:,.2f}"]
        if theirs is not None:
            row.append(f"{theirs[i] / 1000:,.2f}")
        row.append(f"{100 * ours[i] / total:.1f}%")
        if theirs is not None:
            row.append(f"{100 * (1 - ours[i] / theirs[i]):.1f}%" if theirs[i] > 0 else "-")
        rows.append(row)
    return rows


def _pool(cells: np.ndarray, size: int) -> np.ndarray:
    """(n, rows, columns) -> sums of size x size cells."""
    _, rows, columns = cells.shape
    padded = np.pad(cells, ((0, 0), (0, -rows % size), (0, -columns % size)))
    summed: np.ndarray = reduce(padded, "n (y r) (x s) -> n y x", "sum", r=size, s=size)
    return summed


def _panel(name: str, setting: str, coded: bytes, decoded: np.ndarray, source: np.ndarray) -> Panel:
    bpp = bits_per_pixel(len(coded), *source.shape[:3])
    quality = float(psnr(decoded, source).mean())
    return Panel(name, f"{name}, {setting}: {len(coded):,} bytes, {bpp:.4f} bit/pixel, {quality:.2f} dB", decoded)
