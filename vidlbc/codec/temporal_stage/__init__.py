"""Temporal stages: they remove from a latent sequence what the frames share. See `vidlbc.codec.temporal_stage.base`."""

from vidlbc.codec.temporal_stage.base import Maps, Memory, NoContext, State, TemporalStage
from vidlbc.codec.temporal_stage.lstm import LSTMPrior
from vidlbc.codec.temporal_stage.moved import MovedLSTM, MovedStage, MovedTransformer
from vidlbc.codec.temporal_stage.transformer import TransformerPrior

KINDS: dict[str, type[TemporalStage]] = {cls.kind: cls for cls in (NoContext, TransformerPrior, LSTMPrior)}
# The kinds where frames are predicted from moved pictures: those whose options tell of `motion`.
MOVED_KINDS: dict[str, type[MovedStage]] = {cls.kind: cls for cls in (MovedTransformer, MovedLSTM)}

__all__ = [
    "KINDS",
    "MOVED_KINDS",
    "LSTMPrior",
    "Maps",
    "Memory",
    "MovedLSTM",
    "MovedStage",
    "MovedTransformer",
    "NoContext",
    "State",
    "TemporalStage",
    "TransformerPrior",
]
