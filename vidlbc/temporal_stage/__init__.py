"""Temporal stages: they remove from a latent sequence what the frames share. See `vidlbc.temporal_stage.base`."""

from vidlbc.temporal_stage.base import Maps, Memory, NoContext, State, TemporalStage
from vidlbc.temporal_stage.chunk import ChunkStage
from vidlbc.temporal_stage.lstm import LSTMPrior
from vidlbc.temporal_stage.transformer import TransformerPrior

# Those that code an image stage's own symbols. Kind `chunk` codes a chunk's instead.
KINDS: dict[str, type[TemporalStage]] = {cls.kind: cls for cls in (NoContext, TransformerPrior, LSTMPrior)}

__all__ = [
    "KINDS",
    "ChunkStage",
    "LSTMPrior",
    "Maps",
    "Memory",
    "NoContext",
    "State",
    "TemporalStage",
    "TransformerPrior",
]
