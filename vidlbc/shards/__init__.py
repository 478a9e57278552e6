"""Shards: corpora in, tars of bitstreams out, samples back. Knows bytes; which codec made them it is told.

read_annotations --> Corpus --split_corpus--> Corpus --make_plan--> Plan --encode_shard(plan, i)--> 00000.tar
                                                                                                    00000.parquet
training, decoding  <-- samples <-- LatentShards <--------------------------------------------      00000_stats.json
"""

from vidlbc.data.annotations.families import read_annotations
from vidlbc.data.content import Content, contents_of
from vidlbc.data.corpus import Corpus, Item
from vidlbc.data.splits import split_corpus
from vidlbc.shards.decode import DecodedVideo, decode_shards
from vidlbc.shards.encode import ShardReport, encode_shard, is_done, load_codec
from vidlbc.shards.launchers.local import LocalEngine, encode_corpus
from vidlbc.shards.launchers.progress import TimeSpent, time_spent
from vidlbc.shards.launchers.ray_cluster import RayEngine, RaySettings, require_ray
from vidlbc.shards.launchers.run import Engine, launch
from vidlbc.shards.launchers.slurm import SlurmSettings, encode_task, gather_finished, submit, watch, write_scripts
from vidlbc.shards.loader import ShardLoader
from vidlbc.shards.manifest import Manifest, gather, write_manifest
from vidlbc.shards.order import Permutation
from vidlbc.shards.plan import Plan, PlannedFile, make_plan
from vidlbc.shards.reader import LatentShards
from vidlbc.shards.resume import choice_of_rdo, known_contents
from vidlbc.shards.settings import EncodingSettings
from vidlbc.shards.sources import FileVerdict

__all__ = [
    "Content",
    "Corpus",
    "DecodedVideo",
    "Engine",
    "FileVerdict",
    "Item",
    "LatentShards",
    "LocalEngine",
    "Manifest",
    "Permutation",
    "Plan",
    "RayEngine",
    "RaySettings",
    "EncodingSettings",
    "ShardLoader",
    "ShardReport",
    "SlurmSettings",
    "PlannedFile",
    "TimeSpent",
    "choice_of_rdo",
    "contents_of",
    "decode_shards",
    "encode_corpus",
    "encode_shard",
    "encode_task",
    "gather",
    "gather_finished",
    "is_done",
    "known_contents",
    "launch",
    "load_codec",
    "make_plan",
    "read_annotations",
    "require_ray",
    "split_corpus",
    "submit",
    "time_spent",
    "watch",
    "write_manifest",
    "write_scripts",
]
