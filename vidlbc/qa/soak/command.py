"""Long runs under bad conditions, counted: none may change a symbol or lose a clip.

    vidlbc qa soak symbols data=FOLDER out=FOLDER     encode and decode under ever other conditions
    vidlbc qa soak kills   input=VIDEOS out=FOLDER    kill encoding runs at random moments

symbols: devices, threads, instruction sets, precisions of the analysis and batch sizes are drawn at random; every
encoder and every decoder is a process of its own. Half of the rounds are coded as no encoder would: every frame that
can be is predicted, of kinds that have vectors from as far as these reach. A bitstream that decodes to other symbols is
kept.
kills: SIGKILL hits the launcher or a worker of vidlbc encode; after each, whatever bears a final name is compared
with an undisturbed run, and after the last run all of it.

Exit status 2 where a symbol differs, or a clip is lost, doubled or different.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig

from vidlbc.codec.models import find_model, kinds_of
from vidlbc.errors import InputError, VidlbcError
from vidlbc.qa.soak import KillSettings, SoakSettings, all_conditions, run_kills, run_soak
from vidlbc.run.options import option, required, section
from vidlbc.run.progress import progress_bar
from vidlbc.run.tables import format_table


@dataclass
class EncodeOptions:
    """`encode.*`."""

    shard_videos: int = option(1, "videos in a shard")
    clip_frames: int = option(24, "longer videos are cut into clips of at most this many frames")
    max_side: int | None = option(128, "longest side in pixels; larger videos are scaled down; null: full size")
    every: int | None = option(None, "only every n-th frame is coded; null: all")
    rdo: bool | None = option(None, "symbols chosen for rate and distortion; null: for kinds with a past")
    device: str = option("cpu", "auto, cpu or cuda")


@dataclass
class Options:
    """See `--help`."""

    command: str = option("symbols", "symbols or kills; may be given as the first word")
    data: str | None = option(None, "symbols: folder of videos and pictures, or one file")
    input: str | None = option(None, "kills: folder of videos, or annotation list")
    out: str = required(
        "symbols: folder for soak.json, and for bitstreams that decode to other symbols; kills: for both "
        "runs' shards and kills.json"
    )
    model: str = option("default", "shipped model or model folder")
    temporal: list[str] | None = option(
        None, "list of kinds; null is all that the model has; kills: its first, null is the model's own"
    )
    seed: int = option(0, "of clips, kinds, QPs and conditions; of victims and moments")
    symbols: float = option(1.0e08, "symbols: rounds go on until so many were compared")
    devices: list[str] | None = option(None, "symbols: cpu, cuda; null is what there is")
    precisions: list[str] = option(["fp32", "bf16"], "symbols: of the encoder's analysis")
    threads: list[int] = option([1, 2, 3], "symbols: of either process")
    batches: list[int] = option([1, 2, 5], "symbols: clips that are decoded at once")
    frames: int = option(48, "symbols: at most so many of a video and round")
    length: int = option(12, "symbols: frames of a clip")
    count: int = option(100, "kills: how many")
    processes: list[int] = option([1, 2], "kills: encoding processes of a run, drawn from these")
    encode: EncodeOptions = section(EncodeOptions, "kills: options of vidlbc encode")


def main(config: DictConfig) -> None:
    commands: dict[str, tuple[Callable[[DictConfig], None], str]] = {
        "symbols": (symbols, "data"),
        "kills": (kills, "input"),
    }
    if config.command not in commands:
        raise InputError(f"command={config.command}: expected one of {', '.join(commands)}")
    command, needed = commands[config.command]
    if config[needed] is None:
        raise InputError(f"missing value: give {needed}=... (folder of videos)")
    command(config)


def symbols(config: DictConfig) -> None:
    devices = list(config.devices or (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]))
    encoding, decoding = all_conditions(devices, list(config.precisions), list(config.threads), list(config.batches))
    kinds = tuple(config.temporal or kinds_of(find_model(config.model)))
    settings = SoakSettings(
        Path(config.data),
        Path(config.out),
        config.model,
        kinds,
        int(config.symbols),
        encoding,
        decoding,
        config.frames,
        config.length,
        config.seed,
    )
    with progress_bar(desc="soak", unit="symbol", unit_scale=True, total=settings.symbols) as meter:
        tallies = run_soak(settings, meter.update)
    rows = [[name, t.clips, f"{t.symbols:,}", t.mismatches] for name, t in sorted(tallies.items())]
    print(format_table(rows, ["encoder -> decoder", "clips", "symbols", "mismatches"]))
    total, wrong = (sum(getattr(t, name) for t in tallies.values()) for name in ("symbols", "mismatches"))
    print(f"\n{total:,} symbols of {', '.join(kinds)} under {len(tallies)} pairs of conditions: {wrong} mismatches")
    if wrong:
        raise VidlbcError(f"{wrong} symbols differ: the bitstreams are in {settings.out / 'mismatches'}")


def kills(config: DictConfig) -> None:
    given = {"model": config.model, **config.encode}
    options = [f"{name}={value}" for name, value in given.items() if value is not None]
    if config.temporal:
        options.append(f"temporal={config.temporal[0]}")
    settings = KillSettings(
        config.input, Path(config.out), tuple(options), config.count, tuple(config.processes), config.seed
    )
    with progress_bar(desc="kills", unit="kill", total=settings.count) as meter:
        counts = run_kills(settings, lambda: meter.update(1) and None)
    rows = [[victim, stage, number] for (victim, stage), number in sorted(counts.kills.items())]
    print(format_table(rows, ["killed", "while", "kills"]))
    total = sum(counts.kills.values())
    print(f"\n{counts.shards} shards, {counts.clips} clips; {total} kills, {counts.runs} runs, {counts.seconds:.0f} s")
    print(format_table([list(counts.wrong.values())], list(counts.wrong)))
    if any(counts.wrong.values()):
        raise VidlbcError(f"{settings.out / 'killed'} is not what an undisturbed run leaves, {settings.out / 'calm'}")
