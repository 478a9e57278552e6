"""Vectors and moved pictures of docs/bitstream.md in numpy: for `reference_moved`.

Blocks are taken one by one, pixels in whole numbers. As in `reference_priors`, sums of products must come out as
float32 numbers, their inputs lie on the grid, and all else is one float32 operation after another.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.codec.reference_priors import F, Network, fold, snap, unfold
from tests.codec.reference_stream import Array, RangeDecoder

LIMIT = 2**14 - 1
TAPS = np.array(
    [
        [0, 0, 0, 64, 0, 0, 0, 0],
        [-1, 4, -10, 58, 17, -5, 1, 0],
        [-1, 4, -11, 40, 40, -11, 4, -1],
        [0, 1, -5, 17, 58, -10, 4, -1],
    ]
)


def leaky(x: Array, slope: float) -> Array:
    return np.where(x < 0, x * F(slope), x)


def clipped(place: Any, count: int) -> Any:
    return np.clip(place, 0, count - 1)


# -- vectors -----------------------------------------------------------------------------------------------------------


def commonest(field: Array) -> Array:
    """(h, w, 2) -> (h/2, w/2, 2): of four vectors the one that most of them equal, the first of those."""
    out = np.zeros((field.shape[0] // 2, field.shape[1] // 2, 2), np.int64)
    for y, x in np.ndindex(*out.shape[:2]):
        four = [tuple(v) for v in field[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(4, 2)]
        out[y, x] = max(four, key=four.count)  # Python's max is the first of several
    return out


def enlarged(x: Array) -> Array:
    return x.repeat(2, 0).repeat(2, 1)


DIAGONAL, ACROSS = [(-1, -1), (-1, 1), (1, -1), (1, 1)], [(-1, 0), (1, 0), (0, -1), (0, 1)]
PASSES: list[tuple[int, list[tuple[int, int]], list[tuple[int, int]], int]] = [
    (4, [(0, 0)], [], 0),
    (4, [(2, 2)], DIAGONAL, 2),
    (4, [(0, 2), (2, 0)], ACROSS, 2),
    (2, [(1, 1)], DIAGONAL, 1),
    (2, [(0, 1), (1, 0)], ACROSS, 1),
]


def across_border(y: int, x: int, dy: int, dx: int, rows: int, columns: int) -> tuple[int, int] | None:
    """A neighbour's place; past a border that of the one across, None where it is none either."""
    if dy == dx == 0:
        return None
    y = y + dy if 0 <= y + dy < rows else y - dy
    x = x + dx if 0 <= x + dx < columns else x - dx
    return (y, x) if 0 <= y < rows and 0 <= x < columns else None


def blocks_of(step: int, offsets: list[tuple[int, int]], rows: int, columns: int) -> list[tuple[int, int]]:
    """Of one pass, in their order."""
    return [(y, x) for top, left in offsets for y in range(top, rows, step) for x in range(left, columns, step)]


def distributions(net: Network, name: str, features: Array, qp: int, count: int) -> tuple[Array, Array]:
    """Means and scales of the symbols of blocks, (n, count)."""
    at_qp = snap(net.qp_vector(f"{name}.qp.anchors", qp))
    x = snap(leaky(snap(net.linear(f"{name}.enter", snap(features)) + at_qp), 1 / 8))
    x = snap(x + leaky(snap(net.linear(f"{name}.middle", x)), 1 / 8))
    head = net.linear(f"{name}.head", x)
    return head[:, :count], head[:, count:]


