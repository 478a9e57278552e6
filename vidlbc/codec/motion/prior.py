"""How a frame's vectors are coded: pass by pass, each block from those around it that are known, and from the frame
before (merging as in HEVC, but both sides of a block are known in most passes, and networks give the probabilities).

    blocks of 16x16:  every fourth in both directions -> those in the middle of four -> ... -> every other one
    blocks of 8x8:    which blocks have vectors of their own in their parts, and those

A block's *first guess* is the median of its candidates (the vectors around it and the one at its place in the frame
before): the candidate that is least far from all others. The *second* is the next that differs. Coded are flags - not
as the first guess, nor as the second - and, where both are set, the differences to the first. Flags are symbols like
any others, 0 or 1, under a discretised logistic distribution.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.codec.entropy.distribution import Distribution
from vidlbc.codec.motion.field import LIMIT, commonest, enlarged, neighbours
from vidlbc.codec.prior.grid import Linear, snap
from vidlbc.codec.prior.topdown import QPTable

# Steps in blocks of 16x16, offsets of the pass's blocks, and where their known neighbours are.
_DIAGONAL, _ACROSS = ((-1, -1), (-1, 1), (1, -1), (1, 1)), ((-1, 0), (1, 0), (0, -1), (0, 1))
_PASSES = (
    (4, ((0, 0),), ()),
    (4, ((2, 2),), tuple((2 * y, 2 * x) for y, x in _DIAGONAL)),
    (4, ((0, 2), (2, 0)), tuple((2 * y, 2 * x) for y, x in _ACROSS)),
    (2, ((1, 1),), _DIAGONAL),
    (2, ((0, 1), (1, 0)), _ACROSS),
)
_NEIGHBOURS = 4
_CANDIDATES = _NEIGHBOURS + 1
# Of a block: candidates less the first guess, the guess, the second less the first, how many candidates agree, whether
# there is a second, which neighbours were not as guessed.
_FEATURES = 2 * _CANDIDATES + 2 + 2 + 1 + 1 + _NEIGHBOURS
_VIEW = 1.0 / 16  # vectors as networks see them: quarters of a pixel over 16, up to 64 pixels
_SYMBOLS = 4  # flag, flag, down, across
_FAR = 1 << 20
# Steps of a walk that ask for symbols: their last tensors are the distributions. And all of them.
ASKING = (*(f"large{number}" for number in range(len(_PASSES))), "split", "small")
STEPS = ("past", *(f"place{number}" for number in range(len(_PASSES))), *ASKING)

Run = Callable[..., tuple[Tensor, ...]]


class _Guess(NamedTuple):
    first: Tensor  # (B, n, 2)
    second: Tensor
    differs: Tensor  # (B, n): whether there is a second
    features: Tensor  # (B, n, _FEATURES)


class Asked(NamedTuple):
    """Distributions of the symbols of some blocks, (B, n, kinds); `quantised`: what `run` made of them, if anything."""

    mean: Tensor
    log2_scale: Tensor
    quantised: Tensor | None = None


# Codes symbols of one kind where a mask (B, n) is set, None: everywhere: (of blocks, kind, values (B, n) or None, mask)
# -> values; what they are elsewhere does not matter.
Code = Callable[[Asked, int, Tensor | None, Tensor | None], Tensor]


class Wanted(Protocol):
    """What an encoder codes, asked for pass by pass, when what each vector takes is known."""

    def large(self, here: Tensor, guess: Sequence[Tensor], asked: Asked, size: tuple[int, int]) -> Tensor:
        """Vectors (B, n, 2) of blocks of 16x16 at places `here` of so many rows and columns; `guess`: first, second,
        differs."""
        ...

    def parts(self, large: Tensor, of_split: Asked, guess: Sequence[Tensor], asked: Asked) -> tuple[Tensor, Tensor]:
        """Which blocks have vectors of their own in their parts, int32 (B, n), and those of all parts, (B, 4n, 2);
        `large`: the vectors of blocks of 16x16, (B, h, w, 2)."""
        ...


class _Given:
    """A field that is coded as it is."""

    def __init__(self, field: Tensor):
        self._field, self._large = field, commonest(field).flatten(1, 2)

    def large(self, here: Tensor, guess: Sequence[Tensor], asked: Asked, size: tuple[int, int]) -> Tensor:
        return self._large[:, here]

    def parts(self, large: Tensor, of_split: Asked, guess: Sequence[Tensor], asked: Asked) -> tuple[Tensor, Tensor]:
        return _parted(self._field, enlarged(large)).flatten(1, 2).int(), self._field.flatten(1, 2)


class Network(nn.Module):
    """Features of blocks to the distributions of their symbols."""

    def __init__(self, symbols: int, width: int, features: int = _FEATURES):
        super().__init__()
        self.enter = Linear(features, width)
        self.qp = QPTable(width)
        self.middle = Linear(width, width)
        self.head = Linear(width, 2 * symbols)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()
            self.head.bias[:symbols] = torch.tensor([0.3, 0.4, 0.0, 0.0][:symbols])
            self.head.bias[symbols:] = torch.tensor([-3.0, -3.0, 2.0, 2.0][:symbols])

    def forward(self, features: Tensor, qp: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, n, F), qp (B,) -> means and log2 scales, (B, n, symbols)."""
        x = self.enter(features) + snap(self.qp(qp))[:, None]
        x = snap(F.leaky_relu(snap(x), 0.125))
        x = snap(x + F.leaky_relu(snap(self.middle(x)), 0.125))
        mean, log2_scale = self.head(x).chunk(2, -1)
        return mean, log2_scale


