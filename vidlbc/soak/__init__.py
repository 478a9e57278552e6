"""Encode under one machine's conditions, decode under another's, and count symbols. tools/soak.py runs it.

round: clip x kind x QP --encoder process (device, precision, threads, instructions)--> bitstreams
                        --decoder process (device, batch, threads, instructions)------> symbols, compared by digest
"""

from vidlbc.soak.conditions import Conditions, all_conditions
from vidlbc.soak.run import SoakSettings, Tally, run_soak

__all__ = ["Conditions", "SoakSettings", "Tally", "all_conditions", "run_soak"]
