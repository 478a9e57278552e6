"""The embedded demo corpus: short H.264 clips whose classes are motions, so that time is needed to tell them apart.

    python -m vidlbc.data.motions out/demo/videos [--groups 30 --frames 24 --size 128 --seed 0]

A textured blob moves before a textured background: left, right, up, down, clockwise, counterclockwise (on a circle),
approach, recede. Eight clips, one a class, share a *group*: the same blob, background and lighting; splits go by group.

Why a single frame says nothing. The blob's place and size are  m + D u + R (cos a, sin a)  and  r 2^(S s).  A class
animates one of u_x, u_y, a, s over a fixed grid of values, forwards or backwards; in the other classes that variable
rests at a random value of *the same grid*. So a frame drawn at random from a clip has exactly the same distribution in
every class, and only the order of the frames holds the label. (Its place in the clip does say a little: who moves left
began at the right.) Camera sway, sensor noise, flicker and a resting second blob are the same for all.

Writes <class>/gNN.mp4 and, last, labels.csv (path,label,group,split) and motions.json (the settings). Run again with
the same settings it does nothing. The same seed gives the same pixels before coding, and the same files with the same
x264. 240 clips of 24 frames at 128x128 take about 15 s on one core and 3 MB.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

# class -> (the variable that it animates, direction in time); image rows grow downwards
MOTIONS: dict[str, tuple[str, int]] = {
    "left": ("x", -1),
    "right": ("x", 1),
    "up": ("y", -1),
    "down": ("y", 1),
    "clockwise": ("angle", 1),
    "counterclockwise": ("angle", -1),
    "approach": ("scale", 1),
    "recede": ("scale", -1),
}
FPS = 12
TURN = np.float32(2 * np.pi)
ORBIT = 0.16  # radius of the circle, in units of the picture's side


@dataclass(frozen=True, kw_only=True)
class MotionsSettings:
    """`size` in pixels (square, even, at least 32); `frames` at least 8; `groups` of eight clips each."""

    groups: int = 30
    frames: int = 24
    size: int = 128
    seed: int = 0
    crf: int = 20

    def __post_init__(self) -> None:
        if self.groups < 5:
            raise ValueError(f"groups={self.groups}: expected at least 5, so that every split gets one")
        if self.frames < 8:
            raise ValueError(f"frames={self.frames}: expected at least 8")
        if self.size < 32 or self.size % 2:
            raise ValueError(f"size={self.size}: expected an even number of pixels, at least 32")


@dataclass(frozen=True)
class Texture:
    """A sum of plane waves: colour(x, y) = base + sum_k amplitude_k sin(2 pi frequency_k . (x, y) + phase_k)."""

    base: np.ndarray  # (3,)
    frequency: np.ndarray  # (K, 2), cycles per unit length
    phase: np.ndarray  # (K,)
    amplitude: np.ndarray  # (K, 3)

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Coordinates (H, W) -> colour (H, W, 3), float32, about 0-255."""
        colour = np.empty((3, *x.shape), np.float32)
        colour[:] = self.base[:, None, None]
        # Elementwise on purpose: a matrix product's last bits vary with memory alignment, and with them the files.
        for (fx, fy), phase, amplitude in zip(TURN * self.frequency, self.phase, self.amplitude, strict=True):
            wave = np.sin(x * fx + y * fy + phase)
            for plane, strength in zip(colour, amplitude, strict=True):
                plane += strength * wave
        return np.moveaxis(colour, 0, -1)


def draw_texture(rng: np.random.Generator, brightness: tuple[float, float], cycles: float, waves: int) -> Texture:
    """A random texture; its amplitudes fall as 1/frequency, as those of natural pictures do."""
    frequency = rng.normal(0, 1, (waves, 2)) * np.geomspace(0.3, 1, waves)[:, None] * cycles
    strength = 8 / np.maximum(np.linalg.norm(frequency, axis=1) / cycles, 0.3)
    base = rng.uniform(*brightness) + rng.uniform(-28, 28, 3)
    tint = 1 + rng.uniform(-0.5, 0.5, (waves, 3))
    return Texture(
        base.astype(np.float32),
        frequency.astype(np.float32),
        rng.uniform(0, 2 * np.pi, waves).astype(np.float32),
        (strength[:, None] * tint).astype(np.float32),
    )


