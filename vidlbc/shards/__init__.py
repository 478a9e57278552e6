"""Shards: corpora in, tars of bitstreams out, samples back. Knows bytes; which codec made them it is told.

read_annotations --> Corpus --split_corpus--> Corpus --make_plan--> Plan --encode_shard(plan, i)--> 00000.tar
                                                                                                    00000.parquet
training, decoding  <-- samples <-- LatentShards <--------------------------------------------      00000_stats.json
"""

from vidlbc.shards.annotations import read_annotations
from vidlbc.shards.content import Content, contents_of
from vidlbc.shards.corpus import Corpus, Item
from vidlbc.shards.decode import DecodedVideo, decode_shards
from vidlbc.shards.encode import ShardReport, encode_shard, is_done
from vidlbc.shards.loader import ShardLoader
from vidlbc.shards.local import encode_corpus, logged_seconds
from vidlbc.shards.manifest import Manifest, gather, write_manifest
from vidlbc.shards.order import Permutation
from vidlbc.shards.plan import Plan, Source, make_plan
from vidlbc.shards.reader import LatentShards
from vidlbc.shards.resume import choice_of_rdo, known_contents
from vidlbc.shards.settings import Settings
from vidlbc.shards.sources import FileVerdict
from vidlbc.shards.splits import split_corpus

__all__ = [
    "Content",
    "Corpus",
    "DecodedVideo",
    "FileVerdict",
    "Item",
    "LatentShards",
    "Manifest",
    "Permutation",
    "Plan",
    "Settings",
    "ShardLoader",
    "ShardReport",
    "Source",
    "choice_of_rdo",
    "contents_of",
    "decode_shards",
    "encode_corpus",
    "encode_shard",
    "gather",
    "is_done",
    "known_contents",
    "logged_seconds",
    "make_plan",
    "read_annotations",
    "split_corpus",
    "write_manifest",
]
