"""Videos in and out: files to uint8 frames, and back. Knows no model.

    read_blocks / VideoReader / open_source / examine      (reader.py)
        |  events: opened, frames, outcome                 (decoding.py)
        |  socket + shared memory, a deadline, kill        (process.py)   -- the caller's process
    ----+----------------------------------------------------------------------------------------
        |  one file at a time                              (worker.py)    -- decoder process, no torch
        +-- PyAV (default) | decord | OpenCV | torchcodec  (*_backend.py)

Decoding never happens in the caller's process: a decoder that crashes, or spins for ever with the interpreter lock
held, costs one file its verdict. Damaged frames are never replaced: the good leading ones are given, the verdict says
how many. Measurements behind the choice of back end are in docs/video.md.
"""

from vidlbc.video.contract import Verdict, VideoInfo, VideoSource
from vidlbc.video.reader import VideoReader, examine, open_source, probe, read_blocks
from vidlbc.video.sampling import clip_indices
from vidlbc.video.writing import write_mp4, write_pngs, write_side_by_side, writes_mp4

__all__ = [
    "Verdict",
    "VideoInfo",
    "VideoReader",
    "VideoSource",
    "clip_indices",
    "examine",
    "open_source",
    "probe",
    "read_blocks",
    "write_mp4",
    "write_pngs",
    "write_side_by_side",
    "writes_mp4",
]
