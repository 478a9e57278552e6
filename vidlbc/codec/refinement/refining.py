"""Refined pictures of a clip, block by block: the state is carried from one block to the next, and is all that is kept.

latents of frame t --image stage's synthesis (frames side by side)--> picture, features
    --video decoder (frame after frame)--> uint8 picture t, state
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial

import torch
from torch import Tensor

from vidlbc.codec.frame_pool import FramePool
from vidlbc.codec.image_stage import ImageStage
from vidlbc.codec.refinement.network import State, VideoDecoder
from vidlbc.codec.traced import Traced

# Frames synthesised ahead of the one being refined: as float32 pictures they are four times what comes out.
_AHEAD = 4


class Refiner:
    """A video decoder on its image stage, on the pool's device. `digest` identifies its weights."""

    def __init__(self, stage: ImageStage, decoder: VideoDecoder, digest: bytes, pool: FramePool):
        self.decoder = decoder.to(pool.device).to(memory_format=torch.channels_last)
        self.digest, self._stage, self._pool = digest, stage, pool
        synthesis, step = Traced(self._synthesis_step), Traced(self._step)
        # In bfloat16 the casts depend on a context that a graph does not record.
        self.synthesis = synthesis if pool.precision == "fp32" else synthesis.function
        self.step = step

    def start(self, qp: int, height: int, width: int) -> "RefinedClip":
        """A clip of this size, before its first frame."""
        return RefinedClip(self, self._pool, torch.tensor([qp], device=self._pool.device), height, width)

    def _synthesis_step(self, qps: Tensor, *latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, C_l, H_l, W_l) -> pictures and features of the padded frames."""
        last = [y.contiguous(memory_format=torch.channels_last) for y in latents]
        picture, features = self._pool.cast(self._stage.synthesis_with_features, last, qps)
        return picture.float(), features.float()

    def _step(self, features: Tensor, picture: Tensor, qps: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """-> padded uint8 (1, H, W, 3), and the state."""
        out = self.decoder(features, picture, qps, state)
        pixels = (out.picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        return pixels, *out.state


class RefinedClip:
    """See `Refiner.start`. `add` takes the frames in order."""

    def __init__(self, refiner: Refiner, pool: FramePool, qps: Tensor, height: int, width: int):
        self._refiner, self._pool, self._qps = refiner, pool, qps
        self._height, self._width = height, width
        self._state: State = ()

    def add(self, latents: Sequence[Tensor]) -> Tensor:
        """The next frames' latents, of padded frames (n, C_l, H_l, W_l) -> uint8 (n, H, W, 3) of the true size."""
        if self._pool.device.type == "cpu":
            # On a thread of the pool: here an operation might be spread over several.
            return self._pool.after(lambda: self._refined(self._side_by_side(latents))).result()
        batches = self._pool.map(lambda *levels: self._refiner.synthesis(self._qps, *levels), *latents)
        with torch.inference_mode():
            return self._refined(pair for batch in batches for pair in zip(*[x.split(1) for x in batch], strict=True))

    def _side_by_side(self, latents: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        coming: deque[Future[tuple[Tensor, Tensor]]] = deque()
        for frame in zip(*[level.split(1) for level in latents], strict=True):
            if len(coming) == _AHEAD:
                yield coming.popleft().result()
            coming.append(self._pool.among(partial(self._synthesised, frame)))
        while coming:
            yield coming.popleft().result()

    def _synthesised(self, frame: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        return self._refiner.synthesis(self._qps, *frame)

    def _refined(self, frames: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        out = []
        for picture, features in frames:
            pixels, *state = self._refiner.step(features, picture, self._qps, *self._state)
            self._state = tuple(state)
            out.append(pixels[:, : self._height, : self._width].cpu())
        return torch.cat(out)
