"""The loss of a temporal stage that predicts from moved pictures, in a closed loop: references are decoded pictures.

    frames --frozen image stage--> gain * y
    frame by frame: gain * y of t, rounded --synthesis--> what it looks like; it or the frame is searched for
                    in the reference of t-1
                    reference of t-1 --moved--> picture --analysis--> prediction of t
                    gain * y of t --rounded, or chosen under the priors--> symbols; some blocks are copied
                    symbols of t, moved picture --synthesis--> reference of t        error against the frame
    all frames at once: bits of symbols, of vectors and of flags of copied blocks

No gradient goes through time: each part learns from what the others make of it now. What is trained is what requires
gradients; nothing is computed for the rest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from vidlbc.codec.coding.copying import lasting, worth_copying
from vidlbc.codec.coding.rdo import Rule, choose_level
from vidlbc.codec.entropy.distribution import Distribution
from vidlbc.codec.image_stage.base import channels_last, qp_lambda
from vidlbc.codec.models import ImageModel
from vidlbc.codec.motion.choosing import Cheapest
from vidlbc.codec.motion.copies import copied_at, copied_symbols, with_copies
from vidlbc.codec.motion.search import DEFAULT, Effort, blocks_of, search
from vidlbc.codec.motion.stage import Prediction
from vidlbc.codec.motion.warp import CONTRAST, seen, shown
from vidlbc.codec.prior.topdown import NUM_QP, Gains, Level, TopDownPrior, symbol_bits
from vidlbc.codec.temporal_stage import Memory, State
from vidlbc.codec.temporal_stage.moved import MovedStage
from vidlbc.train.objectives.video import RATE_EXPONENT


@dataclass
class Walk:
    """A batch of clips, frame after frame; lists over frames. Fields, flags of copied blocks and predictions begin with
    the second frame."""

    symbols: list[list[Tensor]] = field(default_factory=list)
    references: list[Tensor] = field(default_factory=list)
    fields: list[Tensor] = field(default_factory=list)
    copies: list[Tensor] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    errors: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Measured:
    """Bits a pixel of symbols, of vectors and of flags of copied blocks of each frame but the first, (B, T-1), and how
    many blocks are copied, a share; mean squared errors of the pictures of all references, in [0, 1], (B, T)."""

    symbols: Tensor
    vectors: Tensor
    flags: Tensor
    copied: Tensor
    errors: Tensor

    @property
    def bits(self) -> Tensor:
        return self.symbols + self.vectors + self.flags


@dataclass(frozen=True)
class MotionRate:
    """Called by the loop on (frames uint8 (B, T, 3, S, S), qp (B,)); S a multiple of 32.

    `price`: of errors, where symbols of two of three steps are chosen for rate and distortion (vidlbc.codec.coding.rdo)
    and blocks copied (vidlbc.codec.coding.copying); None: all are rounded, and coded. `lifts`: QPs that first frames
    have more than those after them, in turn.
    `pictures`: weight of the references' error beside bits, where their synthesis is trained.
    """

    image: ImageModel
    bf16: bool = False
    price: float | None = None
    pictures: float = 1.0
    effort: Effort = DEFAULT
    lifts: tuple[int, ...] = (0, 6, 12)
    capturable: ClassVar[bool] = False

    def __call__(
        self, temporal: nn.Module, batch: tuple[Tensor, Tensor], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(temporal, MovedStage)
        frames, qp = batch
        qps = qp[:, None].repeat(1, frames.shape[1])
        qps[:, 0] = (qp + self.lifts[step // 3 % len(self.lifts)]).clamp_max(NUM_QP - 1)
        found = self.measure(temporal, frames, qps, self.price if step % 3 else None)
        weight = (qp_lambda(torch.tensor(32.0)) / qp_lambda(qps)) ** RATE_EXPONENT
        loss = (weight[:, 1:] * found.bits).mean()
        decibels = -10 * found.errors.detach().clamp_min(1e-9).log10()
        parts = {
            "bpp": found.bits.detach().mean(),
            "bpp_vectors": found.vectors.detach().mean(),
            "bpp_flags": found.flags.detach().mean(),
            "copied": found.copied.mean(),
            "psnr_first": decibels[:, 0].mean(),
            "psnr": decibels[:, 1:].mean(),
        }
        if found.errors.requires_grad:
            # Bits and errors as in the image stage's own loss, each QP pulling alike.
            worth = weight * qp_lambda(qps) * 255**2
            loss = loss + self.pictures * (worth * found.errors).mean()
        return loss, parts

    def bpp(self, temporal: nn.Module, frames: Tensor, qp: Tensor) -> Tensor:
        """Estimated bits a pixel of each frame but the first, (B, T-1), of frames uint8 (B, T, 3, H, W) at qp (B,)."""
        assert isinstance(temporal, MovedStage)
        height, width = frames.shape[-2:]
        rows, columns = (
            torch.arange(side + -side % self.image.stage.multiple, device=frames.device).clamp_max(side - 1)
            for side in (height, width)
        )
        whole = frames.index_select(-2, rows).index_select(-1, columns)
        found = self.measure(temporal, whole, qp)
        return found.bits * (len(rows) * len(columns) / (height * width))

    def measure(self, temporal: MovedStage, frames: Tensor, qp: Tensor, price: float | None = None) -> Measured:
        """frames uint8 (B, T, 3, H, W), sides multiples of 32; qp (B,) or of each frame (B, T).

        Symbols are chosen, and blocks copied where the stage can, at this price; None: they are rounded, and all coded.
        """
        clips, count = frames.shape[:2]
        pixels = frames.shape[-2] * frames.shape[-1]
        qps = _by_frame(qp, count)
        walk = self.walk(temporal, frames, qps, price)
        errors = torch.stack(walk.errors, 1)
        later, fields = qps[:, 1:].flatten(), torch.stack(walk.fields, 1)
        copied = torch.stack(walk.copies, 1).flatten(0, 1)
        bits = vectors = flags = torch.zeros(len(later), device=frames.device)
        motion = temporal.motion
        measures = not torch.is_grad_enabled() or not _learns(temporal.parameters())
        own = [p for name, p in temporal.named_parameters() if not name.startswith("motion.")]
        if measures or _learns(own) or _learns(motion.analysis.parameters()):
            everything = [_side_by_side([frame[i] for frame in walk.symbols]) for i in range(len(temporal.levels))]
            latents = _latents(everything, self.image.gains(qps.flatten()))
            coded = [q.unflatten(0, (clips, count))[:, 1:].flatten(0, 1) for q in everything]
            given = _joined(walk.predictions, copied)
            out = temporal.given_past(latents, later, self.image.gains(later), count, fields, given)
            each = zip(temporal.levels, coded, out, strict=True)
            bits = torch.stack([_coded_bits(q, d, copied, level) for level, q, d in each]).sum(0)
        if measures or _learns(motion.vectors.parameters()):
            bare, fields_now = torch.zeros_like(fields[:, :1]), fields.flatten(0, 1)
            before = torch.cat([bare, fields[:, :-1]], 1).flatten(0, 1)
            vectors = motion.vectors.bits(later, before, fields_now, symbol_bits)
            if motion.copies is not None and price is not None:  # else no flags are coded
                none = torch.zeros_like(walk.copies[0])
                was = torch.stack([none, *walk.copies[:-1]], 1).flatten(0, 1)
                flags = motion.copies.bits(later, was, fields_now, copied, symbol_bits)
        bits, vectors, flags = ((x / pixels).view(clips, -1) for x in (bits, vectors, flags))
        return Measured(bits, vectors, flags, copied.float().mean((1, 2)).view(clips, -1), errors)

    def walk(self, temporal: MovedStage, frames: Tensor, qp: Tensor, price: float | None = None) -> Walk:
        """As `measure`."""
        motion, walk = temporal.motion, Walk()
        qps = _by_frame(qp, frames.shape[1])
        scaled = self._scaled(frames, self.image.gains(qps.flatten()))
        pictures = frames.permute(0, 1, 3, 4, 2).contiguous()
        chooser = None if price is None else _Chooser(self.image, temporal, price)
        synthesis, analysis = _learns(motion.synthesis.parameters()), _learns(motion.analysis.parameters())
        for t in range(frames.shape[1]):
            at, wanted = qps[:, t], [y[:, t] for y in scaled]
            gains = self.image.gains(at)
            before: Tensor | None = None
            copied: Tensor | None = None
            symbols = [y.round() for y in wanted]
            with torch.set_grad_enabled(synthesis and torch.is_grad_enabled()):
                alone = motion.synthesis.alone(_latents(symbols, gains), at)
            if t:
                with torch.no_grad():
                    looks = shown(motion.synthesis.picture(alone[1].detach()))
                    last = walk.fields[-1] if walk.fields else None
                    # As an encoder does that chooses symbols and copies blocks: see vidlbc.codec.coding.moved_encoding.
                    target = looks if chooser is None else pictures[:, t]
                    field = search(target, walk.references[-1], at, last, self.effort)
                    if chooser is not None:
                        # Of rounded symbols vectors stay as found: those of a prior that has learnt little yet would be
                        # ever fewer.
                        last = torch.zeros_like(field) if last is None else last
                        blocks = blocks_of(target, walk.references[-1])
                        field = motion.vectors.chosen(at, last, Cheapest(at, field, blocks))
                    walk.fields.append(field)
                    before = motion.moved(walk.references[-1], walk.fields[-1])
                with torch.set_grad_enabled(analysis and torch.is_grad_enabled()):
                    prediction = motion.predict(before)
                copied = torch.zeros_like(walk.fields[-1][:, ::2, ::2, 0], dtype=torch.bool)
                if chooser is not None and motion.copies is not None:
                    expected = [y.detach() for y in prediction.latents]
                    lasts = lasting(walk.copies[-1] if walk.copies else copied, t == 1, walk.fields[-1])
                    copied = worth_copying(pictures[:, t], shown(before), looks, wanted, expected, gains, at, lasts)
                walk.copies.append(copied)
                walk.predictions.append(Prediction(prediction.latents, prediction.features, copied))
            with torch.set_grad_enabled(synthesis and torch.is_grad_enabled()):
                if chooser is not None:
                    given = (walk.fields[-1], walk.predictions[-1]) if t else None
                    symbols = chooser.symbols(wanted, given, at, gains)
                    alone = motion.synthesis.alone(_latents(symbols, gains), at)
                folded = alone[1] if before is None else motion.synthesis.mixed(*alone, at, before)
                picture = motion.synthesis.picture(folded)
                if before is not None and copied is not None:
                    picture = with_copies(picture, before, copied)
                walk.errors.append((picture - seen(pictures[:, t])).square().mean((1, 2, 3)) / CONTRAST**2)
            walk.symbols.append(symbols)
            walk.references.append(shown(picture.detach()))
        return walk

    @torch.no_grad()
    def _scaled(self, frames: Tensor, gains: Sequence[Gains]) -> list[Tensor]:
        """gain * y, float32 (B, T, H_l, W_l, C_l) a level, fine to coarse."""
        stage = self.image.stage
        x = (frames.flatten(0, 1).float() / 255).contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            latents = stage.analysis(x)
        split = [channels_last(y.float()).unflatten(0, (len(frames), -1)) for y in latents]
        return [y * g.gain.unflatten(0, y.shape[:2])[:, :, None, None] for y, g in zip(split, gains, strict=True)]


class _Chooser:
    """Symbols for rate and distortion under the stage as it is now, frame by frame: what an encoder would choose."""

    def __init__(self, image: ImageModel, temporal: MovedStage, price: float):
        self._intra, self._temporal, self._price = image.stage.prior, temporal, price
        self._state: State = {}

    @torch.no_grad()
    def symbols(
        self, scaled: Sequence[Tensor], given: tuple[Tensor, Prediction] | None, qp: Tensor, gains: Sequence[Gains]
    ) -> list[Tensor]:
        """Of the next frame; `given`: its field and prediction, None for the first, which has the intra prior."""
        temporal, state = self._temporal, self._state
        if given is None:
            symbols = self._choose(self._intra, scaled, {}, qp, gains, None)
        else:
            state, memory = temporal.look(state, *given)
            symbols = self._choose(temporal.trunk, scaled, memory, qp, gains, given[1])
        maps = temporal.observe(_latents(symbols, gains))
        for stride, seen_there in maps.items():
            if given is None:
                self._state[stride] = temporal.begin_at(stride, seen_there)
            else:
                self._state[stride] = temporal.advance_at(stride, state[stride], seen_there)
        return symbols

    def _choose(
        self,
        trunk: TopDownPrior,
        scaled: Sequence[Tensor],
        memory: Memory,
        qp: Tensor,
        gains: Sequence[Gains],
        seen_there: Prediction | None,
    ) -> list[Tensor]:
        reader = self._temporal.reader(memory) if memory else None
        expected = self._temporal.expectation(memory) if memory else None
        rule = Rule.of(self._price, qp.device)
        symbols: list[Tensor] = [torch.empty(0)] * len(scaled)
        hidden = trunk.start(qp, *scaled[-1].shape[1:3])
        for index in reversed(range(len(scaled))):
            of_level = gains[index]
            hidden = hidden if reader is None else reader(index, hidden)
            distribution, hidden = trunk.distribution(index, hidden, of_level, expected)
            q = choose_level(scaled[index], distribution, rule).symbols.float()
            if seen_there is not None and seen_there.copied is not None:
                whole = copied_at(seen_there.copied, trunk.levels[index].stride)[..., None] == 1
                q = torch.where(whole, copied_symbols(seen_there.latents[index], of_level.gain), q)
            symbols[index] = q
            if index:
                hidden = trunk.absorb(index, hidden, q * of_level.step[:, None, None], qp)
        return symbols


def _by_frame(qp: Tensor, count: int) -> Tensor:
    """QPs (B,) or (B, T) -> (B, T)."""
    return qp if qp.ndim == 2 else qp[:, None].expand(-1, count)


def _joined(predictions: Sequence[Prediction], copied: Tensor) -> Prediction:
    """Predictions of frames one after another as one of (B*T) frames."""
    latents, features = (
        [_side_by_side(level) for level in zip(*of_frames, strict=True)]
        for of_frames in ([p.latents for p in predictions], [p.features for p in predictions])
    )
    return Prediction(latents, features, copied)


def _coded_bits(symbols: Tensor, distribution: Distribution, copied: Tensor, level: Level) -> Tensor:
    """Of the symbols of a level that are coded, (B,)."""
    bits = symbol_bits(symbols, distribution).sum(-1)
    return torch.where(copied_at(copied, level.stride) == 1, 0.0, bits).sum((1, 2))


def _latents(symbols: Sequence[Tensor], gains: Sequence[Gains]) -> list[Tensor]:
    return [q * g.step[:, None, None] for q, g in zip(symbols, gains, strict=True)]


def _learns(parameters: Iterable[nn.Parameter]) -> bool:
    return any(p.requires_grad for p in parameters)


def _side_by_side(frames: Sequence[Tensor]) -> Tensor:
    """T tensors (B, ...) -> (B*T, ...), frame index fastest."""
    return torch.stack(tuple(frames), 1).flatten(0, 1)
