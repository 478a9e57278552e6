"""One process of a round.  python -m vidlbc.qa.soak.worker < REQUEST     REQUEST: JSON with the fields of `Request`

prints [[sha256 of the symbols, how many], ...], one entry a clip, as JSON; or the error that decoding it ended in.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from vidlbc.codec.codec import Codec
from vidlbc.codec.load import load
from vidlbc.errors import VidlbcError
from vidlbc.evaluate.rate_distortion.clips import Clip
from vidlbc.pipeline.verify import symbols_digest
from vidlbc.qa.fuzz.far import far_encoder


@dataclass(frozen=True)
class SoakRequest:
    """With a `video`: encode at most `frames` of it, in clips of `length`, into `folder`. Without: decode the `count`
    bitstreams there, `batch` at once. `far`: every frame that can be is predicted, from as far as vectors reach."""

    model: str
    kind: str
    folder: str
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    batch: int = 1
    video: str = ""
    frames: int = 0
    length: int = 1
    qp: int = 32
    rdo: bool = False
    far: bool = False
    count: int = 0


Entry = tuple[str, int]


def _encode(codec: Codec, request: SoakRequest) -> list[Entry]:
    frames = Clip("", Path(request.video)).read(request.frames).frames
    length = min(request.length, len(frames))
    codec = far_encoder(codec) if request.far else codec
    entries: list[Entry] = []
    # Clips of one length, so that they can be decoded as one batch.
    for number, start in enumerate(range(0, len(frames) - length + 1, length)):
        clip = frames[start : start + length]
        data, symbols, _ = codec.encode(clip, request.qp, rdo=request.rdo)
        _file(request, number).write_bytes(data)
        entries.append(_entry(codec.unpadded(symbols, *clip.shape[1:3])))
    return entries


def _decode(codec: Codec, request: SoakRequest) -> list[Entry]:
    entries: list[Entry] = []
    for start in range(0, request.count, request.batch):
        numbers = range(start, min(start + request.batch, request.count))
        try:
            levels = codec.symbols([_file(request, number).read_bytes() for number in numbers])
        except VidlbcError as error:
            entries += [(str(error), 0)] * len(numbers)
            continue
        entries += [_entry([level[row] for level in levels]) for row in range(len(numbers))]
    return entries


def _entry(symbols: list[torch.Tensor]) -> Entry:
    return symbols_digest(symbols), sum(level.numel() for level in symbols)


def _file(request: SoakRequest, number: int) -> Path:
    return Path(request.folder) / f"{number:04d}.vlbc"


def main() -> None:
    request = SoakRequest(**json.load(sys.stdin))
    torch.set_num_threads(request.threads)
    codec = load(request.model, request.device, request.kind, request.precision)
    print(json.dumps(_encode(codec, request) if request.video else _decode(codec, request)))


if __name__ == "__main__":
    main()
