"""An encoder that writes what a search hardly finds: it predicts where it can, from as far as vectors reach."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidlbc.codec.bitstream import Header
from vidlbc.codec.codec import Codec
from vidlbc.codec.coding.moved_encoding import PRICE, MovedChooser, MovedSettings, SourceFrames
from vidlbc.codec.coding.moved_priors import Seen
from vidlbc.codec.coding.moving import Past
from vidlbc.codec.moved_codec import MovedCodec


class _FarChooser(MovedChooser):
    def search(self, picture: Tensor, past: Past, displaced: Tensor | None) -> Tensor:
        """A function of the picture: vectors of all sizes, those of the frame before, and others in parts of blocks."""
        draw = np.random.Generator(np.random.Philox(int(picture.sum())))
        rows, columns = past.field.shape[1:3]
        size = 2.0 ** draw.integers(1, 16, (1, rows // 2, columns // 2, 1))
        large = (draw.uniform(-1, 1, (1, rows // 2, columns // 2, 2)) * size).round().astype(np.int32)
        field = torch.from_numpy(large).repeat_interleave(2, 1).repeat_interleave(2, 2)
        still, part = (torch.from_numpy(draw.random((1, rows, columns, 1)) < share) for share in (0.3, 0.1))
        before = past.field.cpu()
        return torch.where(part, -field, torch.where(still, before, field)).to(past.field.device)

    def copies(self, frame: SourceFrames, known: Any, seen: Seen, lasts: Tensor) -> Tensor:
        """Here and there a block, or the four of a cell of stride 32."""
        draw = np.random.Generator(np.random.Philox(int(seen.picture.sum() * 256) & 0xFFFFFFFF))
        rows, columns = lasts.shape[1:]
        large = (draw.random((rows // 2, columns // 2)) < 0.3).repeat(2, 0).repeat(2, 1)
        flags = large | (draw.random((rows, columns)) < 0.3)
        return torch.from_numpy(flags)[None].to(lasts.device)


class _FarCodec(MovedCodec):
    def _chooser(self, header: Header, rdo: bool) -> MovedChooser:
        return _FarChooser(self._moved, header, MovedSettings(PRICE if rdo else None))


def far_encoder(codec: Codec) -> Codec:
    """A codec of the same weights, whose streams `codec` decodes. From here on neither chooses the intra prior, which
    of untrained priors is always the better one."""
    codec._priors.intra_frames = False
    if not isinstance(codec, MovedCodec):
        return codec
    far = copy.copy(codec)
    far.__class__ = _FarCodec
    return far
