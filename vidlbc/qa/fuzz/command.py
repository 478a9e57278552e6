"""Mutated bitstreams, shards and cache entries: each must decode or be refused in one line, in time and in memory.

Every case runs in a process that is watched, and killed where it hangs; its input is a function of (seed, number). Exit
status 1 where a case ended in a stack trace, a crash, too late or with too much memory; those are kept in out/failures.
"""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from vidlbc.errors import InputError
from vidlbc.qa.fuzz import FuzzSettings, run_fuzz, run_guided
from vidlbc.qa.fuzz.run import BAD, GOOD
from vidlbc.run.options import option, required
from vidlbc.run.progress import progress_bar
from vidlbc.run.tables import format_table


@dataclass
class Options:
    """See `--help`."""

    out: str = required("folder for corpus/, fuzz.json, and failures/; the same command again goes on")
    count: int = option(100000, "cases")
    first: int = option(0, "number of the first one: to split a run, or to replay a case")
    seed: int = option(0, "a case is a function of seed and number")
    targets: list[str] = option(["container", "decoder", "shards", "cache"], "what reads them")
    engine: str = option("mutations", "mutations; atheris: guided by coverage (pip install 'vidlbc[fuzz]'), one target")
    processes: int = option(1, "that run cases side by side")
    seconds: float = option(1.0, "of the processor, that a case may take")
    times: float = option(2.0, "a valid input's memory, that a case may take")
    floor: int = option(32, "MiB below which memory is not judged")
    headroom: int = option(1024, "MiB of address space that a process may reserve above what valid input takes")
    hang: float = option(60.0, "seconds by the clock after which a case that does nothing is over")
    max_pixels: int = option(4096, "limit of the decoder: what a valid input may have")


def main(config: DictConfig) -> int:
    if config.engine not in ("mutations", "atheris"):
        raise InputError(f"engine={config.engine}: expected mutations or atheris")
    settings = FuzzSettings(
        Path(config.out),
        int(config.count),
        config.first,
        config.seed,
        tuple(config.targets),
        config.processes,
        config.seconds,
        config.times,
        config.floor << 20,
        config.headroom << 20,
        config.hang,
        config.max_pixels,
    )
    if config.engine == "atheris":
        return run_guided(settings)
    with progress_bar(desc="fuzz", unit="case", total=settings.count) as meter:
        tallies = run_fuzz(settings, meter.update)
    rows = [
        [name, t.cases, *[t.verdicts[verdict] for verdict in (*GOOD, *BAD)], f"{t.seconds:.2f}", t.bytes >> 20]
        for name, t in sorted(tallies.items())
    ]
    print(format_table(rows, ["target", "cases", *GOOD, *BAD, "most seconds", "most MiB"]))
    findings = sum(tally.findings for tally in tallies.values())
    print(f"\n{sum(tally.cases for tally in tallies.values()):,} cases of seed {settings.seed}: {findings} findings")
    if findings:
        print(f"inputs, traces and commands are in {settings.out / 'failures'}")
    return 1 if findings else 0