class VectorPrior(nn.Module):
    """`walk` codes a field; `bits` is what it takes (training)."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.large = nn.ModuleList([Network(_SYMBOLS, width) for _ in _PASSES])
        self.split = Network(1, width)
        self.small = Network(_SYMBOLS, width)

    def walk(
        self,
        qp: Tensor,
        before: Tensor,
        code: Code,
        field: Tensor | Wanted | None = None,
        run: Run | None = None,
    ) -> Tensor:
        """Code a field, and give it, or decode it where it is None; `before`: fields of the frames before, int32
        (B, H/8, W/8, 2).

        `code` is called for one kind of symbols of one pass after another. `run(name, *tensors)` computes a step, as
        `step` does (None) or with what was quantised, a tensor, after the distributions.
        """
        run = run or self.step
        batch, rows, columns = before.shape[0], before.shape[1] // 2, before.shape[2] // 2
        wanted: Wanted | None = _Given(field) if isinstance(field, Tensor) else field
        (past,) = run("past", before)
        large = torch.zeros_like(past)
        fresh = torch.zeros(batch, rows, columns, dtype=torch.bool, device=past.device)
        for number, (places, _, _) in enumerate(passes_of(rows, columns)):
            here = places.to(past.device)
            first, second, differs, *of_pass = run(f"large{number}", qp, past, large, fresh)
            guess, asked = (first, second, differs), Asked(*of_pass)
            truth = None if wanted is None else wanted.large(here, guess, asked, (rows, columns))
            found = _code_vectors(asked, guess, code, truth, None)
            large, fresh = run(f"place{number}", large, fresh, first, second, *found)
        of_split = Asked(*run("split", qp, before, large, fresh))
        first, second, differs, *of_parts = run("small", qp, before, large)
        guess, asked = (first, second, differs), Asked(*of_parts)
        flags, truth = (None, None) if wanted is None else wanted.parts(large, of_split, guess, asked)
        split = code(of_split, 0, flags, None).bool().view_as(fresh)
        inside = enlarged(split[..., None])[..., 0].flatten(1, 2)
        found = _code_vectors(asked, guess, code, truth, inside)
        # The first guess of a part is its block's own vector: those that are not coded have it.
        return _vectors(first, second, *found).view_as(before)

    def step(self, name: str, *tensors: Tensor) -> tuple[Tensor, ...]:
        """What is computed between symbols, one of `STEPS`, as a function of tensors."""
        if name.startswith("place"):
            return self._place_step(int(name[-1]), *tensors)
        if name.startswith("large"):
            return self._large_step(int(name[-1]), *tensors)
        steps: dict[str, Callable[..., tuple[Tensor, ...]]] = {
            "past": self._past_step,
            "split": self._split_step,
            "small": self._small_step,
        }
        return steps[name](*tensors)

    def _past_step(self, before: Tensor) -> tuple[Tensor, ...]:
        return (commonest(before),)

    def _large_step(self, number: int, qp: Tensor, past: Tensor, large: Tensor, fresh: Tensor) -> tuple[Tensor, ...]:
        """Of the blocks of 16x16 of one pass; `past` (B, h, w, 2) is the field before of such blocks."""
        places = passes_of(*past.shape[1:3])[number]
        here, around, valid = (x.to(past.device) for x in places)
        own = past.flatten(1, 2)[:, here]
        near = torch.where(valid[..., None], large.flatten(1, 2)[:, around], own[:, :, None])
        guess = _guess(torch.cat([near, own[:, :, None]], 2), fresh.flatten(1, 2)[:, around] & valid)
        return (*guess[:3], *self.large[number](guess.features, qp))

    def _place_step(self, number: int, large: Tensor, fresh: Tensor, *found: Tensor) -> tuple[Tensor, ...]:
        """`large` and `fresh` with what was found of a pass: guesses, and what `_code_vectors` gives."""
        here = passes_of(*large.shape[1:3])[number][0].to(large.device)
        large = large.flatten(1, 2).index_copy(1, here, _vectors(*found)).view_as(large)
        return large, fresh.flatten(1, 2).index_copy(1, here, found[2]).view_as(fresh)

    def _split_step(self, qp: Tensor, before: Tensor, large: Tensor, fresh: Tensor) -> tuple[Tensor, ...]:
        """Of whether each block of 16x16 has vectors of its own in its parts, (B, n)."""
        mixed = _differ(before, enlarged(commonest(before)))
        was = F.max_pool2d(mixed.float()[:, None], 2)[:, 0] > 0
        flags = neighbours(fresh[..., None])[..., 0]
        candidates = torch.cat([neighbours(large), large[..., None, :]], 3).flatten(1, 2)
        own, flags, more = (x.flatten(1, 2) for x in (large, flags, was.float() + 2.0 * fresh.float()))
        features = _features(candidates, _differ(candidates, own[:, :, None]), own, own, more, flags)
        return self.split(features, qp)

    def _small_step(self, qp: Tensor, before: Tensor, large: Tensor) -> tuple[Tensor, ...]:
        """Of the parts, as if every block had its own: near each are the blocks that its corner touches, and the one
        beyond the corner."""
        whole = enlarged(large)
        near = torch.cat([_corner(large), before[..., None, :], whole[..., None, :]], 3).flatten(1, 2)
        no_flags = torch.zeros(*near.shape[:2], _NEIGHBOURS, dtype=torch.bool, device=near.device)
        guess = _guess(near, no_flags, whole.flatten(1, 2))
        return (*guess[:3], *self.small(guess.features, qp))

    def chosen(self, qp: Tensor, before: Tensor, wanted: Wanted) -> Tensor:
        """The fields that an encoder would code (training)."""

        def code(asked: Asked, kind: int, truth: Tensor | None, mask: Tensor | None) -> Tensor:
            assert truth is not None
            return truth

        return self.walk(qp, before, code, wanted)

    def bits(self, qp: Tensor, before: Tensor, field: Tensor, cost: Callable[[Tensor, Distribution], Tensor]) -> Tensor:
        """Bits of each of B fields; `cost`: of symbols under their distributions (topdown.symbol_bits)."""
        total = torch.zeros(len(field), device=field.device)

        def code(asked: Asked, kind: int, truth: Tensor | None, mask: Tensor | None) -> Tensor:
            nonlocal total
            assert truth is not None
            bits = cost(truth.float(), Distribution(asked.mean[..., kind], asked.log2_scale[..., kind]))
            total = total + (bits if mask is None else torch.where(mask, bits, 0.0)).sum(-1)
            return truth

        self.walk(qp, before, code, field)
        return total


def _code_vectors(
    asked: Asked, guess: Sequence[Tensor], code: Code, truth: Tensor | None, inside: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of blocks of a mask, None: of all: which are not as the first guess, which not as the second either, and what
    these are off the first, down and right; all (B, n). `guess`: first, second, differs."""
    first, second, differs = guess
    flags: list[Tensor | None] = [None, None]
    off: list[Tensor | None] = [None, None]
    if truth is not None:
        flags = [_differ(truth, one).int() for one in (first, second)]
        off = list((truth - first).unbind(-1))
    other = code(asked, 0, flags[0], inside).bool()
    other = other if inside is None else other & inside
    neither = other & (code(asked, 1, flags[1], other & differs).bool() | ~differs)
    down, right = (code(asked, 2 + axis, off[axis], neither) for axis in (0, 1))
    return other, neither, down, right