def draw_path(rng: np.random.Generator, motion: str, frames: int) -> np.ndarray:
    """Where the blob is: float (frames, 3) = centre x, centre y, radius, in units of the picture's side."""
    grid = (np.arange(frames) + 0.5) / frames - 0.5
    span, turns, stretch = rng.uniform(0.32, 0.42), rng.uniform(0.7, 1.0), rng.uniform(1.3, 1.8)
    middle, first_angle = rng.uniform(0.44, 0.56, 2), rng.uniform(0, 2 * np.pi)
    # At rest every variable takes one value of the grid over which a class would animate it.
    value = {name: np.full(frames, grid[rng.integers(frames)]) for name in ("x", "y", "angle", "scale")}
    variable, direction = MOTIONS[motion]
    value[variable] = grid[::direction]
    angle = first_angle + 2 * np.pi * turns * value["angle"]
    x = middle[0] + span * value["x"] + ORBIT * np.cos(angle)
    y = middle[1] + span * value["y"] + ORBIT * np.sin(angle)
    return np.stack([x, y, 0.10 * 2 ** (stretch * value["scale"])], 1)


@dataclass(frozen=True)
class Blob:
    """A lobed disc with a texture of its own, turned by `turn` radians."""

    texture: Texture
    turn: float
    lobes: int
    depth: float

    def paint(self, canvas: np.ndarray, x: np.ndarray, y: np.ndarray, place: np.ndarray) -> None:
        """Blend it into `canvas` (H, W, 3) at `place` = (x, y, radius); `x` (W,) and `y` (H,) are pixel coordinates."""
        reach = place[2] * 1.3 + 2 / len(x)
        box = [np.flatnonzero(np.abs(axis - centre) < reach) for axis, centre in ((y, place[1]), (x, place[0]))]
        if not (len(box[0]) and len(box[1])):
            return
        rows, columns = (slice(inside[0], inside[-1] + 1) for inside in box)
        dx, dy = np.meshgrid((x[columns] - place[0]) / place[2], (y[rows] - place[1]) / place[2])
        u = np.cos(self.turn) * dx + np.sin(self.turn) * dy
        v = np.cos(self.turn) * dy - np.sin(self.turn) * dx
        edge = 1 + self.depth * np.cos(self.lobes * np.arctan2(v, u))
        softness = place[2] * len(x) / 1.5  # an edge about 1.5 pixels wide
        cover = np.clip((edge - np.hypot(u, v)) * softness + 0.5, 0, 1)[..., None].astype(np.float32)
        part = canvas[rows, columns]
        part += cover * (self.texture(u, v) - part)


def draw_blob(rng: np.random.Generator, brightness: tuple[float, float]) -> Blob:
    texture = draw_texture(rng, brightness, cycles=0.7, waves=4)
    return Blob(texture, rng.uniform(0, 2 * np.pi), int(rng.integers(2, 6)), rng.uniform(0.05, 0.25))


def render(settings: MotionsSettings, group: int, motion: str) -> Iterator[np.ndarray]:
    """The clip's frames, uint8 (size, size, 3)."""
    look = np.random.default_rng([settings.seed, group])  # the same for the eight clips of the group
    background = draw_texture(look, (60, 115), cycles=6, waves=10)
    blob, other = draw_blob(look, (170, 215)), draw_blob(look, (90, 150))
    contrast, noise, flicker = look.uniform(0.85, 1.1), look.uniform(1.5, 4.0), look.uniform(0, 4)

    rng = np.random.default_rng([settings.seed, group, list(MOTIONS).index(motion)])
    path = draw_path(rng, motion, settings.frames)
    resting = np.array([*rng.uniform(0.1, 0.9, 2), rng.uniform(0.04, 0.08)])
    brightness, sway, phases = rng.uniform(-12, 12), rng.uniform(0, 0.01), rng.uniform(0, 2 * np.pi, 4)
    shift = rng.uniform(0, 10, 2).astype(np.float32)  # which part of the background is seen
    side = ((np.arange(settings.size) + 0.5) / settings.size).astype(np.float32)
    for t in range(settings.frames):
        seconds = t / FPS
        camera_x = sway * (np.sin(2.1 * seconds + phases[0]) + 0.5 * np.sin(5.3 * seconds + phases[1]))
        camera_y = sway * (np.sin(1.7 * seconds + phases[2]) + 0.5 * np.sin(4.9 * seconds + phases[3]))
        x, y = side + np.float32(camera_x), side + np.float32(camera_y)
        picture = background(*np.meshgrid(x + shift[0], y + shift[1]))
        other.paint(picture, x, y, resting)
        blob.paint(picture, x, y, path[t])
        picture = (picture - 128) * np.float32(contrast) + np.float32(128 + brightness + rng.normal(0, flicker))
        picture += rng.standard_normal(picture.shape, np.float32) * np.float32(noise)
        yield np.clip(picture, 0, 255).round().astype(np.uint8)


