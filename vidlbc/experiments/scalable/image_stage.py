"""Family `scalable`: a base layer for a task, an enhancement layer for the pictures (de Andrade and Bajic, 2405.10244).

    frame --f_b--> y_b (stride 16) --h_b--> z_b (64)      base: coded first, decodes alone --> task head, g_a (preview)
    frame --f_e--> y_e (stride 16) --h_e--> z_e (32)      enhancement: its entropy model is given the base
    frame <--g_e-- y^_e

Levels, fine to coarse: y_e, z_e, y_b, z_b. The top-down prior codes them from the last to the first, so p(y_e, z_e) is
conditioned on the decoded base by construction and the base's distributions never on the enhancement.

y_e and z_e are presented at stride 8, 4C and 16C channels folded to C: levels of one layer then share no working stride
with those of the other, and a reader of the base computes nothing of the enhancement, under a temporal stage too. The
hyper-latent z_e is the enhancement's own, so that the same form without a base (`layers=enhancement`) is a complete
hyperprior codec.

Transforms are ELIC's (He et al., arXiv 2203.10886, Figure 3) from CompressAI's layers; g_a is the simple synthesis.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.codec.image_stage.base import ImageStage, QuantisationGains
from vidlbc.codec.image_stage.compressai_families import import_compressai
from vidlbc.codec.prior.topdown import Level
from vidlbc.experiments.scalable.start import set_transforms

LAYERS = ("both", "base", "enhancement")
Y_STRIDE, Z_BASE_STRIDE, Z_ENHANCEMENT_STRIDE, SHOWN_STRIDE = 16, 64, 32, 8
# A hyper-latent of one channel at stride 8: 16 channels at stride 32.
_SHOWN_Z = 1


class Scalable(ImageStage):
    """`layers`: both; base (y_b, z_b; its pictures are the previews); enhancement (no base)."""

    family = "scalable"
    synthesis_modules: tuple[str, ...] = ("g_a", "g_e")

    def __init__(
        self,
        N: int = 32,
        M_base: int = 48,
        M_enhancement: int = 96,
        N_preview: int = 16,
        bottlenecks: int = 1,
        layers: str = "both",
        synthesis_reads_base: bool = False,
        prior_widths: Sequence[int] = (64, 64, 48),
        prior_blocks: int = 2,
    ) -> None:
        """N: hidden channels and those of z_b; `N_preview`: those of g_a; `prior_widths` for strides 8, 16, 64.

        `bottlenecks`: residual bottleneck blocks between two resamplings, 3 in ELIC.
        `synthesis_reads_base`: g_e reads y_b too; in the paper the base helps by the entropy model only. Raises
        ValueError where the sizes do not fit.
        """
        if layers not in LAYERS:
            raise ValueError(f"layers={layers!r}: expected one of {', '.join(LAYERS)}")
        if M_enhancement % 4:
            raise ValueError(f"M_enhancement={M_enhancement}: expected a multiple of 4, as y_e is shown at stride 8")
        if len(prior_widths) != 3:
            raise ValueError(f"{len(prior_widths)} prior_widths given, expected 3, for strides 8, 16 and 64")
        if synthesis_reads_base and layers != "both":
            raise ValueError(f"synthesis_reads_base needs layers=both, got {layers}")
        with_base, with_enhancement = layers != "enhancement", layers != "base"
        levels: list[Level] = []
        widths: list[int] = []
        if with_enhancement:
            levels += [Level(SHOWN_STRIDE, M_enhancement // 4), Level(SHOWN_STRIDE, _SHOWN_Z)]
            widths += [prior_widths[0]]
        if with_base:
            levels += [Level(Y_STRIDE, M_base), Level(Z_BASE_STRIDE, N)]
            widths += prior_widths[1:]
        super().__init__(levels, widths, prior_blocks)
        self.with_base, self.with_enhancement = with_base, with_enhancement
        self.synthesis_reads_base = synthesis_reads_base
        if with_base:
            self.f_b, self.h_b = _analysis(N, M_base, bottlenecks), _hyper_analysis(M_base, N, N, halvings=2)
            self.g_a = _preview_synthesis(M_base, N_preview)
        if with_enhancement:
            z_channels = _SHOWN_Z * (Z_ENHANCEMENT_STRIDE // SHOWN_STRIDE) ** 2
            self.f_e = _analysis(N, M_enhancement, bottlenecks)
            self.h_e = _hyper_analysis(M_enhancement, N, z_channels, halvings=1)
            self.g_e = _synthesis(M_enhancement + M_base * synthesis_reads_base, N, bottlenecks)
        self._refine_base()
        self.base_levels = 2 if layers == "both" else 0
        self.synthesis_modules = tuple(name for name in self.synthesis_modules if hasattr(self, name))

    @torch.no_grad()
    def _refine_base(self) -> None:
        """Half the step that a fresh codec has: what tells classes apart is small beside what tells pictures apart."""
        for gains in self.gains[len(self.levels) - 2 :] if self.with_base else ():
            assert isinstance(gains, QuantisationGains)
            gains.log2_gain.add_(1)

    @property
    def multiple(self) -> int:
        """64 for every choice of layers, so that all code the same padded frames."""
        return Z_BASE_STRIDE

    def start_from(self, pictures: Tensor) -> bool:
        if self.with_base:
            set_transforms(pictures, self.f_b, None)
        if self.with_enhancement:
            set_transforms(pictures, self.f_e, self.g_e)
        return True

    def analysis(self, x: Tensor) -> list[Tensor]:
        latents = self.enhancement_analysis(x) if self.with_enhancement else []
        return latents + self.base_analysis(x) if self.with_base else latents

    def base_analysis(self, x: Tensor) -> list[Tensor]:
        """Padded frames (B, 3, H, W) in [0, 1] -> y_b (B, M_base, H/16, W/16), z_b (B, N, H/64, W/64)."""
        y = self.f_b(x - 0.5)
        return [y, self.h_b(y)]

    def enhancement_analysis(self, x: Tensor) -> list[Tensor]:
        """Padded frames (B, 3, H, W) -> y_e (B, M_enhancement / 4, H/8, W/8), z_e (B, 1, H/8, W/8)."""
        y = self.f_e(x - 0.5)
        return [F.pixel_shuffle(y, 2), F.pixel_shuffle(self.h_e(y), Z_ENHANCEMENT_STRIDE // SHOWN_STRIDE)]

    def synthesis(self, latents: Sequence[Tensor], qp: Tensor) -> Tensor:
        if not self.with_enhancement:
            return self.preview(latents)
        y = F.pixel_unshuffle(latents[0], 2)
        return self.g_e(torch.cat([y, latents[2]], 1) if self.synthesis_reads_base else y) + 0.5

    def preview(self, latents: Sequence[Tensor]) -> Tensor:
        """g_a: the base's latents [y_b, z_b], or all levels -> padded frames (B, 3, H, W), not clamped.

        Raises ValueError for a stage without a base.
        """
        if not self.with_base:
            raise ValueError("layers=enhancement has no base to preview")
        return self.g_a(latents[-2]) + 0.5

    def base_parameters(self) -> list[nn.Parameter]:
        """All that the base's symbols, distributions and previews depend on."""
        return [parameter for name, parameter in self.named_parameters() if self._is_of_base(name)]

    def take_base(self, base: "Scalable") -> None:
        """Copy the base's parameters from a stage with a base of the same sizes, trained alone or not.

        Raises ValueError where the sizes differ.
        """
        shift = len(self.levels) - len(base.levels)
        theirs = dict(base.named_parameters())
        for name, parameter in self.named_parameters():
            if self._is_of_base(name):
                found = theirs.get(_renumbered(name, -shift))
                if found is None or found.shape != parameter.shape:
                    raise ValueError(f"the base has no {name} of {tuple(parameter.shape)}: it is of other sizes")
                parameter.data.copy_(found.data)

    def _is_of_base(self, name: str) -> bool:
        """y_b is absorbed, and the hidden state brought to stride 8, for the enhancement's distributions only."""
        first = len(self.levels) - 2
        part, *rest = name.split(".")
        if part in ("f_b", "h_b", "g_a"):
            return True
        if not self.with_base or part not in ("gains", "prior"):
            return False
        if part == "gains":
            return int(rest[0]) >= first
        if rest[0] in ("qp_vector", "up"):
            return int(rest[1]) >= Y_STRIDE
        if rest[0] == "embed":
            return int(rest[1]) > first
        return rest[0] == "start_vector" or int(rest[1]) >= first


