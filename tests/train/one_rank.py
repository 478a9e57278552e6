"""One process of a run: gradients of one step and the parameters after three, written to OUT/RANK.safetensors.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=P python one_rank.py MODEL_FOLDER OUT

The environment is what torchrun sets. Every rank takes its own half of the same two clips.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.codec.small_models import fill
from tests.train.small_runs import clip_batch, settings
from vidlbc.codec import models
from vidlbc.run import distributed
from vidlbc.run.tensor_files import save_tensors
from vidlbc.train.loop import fit
from vidlbc.train.objectives.video import SymbolRate


class Halves(SymbolRate):
    """Counts what the ranks see, and gives one rank a loss that is not finite at step 1."""

    def __call__(self, temporal: nn.Module, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        loss, parts = super().__call__(temporal, batch, step)
        return (loss * float("nan") if step == 1 and distributed.rank() == distributed.world() - 1 else loss), parts


def main(model: Path, out: Path) -> None:
    torch.set_num_threads(1)
    with distributed.group(torch.device("cpu")):
        train(model, out)
        distributed.barrier()


def train(model: Path, out: Path) -> None:
    rank, world = distributed.rank(), distributed.world()
    image = models.load_image_stage(model / "image_stage")
    temporal = models.build_temporal("lstm", image.stage)
    fill(temporal, 40 + rank)  # ranks start apart: the first rank's weights must win
    temporal.requires_grad_(True)
    distributed.broadcast(temporal)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        clips, qp = clip_batch(step)
        return clips[rank::world], qp[rank::world]

    trained = [p for p in temporal.parameters() if p.requires_grad]
    loss, _ = SymbolRate(image)(temporal, batches(0), 0)
    loss.backward()
    distributed.average_gradients(trained)
    tensors = {f"gradient.{n}": p.grad for n, p in temporal.named_parameters() if p.grad is not None}
    tensors = {name: gradient.clone() for name, gradient in tensors.items()}
    temporal.zero_grad()
    outcome = fit(temporal, Halves(image), batches, settings(3), out / "run")
    tensors |= {f"weight.{n}": p for n, p in temporal.named_parameters()}
    save_tensors(out / f"{rank}.safetensors", tensors, {"steps": outcome.steps, "skipped": outcome.skipped})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
