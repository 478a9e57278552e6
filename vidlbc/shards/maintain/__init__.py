"""Care of shard folders: list, count, verify, repair, merge, add to, export."""