def _renumbered(name: str, shift: int) -> str:
    """The name of a level's parameter in a stage with `-shift` fewer levels above it."""
    parts = name.split(".")
    at = 1 if parts[0] == "gains" else 2 if parts[0] == "prior" and parts[1] in ("blocks", "heads", "embed") else None
    if at is not None:
        parts[at] = str(int(parts[at]) + shift)
    return ".".join(parts)


def _layers() -> Any:
    """CompressAI's module that holds ELIC, and with it the layers that ELIC is made of."""
    return import_compressai().models.sensetime


def _analysis(N: int, M: int, bottlenecks: int) -> nn.Sequential:
    """ELIC's g_a: (B, 3, H, W) -> (B, M, H/16, W/16)."""
    elic = _layers()
    return nn.Sequential(
        elic.conv(3, N, kernel_size=5, stride=2),
        _bottlenecks(N, bottlenecks),
        elic.conv(N, N, kernel_size=5, stride=2),
        _bottlenecks(N, bottlenecks),
        elic.AttentionBlock(N),
        elic.conv(N, N, kernel_size=5, stride=2),
        _bottlenecks(N, bottlenecks),
        elic.conv(N, M, kernel_size=5, stride=2),
        elic.AttentionBlock(M),
    )


def _synthesis(M: int, N: int, bottlenecks: int) -> nn.Sequential:
    """ELIC's g_s: (B, M, H/16, W/16) -> (B, 3, H, W)."""
    elic = _layers()
    return nn.Sequential(
        elic.AttentionBlock(M),
        elic.deconv(M, N, kernel_size=5, stride=2),
        _bottlenecks(N, bottlenecks),
        elic.deconv(N, N, kernel_size=5, stride=2),
        elic.AttentionBlock(N),
        _bottlenecks(N, bottlenecks),
        elic.deconv(N, N, kernel_size=5, stride=2),
        _bottlenecks(N, bottlenecks),
        elic.deconv(N, 3, kernel_size=5, stride=2),
    )


