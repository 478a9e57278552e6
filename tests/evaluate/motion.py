"""Latents of two motions that no single frame tells apart: a blob goes right or left around a torus, from anywhere."""

import torch

from vidlbc.evaluate import FeatureBuilder, FeatureSet, ViewPlan

LEVELS = [(3, 8), (2, 16)]
FRAMES = 10


def moving_blob(label: int, rng: torch.Generator, frames: int = FRAMES) -> list[torch.Tensor]:
    """One (frames, C, 8, 12) and one (frames, C, 4, 6) level; label 0 goes right, 1 goes left, once around."""
    y, x, *look = torch.rand(5, generator=rng).tolist()
    t = torch.arange(frames) / frames
    centre = (x + (1 - 2 * label) * t) % 1.0
    levels = []
    for channels, stride in LEVELS:
        h, w = 64 // stride, 96 // stride
        rows, columns = (torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w
        dx = (columns[None, None] - centre[:, None, None] + 0.5) % 1.0 - 0.5
        dy = (rows[None, :, None] - y + 0.5) % 1.0 - 0.5
        blob = torch.exp(-(dx**2 + dy**2) / 0.02)
        signs = torch.tensor([(-1.0) ** c * (0.5 + look[c % 3]) for c in range(channels)])
        noise = 0.1 * torch.randn(frames, channels, h, w, generator=rng)
        levels.append(5.0 * blob[:, None] * signs[None, :, None, None] + noise)
    return levels


def motion_set(n: int, seed: int, *, shuffled: bool = False, views: int = 1, frames: int = FRAMES) -> FeatureSet:
    """`n` clips in groups of eight, both classes in turn; `shuffled` puts the frames of each clip in random order."""
    rng = torch.Generator().manual_seed(seed)
    builder = FeatureBuilder(LEVELS, ViewPlan(frames=frames, views=views), grid=4)
    for i in range(n):
        latents = moving_blob(i % 2, rng)
        if shuffled:
            order = torch.randperm(FRAMES, generator=rng)
            latents = [y[order] for y in latents]
        builder.add(f"{seed}/{i}", i % 2, latents, group=f"{seed}/g{i // 8}")
    return builder.build()