def split_of(group: int, groups: int) -> str:
    """About 60% of the groups train, 13% val, 27% test; every split has at least one."""
    val, test = max(1, round(groups * 0.13)), max(1, round(groups * 0.27))
    return "test" if group >= groups - test else "val" if group >= groups - test - val else "train"


def write_video(path: Path, frames: Iterator[np.ndarray], settings: MotionsSettings) -> None:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        # One thread, for the bytes depend on their number; no macroblock tree, for x264's SIMD version of it reads
        # memory that nobody wrote when pictures are small (3% of clips of 64x64 differed from run to run).
        options = {"crf": str(settings.crf), "preset": "fast", "threads": "1", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width = stream.height = settings.size
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def make(folder: Path, settings: MotionsSettings) -> int:
    """Write the corpus into `folder`; returns the number of clips written, 0 where it is already there."""
    record = folder / "motions.json"
    clips = [(group, motion) for group in range(settings.groups) for motion in MOTIONS]
    if record.is_file() and json.loads(record.read_text()) == asdict(settings):
        if all((folder / motion / f"g{group:02d}.mp4").is_file() for group, motion in clips):
            return 0
    elif folder.is_dir() and any(folder.iterdir()) and not _ours(folder):
        raise ValueError(f"{folder}: expected a new or empty folder, or an earlier demo corpus")
    for stale in folder.glob("*/g*.mp4") if folder.is_dir() else ():
        stale.unlink()
    record.unlink(missing_ok=True)
    rows = []
    for number, (group, motion) in enumerate(clips, 1):
        name = f"{motion}/g{group:02d}.mp4"
        write_video(folder / name, render(settings, group, motion), settings)
        rows.append((name, motion, f"g{group:02d}", split_of(group, settings.groups)))
        if sys.stdout.isatty() or number == len(clips):
            print(f"\r{folder}: {number}/{len(clips)} clips", end="\n" if number == len(clips) else "", flush=True)
    temporary = folder / "labels.csv.tmp"
    with temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("path", "label", "group", "split"), *rows])
    os.replace(temporary, folder / "labels.csv")
    record.write_text(json.dumps(asdict(settings)) + "\n")  # last: its presence says that the corpus is whole
    return len(clips)


def _ours(folder: Path) -> bool:
    """An earlier, perhaps interrupted run: nothing in it but class folders and our three files."""
    return {entry.name for entry in folder.iterdir()} <= {*MOTIONS, "labels.csv", "labels.csv.tmp", "motions.json"}


def main() -> int:
    default = MotionsSettings()
    parser = argparse.ArgumentParser(description="Generate the demo corpus: short clips whose classes are motions.")
    parser.add_argument("folder", type=Path, help="where to write it")
    parser.add_argument("--groups", type=int, default=default.groups, help="8 clips a group (default %(default)s)")
    parser.add_argument("--frames", type=int, default=default.frames, help="a clip (default %(default)s, at 12/s)")
    parser.add_argument("--size", type=int, default=default.size, help="side in pixels (default %(default)s)")
    parser.add_argument("--crf", type=int, default=default.crf, help="x264 quality (default %(default)s)")
    parser.add_argument("--seed", type=int, default=default.seed)
    given = vars(parser.parse_args())
    folder = given.pop("folder")
    try:
        written = make(folder, MotionsSettings(**given))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not written:
        print(f"{folder}: already there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