def _vectors(first: Tensor, second: Tensor, other: Tensor, neither: Tensor, down: Tensor, right: Tensor) -> Tensor:
    # A forged stream's vectors shall not grow from frame to frame.
    new = (first + torch.stack([down, right], -1)).clamp(-LIMIT, LIMIT)
    return torch.where(other[..., None], torch.where(neither[..., None], new, second), first)


def _guess(candidates: Tensor, fresh: Tensor, first: Tensor | None = None) -> _Guess:
    """candidates int32 (B, n, 5, 2), fresh bool (B, n, 4); `first`: where the first guess is given."""
    down, right = ((x[..., :, None] - x[..., None, :]).abs() for x in candidates.unbind(-1))
    distance = (down + right).sum(-1, dtype=torch.int32)
    # The earliest of several that are as near: which one argmin would take is not promised.
    order = torch.arange(candidates.shape[2], device=candidates.device, dtype=torch.int32)
    rank = distance.clamp_max(_FAR) * 8 + order
    if first is None:
        first = _pick(candidates, rank.argmin(-1))
    other = _differ(candidates, first[..., None, :])
    second = _pick(candidates, torch.where(other, rank, 16 * _FAR).argmin(-1))
    differs = other.any(-1)
    return _Guess(first, second, differs, _features(candidates, other, first, second - first, differs.float(), fresh))


