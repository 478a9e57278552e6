"""What a downstream task starts from, and the network that it trains (Xie et al., arXiv 2105.13978, section 3.4).

    START/PART[+identity]
      START   pretrained: the model's weights    klt: its linear layers set to a transform of pictures    random
      PART    frozen: f and the projections stay as they are    tuned: everything is trained
      +identity: connections between the features of encoder and decoder, at every stride

Frozen or not, g and the task's own layers are trained.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vidlbc.codec import models
from vidlbc.codec.image_stage import build_image_stage
from vidlbc.codec.image_stage.blocks import RoundSTE
from vidlbc.codec.image_stage.klt import initialise
from vidlbc.codec.image_stage.lbc import LBC
from vidlbc.codec.prior.topdown import NUM_QP
from vidlbc.errors import InputError

STARTS = ("pretrained", "klt", "random")
PARTS = ("frozen", "tuned")
_ENCODER = ("down.", "encode.", "project.")
_SYNTHESIS = ("lift.", "decode.", "up.", "modulate.")


@dataclass(frozen=True)
class Contestant:
    """One row of the study."""

    start: str
    part: str
    identity: bool = False

    @classmethod
    def of(cls, text: str) -> "Contestant":
        """From `START/PART` or `START/PART+identity`. Raises InputError."""
        name, plus, extra = text.partition("+")
        start, _, part = name.partition("/")
        if start not in STARTS or part not in PARTS or (plus and extra != "identity"):
            raise InputError(
                f"contestant {text!r}: expected START/PART or START/PART+identity with START one of "
                f"{', '.join(STARTS)} and PART one of {', '.join(PARTS)}"
            )
        return cls(start, part, bool(plus))

    @property
    def frozen(self) -> bool:
        return self.part == "frozen"

    def __str__(self) -> str:
        return f"{self.start}/{self.part}" + ("+identity" if self.identity else "")

    @property
    def folder(self) -> str:
        return str(self).replace("/", "_").replace("+", "_")


def load_pretrained(model: str) -> LBC:
    """The image stage of a shipped model or a model folder. Raises InputError where it is of another family."""
    stage = models.load_image_stage(models.find_model(model) / "image_stage").stage
    if not isinstance(stage, LBC):
        raise InputError(f"model={model} is of family {stage.family}, expected lbc: f and g are inherited from it")
    return stage


def starting_stage(contestant: Contestant, model: str, pictures: Callable[[], Tensor], seed: int) -> LBC:
    """The network that a contestant starts from. `pictures()`: (B, 3, S, S) in [0, 1], S a multiple of 32, for klt.

    Raises InputError as load_pretrained does.
    """
    stage = load_pretrained(model)
    if contestant.start != "pretrained":
        options = models.load_image_stage(models.find_model(model) / "image_stage").config.get("options", {})
        torch.manual_seed(seed)
        fresh = build_image_stage("lbc", **options)
        assert isinstance(fresh, LBC)
        stage = fresh
    if contestant.start == "klt":
        initialise(stage, pictures())
    return stage


def feature_widths(stage: LBC) -> list[int]:
    """Channels of `stage.features`, fine to coarse."""
    return [layer.in_channels for layer in stage.project if isinstance(layer, nn.Conv2d)]


class IdentityLift(nn.Module):
    """g'_l with an identity connection: (z_l, x_l) side by side -> g'_l(z_l) + a x_l, a scale a channel, from 0."""

    def __init__(self, lift: nn.Module, channels: int, width: int):
        super().__init__()
        self.lift, self.channels = lift, channels
        self.scale = nn.Parameter(torch.zeros(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.lift(x[:, : self.channels]) + self.scale * x[:, self.channels :]


class EncoderDecoder(nn.Module):
    """f and g with inherited weights: frames (B, 3, H, W) in [0, 1] -> (B, outputs, H, W), for any H and W.

    `outputs` other than 3 replace the last layer of g by a fresh one. `qp`: the latents are quantised with the gains of
    that QP, straight-through; None leaves them as they are.
    """

    def __init__(self, stage: LBC, contestant: Contestant, outputs: int = 3, qp: int | None = None):
        super().__init__()
        self.stage = copy.deepcopy(stage)
        self.frozen, self.identity, self.qp = contestant.frozen, contestant.identity, qp
        if outputs != 3:
            last = self.stage.up[0]
            assert isinstance(last, nn.Conv2d)
            self.stage.up[0] = nn.Conv2d(last.in_channels, 16 * outputs, 1)
        trained = _SYNTHESIS if self.frozen else (*_ENCODER, *_SYNTHESIS)
        for name, parameter in self.stage.named_parameters():
            parameter.requires_grad_(name.startswith(trained))
        if self.identity:
            for index, level in enumerate(self.stage.levels):
                width = feature_widths(self.stage)[index]
                self.stage.lift[index] = IdentityLift(self.stage.lift[index], level.channels, width)

    def forward(self, frames: Tensor) -> Tensor:
        padded = self.stage.pad(frames)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.stage.features(padded)
            latents = self.stage.projected(features)
        qp = torch.full((len(frames),), NUM_QP - 1 if self.qp is None else self.qp, device=frames.device)
        if self.qp is not None:
            gains = self.stage.gains_at(qp)
            latents = [
                RoundSTE.apply(y * g.gain[:, :, None, None]) * g.step[:, :, None, None]
                for y, g in zip(latents, gains, strict=True)
            ]
        if self.identity:
            latents = [torch.cat([y, x], 1) for y, x in zip(latents, features, strict=True)]
        return self.stage.synthesis(latents, qp)[..., : frames.shape[2], : frames.shape[3]]
