"""Two processes of one batch half each train what one process of the whole batch trains."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.codec.small_models import save_small_model
from vidlbc.run.tensor_files import load_tensors

REPO = Path(__file__).resolve().parents[2]


def run(model: Path, out: Path, world: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out.mkdir()
    processes = []
    for rank in range(world):
        env = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.train.one_rank", str(model), str(out)],
                cwd=REPO,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        for process in processes:
            output, _ = process.communicate(timeout=150)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
def test_two_ranks_are_one_run(tmp_path: Path) -> None:
    model = save_small_model(tmp_path / "model", 3, kinds=())
    for world in (1, 2):
        run(model, tmp_path / str(world), world)
    one, meta = load_tensors(tmp_path / "1" / "0.safetensors")
    ranks = [load_tensors(tmp_path / "2" / f"{rank}.safetensors") for rank in (0, 1)]
    (two, _), (other, _) = ranks
    gradients = [name for name in one if name.startswith("gradient.")]
    assert len(gradients) > 20 and any(float(one[name].abs().max()) > 1e-3 for name in gradients)
    for name in gradients:
        scale = float(one[name].abs().max())
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5 * max(scale, 1e-3), msg=name)
    # Ranks agree to the bit, also on which step to skip; only the first one writes.
    assert all(torch.equal(two[name], other[name]) for name in two)
    assert meta == ranks[0][1] == ranks[1][1] == {"steps": 3, "skipped": 1}
    assert len((tmp_path / "2" / "run" / "log.jsonl").read_text().splitlines()) == 2