def _bottlenecks(N: int, count: int) -> nn.Sequential:
    return nn.Sequential(*[_layers().ResidualBottleneckBlock(N, N) for _ in range(count)])


def _hyper_analysis(M: int, N: int, out: int, halvings: int) -> nn.Sequential:
    """ELIC's h_a for `halvings` of 2: (B, M, h, w) -> (B, out, h / 2^halvings, w / 2^halvings)."""
    conv = _layers().conv
    layers: list[nn.Module] = [conv(M, N, kernel_size=3, stride=1)]
    for index in range(halvings):
        layers += [nn.ReLU(), conv(N, out if index == halvings - 1 else N, kernel_size=5, stride=2)]
    return nn.Sequential(*layers)


def _preview_synthesis(M: int, N: int) -> nn.Sequential:
    """The simple g_a: four transposed convolutions, (B, M, H/16, W/16) -> (B, 3, H, W)."""
    deconv = _layers().deconv
    layers: list[nn.Module] = [deconv(M, 2 * N, kernel_size=3, stride=2), nn.LeakyReLU(0.1)]
    layers += [deconv(2 * N, N, kernel_size=3, stride=2), nn.LeakyReLU(0.1)]
    return nn.Sequential(
        *layers, deconv(N, N, kernel_size=3, stride=2), nn.LeakyReLU(0.1), deconv(N, 3, kernel_size=3, stride=2)
    )
