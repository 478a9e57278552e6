"""Temporal stages: they remove from a latent sequence what the frames share. See `vidlbc.temporal_stage.base`."""

from vidlbc.temporal_stage.base import Maps, Memory, NoContext, State, TemporalStage
from vidlbc.temporal_stage.lstm import LSTMPrior
from vidlbc.temporal_stage.transformer import TransformerPrior

KINDS: dict[str, type[TemporalStage]] = {cls.kind: cls for cls in (NoContext, TransformerPrior, LSTMPrior)}

__all__ = [
    "KINDS",
    "LSTMPrior",
    "Maps",
    "Memory",
    "NoContext",
    "State",
    "TemporalStage",
    "TransformerPrior",
]