def moved_cells(x: Array, vectors: Array, stride: int) -> Array:
    out = np.zeros_like(x)
    for y, c in np.ndindex(*x.shape[:2]):
        down, across = ((int(v) + 2 * stride) // (4 * stride) for v in vectors[y, c])
        out[y, c] = x[clipped(y + down, x.shape[0]), clipped(c + across, x.shape[1])]
    return out


def copied_blocks(net: Network, qp: int, decoder: RangeDecoder, before: Array, field: Array) -> Array:
    """Flags of one frame, bool (h, w), from the range decoder."""
    own = commonest(field)
    (rows, columns), was = before.shape, moved_cells(before, own, 16)
    mixed = (field != enlarged(own)).any(-1)
    known: dict[tuple[int, int], bool] = {}
    for number, (step, offsets, around, reach) in enumerate(PASSES):
        features, blocks = [], blocks_of(step, offsets, rows, columns)
        for y, x in blocks:
            beside = [(clipped(y + dy, rows), clipped(x + dx, columns)) for dy, dx in ACROSS]
            vector = own[y, x]
            near = [F(0)] * 4
            for k, (dy, dx) in enumerate(around):
                there = across_border(y, x, dy * reach, dx * reach, rows, columns)
                near[k] = F(0) if there is None else F(2 * known[there] - 1)
            features.append(
                [was[y, x], *[was[b] for b in beside], mixed[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].any()]
                + [(own[b] != vector).any() for b in beside]
                + [vector[0] % 4 != 0, vector[1] % 4 != 0, min(256, np.abs(vector).sum()) / 64, *near]
            )
        table = np.array(features, F).reshape(-1, 17)
        mean, scale = distributions(net, f"motion.copies.passes.{number}", table, qp, 1)
        found = decoder.level(mean[:, 0], scale[:, 0], 0) != 0
        known |= dict(zip(blocks, (bool(flag) for flag in found), strict=True))
    return np.array([[known[y, x] for x in range(columns)] for y in range(rows)])


class Vectors:
    """The field of one frame, from the range decoder."""

    def __init__(self, net: Network, qp: int, decoder: RangeDecoder, before: Array):
        self.net, self.qp, self.decoder, self.before = net, qp, decoder, before
        self.past = commonest(before)
        self.large = np.zeros_like(self.past)
        self.fresh = np.zeros(self.past.shape[:2], bool)

    def field(self) -> Array:
        for number, one in enumerate(PASSES):
            self.large_blocks(number, *one)
        return self.small_blocks()

    def large_blocks(
        self, number: int, step: int, offsets: list[tuple[int, int]], around: list[tuple[int, int]], reach: int
    ) -> None:
        blocks = blocks_of(step, offsets, *self.fresh.shape)
        candidates, flags = [], []
        for y, x in blocks:
            own, near, fresh = self.past[y, x], [], []
            for dy, dx in around + [(0, 0)] * (4 - len(around)):
                there = across_border(y, x, dy * reach, dx * reach, *self.fresh.shape)
                near.append(own if there is None else self.large[there])
                fresh.append(False if there is None else bool(self.fresh[there]))
            candidates.append([*near, own])
            flags.append(fresh)
        vectors, other = self.coded(f"large.{number}", candidates, flags, None)
        for place, vector, flag in zip(blocks, vectors, other, strict=True):
            self.large[place], self.fresh[place] = vector, flag

    def small_blocks(self) -> Array:
        rows, columns = self.fresh.shape
        whole = enlarged(self.large)
        mixed = (self.before != enlarged(self.past)).any(-1)
        features = []
        for y, x in np.ndindex(rows, columns):
            beside = [(clipped(y + dy, rows), clipped(x + dx, columns)) for dy, dx in ACROSS]
            more = F(mixed[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].any()) + F(2) * F(self.fresh[y, x])
            candidates = [*[self.large[b] for b in beside], self.large[y, x]]
            first = self.large[y, x]
            features.append(described(candidates, first, first, more, [self.fresh[b] for b in beside]))
        mean, scale = distributions(self.net, "motion.vectors.split", np.array(features), self.qp, 1)
        parted = self.decoder.level(mean[:, 0], scale[:, 0], 0).reshape(rows, columns) != 0
        candidates, places = [], []
        for y, x in np.ndindex(2 * rows, 2 * columns):
            if parted[y // 2, x // 2]:
                over, side = clipped(y // 2 + 2 * (y % 2) - 1, rows), clipped(x // 2 + 2 * (x % 2) - 1, columns)
                outer = [self.large[over, x // 2], self.large[y // 2, side], self.large[over, side]]
                candidates.append([*outer, self.before[y, x], whole[y, x]])
                places.append((y, x))
        firsts = [whole[place] for place in places]
        vectors, _ = self.coded("small", candidates, [[False] * 4] * len(places), firsts)
        for place, vector in zip(places, vectors, strict=True):
            whole[place] = vector
        return whole

    def coded(
        self, network: str, candidates: list[Any], fresh: list[list[bool]], firsts: list[Array] | None
    ) -> tuple[list[Array], Array]:
        """Vectors of blocks, and whether each is not as its first guess."""
        guesses, features = [], []
        for i, five in enumerate(candidates):
            distance = [int(sum(np.abs(a - b).sum() for b in five)) for a in five]
            order = sorted(range(5), key=lambda k: (distance[k], k))  # noqa: B023  # used at once
            first = five[order[0]] if firsts is None else firsts[i]
            others = [five[k] for k in order if (five[k] != first).any()]
            second = others[0] if others else first
            guesses.append((first, second, bool(others)))
            features.append(described(five, first, second - first, F(bool(others)), fresh[i]))
        mean, scale = distributions(
            self.net, f"motion.vectors.{network}", np.array(features, F).reshape(-1, 20), self.qp, 4
        )

        def symbols(which: int, mask: Array) -> Array:
            out = np.zeros(len(mask), np.int64)
            out[mask] = self.decoder.level(mean[mask, which], scale[mask, which], 0)
            return out

        differs = np.array([g[2] for g in guesses], bool)
        other = symbols(0, np.ones(len(guesses), bool)) != 0
        neither = (symbols(1, other & differs) != 0) | (other & ~differs)
        off = np.stack([symbols(2, neither), symbols(3, neither)], -1)
        vectors = []
        for (first, second, _), is_other, is_new, by in zip(guesses, other, neither, off, strict=True):
            vectors.append(np.clip(first + by, -LIMIT, LIMIT) if is_new else second if is_other else first)
        return vectors, other


def described(candidates: list[Array], first: Array, beside: Array, more: Any, fresh: list[Any]) -> Array:
    """The 20 features of a block."""
    off = np.concatenate([candidate - first for candidate in candidates])
    same = sum((candidate == first).all() for candidate in candidates)
    return F(np.concatenate([off / 16, first / 16, beside / 16, [same / 4], [more], fresh]))


# -- pictures ----------------------------------------------------------------------------------------------------------


def moved_picture(reference: Array, field: Array, overlap: bool) -> Array:
    """uint8 (H, W, 3) -> float32."""
    own = moved_alone(reference, field)
    if not overlap:
        return own
    rows, columns = (np.arange(n) for n in field.shape[:2])
    beside = {
        "above": field[np.maximum(rows - 1, 0)],
        "below": field[np.minimum(rows + 1, rows[-1])],
        "left": field[:, np.maximum(columns - 1, 0)],
        "right": field[:, np.minimum(columns + 1, columns[-1])],
    }
    pictures = {name: moved_alone(reference, vectors) for name, vectors in beside.items()}
    out = np.zeros_like(own)
    for i, j in np.ndindex(*own.shape[:2]):
        y, x = (min(k % 8, 7 - k % 8) for k in (i, j))  # from the nearer edges
        down = pictures["above" if i % 8 < 4 else "below"][i, j]
        across = pictures["left" if j % 8 < 4 else "right"][i, j]
        a, b = EIGHTHS_DOWN[y][x], EIGHTHS_ACROSS[y][x]
        out[i, j] = (own[i, j] * F(8 - a - b) + down * F(a) + across * F(b)) / F(8)
    return snap(out)


EIGHTHS_DOWN = ((2, 2, 2, 2), (1, 1, 2, 2), (1, 1, 1, 1), (1, 1, 1, 1))
EIGHTHS_ACROSS = ((2, 1, 1, 1), (2, 2, 1, 1), (2, 2, 1, 1), (2, 2, 1, 1))


def moved_alone(reference: Array, field: Array) -> Array:
    """Each block by its own vector alone."""
    height, width, _ = reference.shape
    sums = np.zeros(reference.shape, np.int64)
    for y, x in np.ndindex(*field.shape[:2]):
        down, across = (int(v) for v in field[y, x])
        rows = clipped(8 * y + down // 4 - 3 + np.arange(15), height)
        columns = clipped(8 * x + across // 4 - 3 + np.arange(15), width)
        around = reference[rows[:, None], columns].astype(np.int64)
        lower = sum(TAPS[down % 4][k] * around[k : k + 8] for k in range(8))
        both = sum(TAPS[across % 4][k] * lower[:, k : k + 8] for k in range(8))
        sums[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = both
    return snap(F(np.clip(sums, 0, 255 * 4096)) * F(16 / (255 * 4096)) - F(8))


def picture_blocks(net: Network, name: str, x: Array) -> Array:
    i = 0
    while f"{name}.{i}.expand.weight" in net.w:
        y = net.linear(f"{name}.{i}.expand", snap(net.depthwise(f"{name}.{i}.depthwise", x)))
        x = snap(x + net.linear(f"{name}.{i}.reduce", snap(leaky(y, 0.1))))
        i += 1
    return x


def reference_picture(net: Network, qp: int, latents: list[Array], moved: Array | None) -> Array:
    """uint8 (H, W, 3)."""

    def modulated(x: Array, table: str) -> Array:
        return snap(x * (F(1) + snap(net.qp_vector(f"motion.synthesis.{table}.anchors", qp))))

    name, x, up = "motion.synthesis", None, np.zeros(0)
    for i in reversed(range(4)):
        lifted = net.linear(f"{name}.lift.{i}", latents[i])
        x = snap(lifted if x is None else lifted + x)
        x = picture_blocks(net, f"{name}.decode.{i}", modulated(x, f"modulate.{i}"))
        up = net.linear(f"{name}.up.{i}", x)
        if i:
            x = fold(up, 2)
    picture = snap(up)
    if moved is not None:
        before = unfold(moved, 4)
        joined = np.concatenate([x, picture, snap(before - picture)], -1)
        y = modulated(snap(net.linear(f"{name}.enter", joined)), "trust")
        picture = snap(picture + net.linear(f"{name}.leave", picture_blocks(net, f"{name}.fuse", y)))
    return np.clip(np.rint(fold(picture, 4) * F(255 / 16) + F(127.5)), 0, 255).astype(np.uint8)


def analysed(net: Network, x: Array) -> tuple[list[Array], list[Array]]:
    """Predicted latents and features of every level."""
    latents, features = [], []
    for i, ratio in enumerate((4, 2, 2, 2)):
        x = snap(net.linear(f"motion.analysis.down.{i}", unfold(x, ratio)))
        x = picture_blocks(net, f"motion.analysis.encode.{i}", x)
        features.append(x)
        latents.append(snap(net.linear(f"motion.analysis.project.{i}", x)))
    return latents, features
