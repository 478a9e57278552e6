"""The chunk stage's loss: bpp + lambda * 255^2 * MSE of the frozen synthesis' pictures, over successive chunks."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vidlbc.image_stage.base import channels_first, channels_last, qp_lambda
from vidlbc.image_stage.blocks import RoundSTE
from vidlbc.models import ImageModel
from vidlbc.prior.topdown import symbol_bits
from vidlbc.temporal_stage.chunk import ChunkStage
from vidlbc.training import distributed
from vidlbc.training.video_data import Batch

_REFERENCE_QP = 32
_CLIPS_FOR_AXES = 48


@dataclass(frozen=True)
class ChunkRateDistortion:
    """Called by the loop on (frames uint8 (B, T, 3, S, S), qp (B,)), T a multiple of the chunk's frames.

    Quantisation as in the image stage's training (mixed: rounded straight-through for the synthesis and the prior,
    noisy for the rate). Every second step codes the first chunk without the past, by the trunk alone, the others from
    the null state: a coder may choose either. `balance` as in RateDistortion of the image stage.
    """

    image: ImageModel
    balance: float = 0.35

    def __call__(self, stage: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(stage, ChunkStage)
        device = next(stage.parameters()).device
        frames, qp = batch[0].to(device), batch[1].to(device)
        clips, count, _, height, width = frames.shape
        chunks = count // stage.frames
        x = frames.flatten(0, 1).float() / 255
        with torch.no_grad():
            latents = self.image.stage.analysis(self.image.stage.pad(x))
        qps = qp.repeat_interleave(chunks)
        gains = stage.gains_at(qps)
        rounded, noisy = [], []
        for c, g in zip(stage.transform.analysis(stage.transform.maps(latents)), gains, strict=True):
            symbols = channels_last(c) * g.gain[:, None, None]
            noisy.append(symbols + distributed.rand_like(symbols) - 0.5)
            rounded.append(RoundSTE.apply(symbols) * g.step[:, None, None])
        temporal, (padded_height, padded_width) = stage.temporal, (s + -s % stage.multiple for s in (height, width))
        out, _ = temporal(rounded, qps, gains, chunks, temporal.start(clips, padded_height, padded_width))
        if step % 2:
            starts = slice(None, None, chunks)
            alone = [[x[starts] for x in (g.gain, g.step, g.log2_gain)] for g in gains]
            firsts = stage.prior([y[starts] for y in rounded], qp, [type(gains[0])(*rows) for rows in alone])
            out = [_with_firsts(d, first, chunks) for d, first in zip(out, firsts, strict=True)]
        bits = torch.stack([symbol_bits(q, d).sum((1, 2, 3)) for q, d in zip(noisy, out, strict=True)]).sum(0)
        bpp = (bits / (height * width * stage.frames)).view(clips, chunks)
        maps = stage.transform.synthesis([channels_first(y) for y in rounded], qps)
        decoded = self.image.stage.synthesis(stage.transform.latents(maps), qp.repeat_interleave(count))
        mse = (decoded[..., :height, :width].float() - x).square().mean((1, 2, 3)).view(clips, count)
        weight = qp_lambda(qp)
        scale = (qp_lambda(torch.tensor(32.0)) / weight) ** self.balance
        loss = ((bpp.mean(1) + weight * 255**2 * mse.mean(1)) * scale).mean()
        parts = {"bpp_first": bpp[:, 0].detach().mean(), "bpp": bpp[:, 1:].detach().mean()}
        parts["psnr"] = -10 * mse.detach().log10().mean()
        return loss, parts


def _with_firsts(distribution, firsts, chunks: int):
    """Distributions of all chunks, those of each clip's first one replaced."""
    rows = torch.arange(len(distribution.mean), device=distribution.mean.device) % chunks == 0
    parts = []
    for all_of_them, first in ((distribution.mean, firsts.mean), (distribution.log2_scale, firsts.log2_scale)):
        parts.append(all_of_them.masked_scatter(rows[:, None, None, None].expand_as(all_of_them), first))
    return type(distribution)(*parts)


@torch.no_grad()
def set_axes(stage: ChunkStage, image: ImageModel, batches: Callable[[int], Batch]) -> None:
    """Start of training: the transform's linear part becomes the KLT of real chunks, in units of equal worth.

    At the reference QP a step of the image stage's quantisation becomes one of the chunk's.
    """
    parts: list[Tensor] = []
    step = clips = 0
    while clips < _CLIPS_FOR_AXES:
        frames, _ = batches(step)
        parts.append(frames[:, : stage.frames].flatten(0, 1).float() / 255)
        step, clips = step + 1, clips + len(frames)
    sizes = {part.shape[-2:] for part in parts}
    smallest = min(sizes)
    pictures = [part[..., : smallest[0], : smallest[1]] for part in parts]
    latents = [image.stage.analysis(image.stage.pad(part)) for part in pictures]
    qp = torch.tensor([_REFERENCE_QP])
    own = float(stage.gains_at(qp)[0].gain[0, 0])
    units = [g.gain[0] / own for g in image.gains(qp)]
    stage.transform.set_to([torch.cat(level) for level in zip(*latents, strict=True)], units)
