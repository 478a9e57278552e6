"""Mutated bitstreams, shards and cache entries against everything that reads them. vidlbc qa fuzz runs it.

corpus --(seed, number)--> mutated input --process of its own, watched--> decoded | refused | a finding, kept
"""

from vidlbc.qa.fuzz.guided import run_guided
from vidlbc.qa.fuzz.run import FuzzSettings, Tally, run_fuzz

__all__ = ["FuzzSettings", "Tally", "run_fuzz", "run_guided"]
