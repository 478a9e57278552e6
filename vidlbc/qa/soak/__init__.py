"""Long runs under bad conditions, counted. vidlbc qa soak runs them.

symbols   clip x kind x QP --encoder process (device, precision, threads, instructions)--> bitstreams
                           --decoder process (device, batch, threads, instructions)------> symbols, compared by digest
kills     encoding runs --SIGKILL at random moments--> a folder of shards, compared with an undisturbed run's
"""

from vidlbc.qa.soak.conditions import Conditions, all_conditions
from vidlbc.qa.soak.kill_counts import KillCounts
from vidlbc.qa.soak.kills import KillSettings, run_kills
from vidlbc.qa.soak.run import SoakSettings, Tally, run_soak

__all__ = [
    "Conditions",
    "KillCounts",
    "KillSettings",
    "SoakSettings",
    "Tally",
    "all_conditions",
    "run_kills",
    "run_soak",
]
