"""Corpora: which files there are, and what is known about each. No codec, no shard."""
