"""The loss of a temporal stage that predicts from moved pictures, in a closed loop: references are decoded pictures.

    frames --frozen image stage--> gain * y
    frame by frame: gain * y of t, rounded --synthesis--> what it looks like, searched for in the reference of t-1
                    reference of t-1 --moved--> picture --analysis--> prediction of t
                    gain * y of t --rounded, or chosen under the priors--> symbols
                    symbols of t, moved picture --synthesis--> reference of t        error against the frame
    all frames at once: bits of symbols and of vectors

No gradient goes through time: each part learns from what the others make of it now. What is trained is what requires
gradients; nothing is computed for the rest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from vidlbc.coding.rdo import Rule, choose_level
from vidlbc.image_stage.base import channels_last, qp_lambda
from vidlbc.models import ImageModel
from vidlbc.motion.search import DEFAULT, Effort, search
from vidlbc.motion.stage import Prediction
from vidlbc.motion.warp import CONTRAST, moved, seen, shown
from vidlbc.prior.topdown import Gains, TopDownPrior, symbol_bits
from vidlbc.temporal_stage import Memory, State
from vidlbc.temporal_stage.moved import MovedStage
from vidlbc.training.video_objective import RATE_EXPONENT


@dataclass
class Walk:
    """A batch of clips, frame after frame; lists over frames. Fields and predictions begin with the second frame."""

    symbols: list[list[Tensor]] = field(default_factory=list)
    references: list[Tensor] = field(default_factory=list)
    fields: list[Tensor] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    errors: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Measured:
    """Bits a pixel of symbols and of vectors of each frame but the first, (B, T-1); mean squared errors of the pictures
    of all references, in [0, 1], (B, T)."""

    symbols: Tensor
    vectors: Tensor
    errors: Tensor


@dataclass(frozen=True)
class MotionRate:
    """Called by the loop on (frames uint8 (B, T, 3, S, S), qp (B,)); S a multiple of 32.

    `price`: of errors, where symbols of every second step are chosen for rate and distortion (vidlbc.coding.rdo); None:
    all are rounded.
    `pictures`: weight of the references' error beside bits, where their synthesis is trained.
    """

    image: ImageModel
    bf16: bool = False
    price: float | None = None
    pictures: float = 1.0
    effort: Effort = DEFAULT
    capturable: ClassVar[bool] = False

    def __call__(
        self, temporal: nn.Module, batch: tuple[Tensor, Tensor], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(temporal, MovedStage)
        frames, qp = batch
        found = self.measure(temporal, frames, qp, self.price if step % 2 else None)
        weight = ((qp_lambda(torch.tensor(32.0)) / qp_lambda(qp)) ** RATE_EXPONENT)[:, None]
        loss = (weight * (found.symbols + found.vectors)).mean()
        decibels = -10 * found.errors.detach().clamp_min(1e-9).log10()
        parts = {
            "bpp": (found.symbols + found.vectors).detach().mean(), "bpp_vectors": found.vectors.detach().mean(),
            "psnr_first": decibels[:, 0].mean(), "psnr": decibels[:, 1:].mean(),
        }  # fmt: skip
        if found.errors.requires_grad:
            # Bits and errors as in the image stage's own loss, each QP pulling alike.
            worth = weight * qp_lambda(qp)[:, None] * 255**2
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
        return (found.symbols + found.vectors) * (len(rows) * len(columns) / (height * width))

    def measure(self, temporal: MovedStage, frames: Tensor, qp: Tensor, price: float | None = None) -> Measured:
        """frames uint8 (B, T, 3, H, W), sides multiples of 32; qp (B,); symbols chosen at this price, None: rounded."""
        clips, count = frames.shape[:2]
        pixels = frames.shape[-2] * frames.shape[-1]
        walk = self.walk(temporal, frames, qp, price)
        errors = torch.stack(walk.errors, 1)
        later, fields = qp.repeat_interleave(count - 1), torch.stack(walk.fields, 1)
        bits = vectors = torch.zeros(len(later), device=frames.device)
        motion = temporal.motion
        measures = not torch.is_grad_enabled() or not _learns(temporal.parameters())
        own = [p for name, p in temporal.named_parameters() if not name.startswith("motion.")]
        if measures or _learns(own) or _learns(motion.analysis.parameters()):
            everything = [_side_by_side([frame[i] for frame in walk.symbols]) for i in range(len(temporal.levels))]
            at = self.image.gains(qp.repeat_interleave(count))
            latents = _latents(everything, at)
            coded = [q.unflatten(0, (clips, count))[:, 1:].flatten(0, 1) for q in everything]
            kinds = zip(*walk.predictions, strict=True)
            given = Prediction(*[list(map(_side_by_side, zip(*levels, strict=True))) for levels in kinds])
            out = temporal.given_past(latents, later, self.image.gains(later), count, fields, given)
            bits = torch.stack([symbol_bits(q, d).sum((1, 2, 3)) for q, d in zip(coded, out, strict=True)]).sum(0)
        if measures or _learns(motion.vectors.parameters()):
            before = torch.cat([torch.zeros_like(fields[:, :1]), fields[:, :-1]], 1).flatten(0, 1)
            vectors = motion.vectors.bits(later, before, fields.flatten(0, 1), symbol_bits)
        return Measured((bits / pixels).view(clips, -1), (vectors / pixels).view(clips, -1), errors)

    def walk(self, temporal: MovedStage, frames: Tensor, qp: Tensor, price: float | None = None) -> Walk:
        """As `measure`."""
        motion, walk = temporal.motion, Walk()
        gains = self.image.gains(qp)
        scaled = self._scaled(frames, gains)
        pictures = frames.permute(0, 1, 3, 4, 2).contiguous()
        chooser = None if price is None else _Chooser(self.image, temporal, qp, gains, price)
        synthesis, analysis = _learns(motion.synthesis.parameters()), _learns(motion.analysis.parameters())
        for t in range(frames.shape[1]):
            before: Tensor | None = None
            wanted = [y[:, t] for y in scaled]
            symbols = [y.round() for y in wanted]
            with torch.set_grad_enabled(synthesis and torch.is_grad_enabled()):
                alone = motion.synthesis.alone(_latents(symbols, gains), qp)
            if t:
                with torch.no_grad():
                    looks = shown(motion.synthesis.picture(alone[1].detach()))
                    last = walk.fields[-1] if walk.fields else None
                    walk.fields.append(search(looks, walk.references[-1], qp, last, self.effort))
                    before = moved(walk.references[-1], walk.fields[-1])
                with torch.set_grad_enabled(analysis and torch.is_grad_enabled()):
                    walk.predictions.append(motion.predict(before))
            with torch.set_grad_enabled(synthesis and torch.is_grad_enabled()):
                if chooser is not None:
                    given = (walk.fields[-1], walk.predictions[-1]) if t else None
                    symbols = chooser.symbols(wanted, given)
                    alone = motion.synthesis.alone(_latents(symbols, gains), qp)
                folded = alone[1] if before is None else motion.synthesis.mixed(*alone, qp, before)
                picture = motion.synthesis.picture(folded)
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
        return [y * g.gain[:, None, None, None] for y, g in zip(split, gains, strict=True)]


class _Chooser:
    """Symbols for rate and distortion under the stage as it is now, frame by frame: what an encoder would choose."""

    def __init__(self, image: ImageModel, temporal: MovedStage, qp: Tensor, gains: Sequence[Gains], price: float):
        self._intra, self._temporal, self._qp, self._gains = image.stage.prior, temporal, qp, gains
        self._rule = Rule.of(price, qp.device)
        self._state: State = {}

    @torch.no_grad()
    def symbols(self, scaled: Sequence[Tensor], given: tuple[Tensor, Prediction] | None) -> list[Tensor]:
        """Of the next frame; `given`: its field and prediction, None for the first, which has the intra prior."""
        temporal, state = self._temporal, self._state
        if given is None:
            symbols = self._choose(self._intra, scaled, {})
        else:
            state, memory = temporal.look(state, *given)
            symbols = self._choose(temporal.trunk, scaled, memory)
        maps = temporal.observe(_latents(symbols, self._gains))
        for stride, seen_there in maps.items():
            if given is None:
                self._state[stride] = temporal.begin_at(stride, seen_there)
            else:
                self._state[stride] = temporal.advance_at(stride, state[stride], seen_there)
        return symbols

    def _choose(self, trunk: TopDownPrior, scaled: Sequence[Tensor], memory: Memory) -> list[Tensor]:
        reader = self._temporal.reader(memory) if memory else None
        expected = self._temporal.expectation(memory) if memory else None
        symbols: list[Tensor] = [torch.empty(0)] * len(scaled)
        hidden = trunk.start(self._qp, *scaled[-1].shape[1:3])
        for index in reversed(range(len(scaled))):
            gains = self._gains[index]
            hidden = hidden if reader is None else reader(index, hidden)
            distribution, hidden = trunk.distribution(index, hidden, gains, expected)
            symbols[index] = choose_level(scaled[index], distribution, self._rule).symbols.float()
            if index:
                hidden = trunk.absorb(index, hidden, symbols[index] * gains.step[:, None, None], self._qp)
        return symbols


def _latents(symbols: Sequence[Tensor], gains: Sequence[Gains]) -> list[Tensor]:
    return [q * g.step[:, None, None] for q, g in zip(symbols, gains, strict=True)]


def _learns(parameters: Iterable[nn.Parameter]) -> bool:
    return any(p.requires_grad for p in parameters)


def _side_by_side(frames: Sequence[Tensor]) -> Tensor:
    """T tensors (B, ...) -> (B*T, ...), frame index fastest."""
    return torch.stack(tuple(frames), 1).flatten(0, 1)
