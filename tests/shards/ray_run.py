"""python -m tests.shards.ray_run CORPUS OUT: an encoding run on two simulated Ray nodes, one of which is killed.

A process of its own, since Ray leaves threads and warnings behind. Prints what happened as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from tests.shards.fakes import FakeCodec, load_fake, open_hostile
from vidlbc.shards import EncodingSettings, RayEngine, RaySettings, launch, make_plan, read_annotations

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}


def main(corpus: str, out: str) -> None:
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    second = cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="WARNING")
    facts: dict[str, object] = {"finished": None}

    def kill() -> None:
        """Once a shard is done and both nodes have another in work."""
        while facts["finished"] is None:
            finished, at_work = (len(list(Path(out).glob(p))) for p in ("*_stats.json", ".*.tmp/in_hand"))
            if finished and at_work == 2:
                cluster.remove_node(second, allow_graceful=False)
                facts["finished"] = finished
            time.sleep(0.02)

    threading.Thread(target=kill, daemon=True).start()
    settings = EncodingSettings(clip_frames=5, block=2, deadline_s=2.0)
    plan = make_plan(read_annotations(corpus), out, FakeCodec(), settings, shard_videos=3)
    began = time.monotonic()
    launch(plan, RayEngine(RaySettings(), load=load_fake, open_reader=open_hostile), bar=False)
    facts["seconds"] = time.monotonic() - began
    facts["shards"] = len(plan.shards)
    facts["second_node_runs"] = second.any_processes_alive()
    print(json.dumps(facts))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