def _features(candidates: Tensor, other: Tensor, first: Tensor, beside: Tensor, flag: Tensor, fresh: Tensor) -> Tensor:
    """What a network is told of blocks: vectors as differences to the first guess. `other`: which candidates differ
    from it, (B, n, 5); `flag`: a number of each block."""
    off = (candidates - first[..., None, :]).flatten(-2)
    vectors = torch.cat([off, first, beside], -1).float() * _VIEW
    agree = (_CANDIDATES - other.sum(-1, keepdim=True)) * 0.25
    return snap(torch.cat([vectors, agree, flag[..., None], fresh.float()], -1))


def _differ(a: Tensor, b: Tensor) -> Tensor:
    """Which vectors (..., 2) differ; `any` over two numbers would take longer."""
    down, right = (a != b).unbind(-1)
    return down | right


def _pick(candidates: Tensor, index: Tensor) -> Tensor:
    return candidates.gather(2, index[..., None, None].expand(-1, -1, 1, 2))[:, :, 0]


def _parted(field: Tensor, whole: Tensor) -> Tensor:
    """bool (B, h, w): blocks of 16x16 whose parts are not all as the whole."""
    return F.max_pool2d(_differ(field, whole).float()[:, None], 2)[:, 0] > 0


def _corner(large: Tensor) -> Tensor:
    """(B, h, w, 2) -> (B, 2h, 2w, 3, 2): of each part the blocks above or below its own, beside it, and beyond."""
    batch, rows, columns, _ = large.shape
    y, x = torch.arange(2 * rows, device=large.device), torch.arange(2 * columns, device=large.device)
    row, column = y // 2, x // 2
    over, side = (row + 2 * (y % 2) - 1).clamp(0, rows - 1), (column + 2 * (x % 2) - 1).clamp(0, columns - 1)
    pairs = ((over, column), (row, side), (over, side))
    return torch.stack([large[:, a[:, None], b] for a, b in pairs], 3)


def passes_of(rows: int, columns: int) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
    """Of each pass: places of its blocks (n,), those of their four neighbours (n, 4), and which of these there are."""
    # While a graph is traced sizes are tensors, which no cache finds: each of its calls would compute all places anew.
    return _passes_of(int(rows), int(columns))


@lru_cache(maxsize=8)  # of the latest sizes: a stream costs nothing to forge, and each may have another
def _passes_of(rows: int, columns: int) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
    return tuple(_places(rows, columns, *one) for one in _PASSES)


def _places(
    rows: int, columns: int, step: int, offsets: Sequence[tuple[int, int]], around: Sequence[tuple[int, int]]
) -> tuple[Tensor, Tensor, Tensor]:
    down, right = torch.arange(rows), torch.arange(columns)
    y, x = torch.cat([torch.cartesian_prod(down[top::step], right[left::step]) for top, left in offsets]).unbind(-1)
    near = torch.zeros(len(y), _NEIGHBOURS, dtype=torch.long)
    valid = torch.zeros(len(y), _NEIGHBOURS, dtype=torch.bool)
    for k, (dy, dx) in enumerate(around):
        row, column = _across(y, dy, rows), _across(x, dx, columns)
        valid[:, k] = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        near[:, k] = torch.where(valid[:, k], row * columns + column, 0)
    return y * columns + x, near, valid


def _across(place: Tensor, step: int, count: int) -> Tensor:
    """A neighbour's place; past a border that of the one across, which may be none either."""
    there = place + step
    return torch.where((there >= 0) & (there < count), there, place - step)
