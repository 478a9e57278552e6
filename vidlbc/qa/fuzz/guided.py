"""The same targets under coverage guidance, where atheris is installed: libFuzzer keeps what reaches new code.

What libFuzzer sees is one file: a bitstream, a plan, stats, a table or a cache entry. Of two mutations it makes one
itself, and the other is ours, which mends checksums.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidlbc.errors import InputError
from vidlbc.qa.fuzz.corpus import Corpus, make_corpus

if TYPE_CHECKING:
    from vidlbc.qa.fuzz.run import FuzzSettings

_FILES = ("manifest/plan.json", "00000_stats.json", "00000.parquet", "00000.tar")
_STREAM, _ENTRY = len(_FILES), len(_FILES) + 1
_RSS_MIB = 3000


def run_guided(settings: FuzzSettings) -> int:
    """Exit status: 1 where libFuzzer stopped at a finding, which then lies in `out`/failures. Raises InputError."""
    if importlib.util.find_spec("atheris") is None:
        raise InputError("engine=atheris: it is not installed; pip install 'vidlbc[fuzz]', or use engine=mutations")
    make_corpus(settings.out / "corpus")
    for name in ("failures", "guided"):
        (settings.out / name).mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "vidlbc.qa.fuzz.guided",
        str(settings.out / "corpus"),
        ",".join(settings.targets),
        str(settings.max_pixels),
        str(settings.out / "guided"),
        f"-artifact_prefix={settings.out / 'failures'}/",
        f"-runs={settings.count}",
        f"-seed={settings.seed + 1}",
        f"-timeout={int(settings.hang)}",
        f"-report_slow_units={int(settings.hang)}",
        f"-rss_limit_mb={_RSS_MIB}",
        "-max_len=65536",
    ]
    return 1 if subprocess.run(command, check=False).returncode else 0


def seeds(corpus: Corpus, targets: tuple[str, ...]) -> Iterator[bytes]:
    """Valid inputs; the first byte says what the rest is, the second how it is read."""
    ways = range(8)
    if "container" in targets or "decoder" in targets:
        yield from (bytes([_STREAM, way]) + data for data in corpus.streams.values() for way in ways)
    if "shards" in targets:
        yield from (bytes([i, way]) + corpus.shards[name] for i, name in enumerate(_FILES) for way in ways)
    if "cache" in targets:
        yield bytes([_ENTRY, 0]) + corpus.entry


def take(corpus: Corpus, data: bytes, folder: Path) -> None:
    """One input of libFuzzer's. Raises what is neither decoded nor refused."""
    from vidlbc.qa.fuzz.targets import Case, draw_options, run_case
    from vidlbc.qa.fuzz.worker import judged

    if len(data) < 2:
        return
    kind, way, body = data[0] % (_ENTRY + 1), data[1], data[2:]
    options = draw_options(np.random.Generator(np.random.Philox(way)))
    if kind == _STREAM:
        names = sorted(corpus.streams)
        read = {"name": names[way % len(names)], "way": ("symbols", "base", "latents", "decompress")[way % 4]}
        cases = [Case("container", {"mutated.vlbc": body}), Case("decoder", {"mutated.vlbc": body}, read)]
    elif kind == _ENTRY:
        cases = [Case("cache", {"mutated.symbols": body})]
    else:
        cases = [Case("shards", _with_sizes(corpus, _FILES[kind], body), options)]
    for case in cases:
        outcome = judged(0, case.target, partial(run_case, corpus, case, folder))
        if outcome.verdict not in ("decoded", "refused"):
            raise AssertionError(f"{case.target}: {outcome.verdict}: {outcome.text}")


def mutate(corpus: Corpus, data: bytes, seed: int) -> bytes:
    """Ours, with good checksums."""
    from vidlbc.qa.fuzz.mutate_files import mutate_entry
    from vidlbc.qa.fuzz.mutate_stream import damaged, recounted, restructured

    draw = np.random.Generator(np.random.Philox(seed))
    kind, body = data[0] % (_ENTRY + 1), data[2:]
    if kind == _STREAM:
        other = list(corpus.streams.values())[draw.integers(len(corpus.streams))]
        body = recounted((damaged if draw.integers(3) == 0 else restructured)(draw, body, other))
    elif kind == _ENTRY:
        body = mutate_entry(draw, corpus.entry)
    else:
        body = damaged(draw, body, corpus.shards[_FILES[kind]])
    return data[:2] + body


def _with_sizes(corpus: Corpus, name: str, body: bytes) -> dict[str, bytes | None]:
    from vidlbc.qa.fuzz.mutate_files import mend_sizes

    changed: dict[str, bytes | None] = {name: body}
    if not name.endswith(".json"):
        mend_sizes(corpus.shards, changed)
    return changed


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["vidlbc"]):
        import vidlbc.codec.bitstream
        import vidlbc.codec.codec
        import vidlbc.codec.entropy.coder
        import vidlbc.shards.reader
        import vidlbc.shards.symbol_cache  # noqa: F401
    import torch

    from vidlbc.qa.fuzz.worker import memory_folder

    folder, targets, max_pixels, kept, *options = sys.argv[1:]
    torch.set_num_threads(1)
    corpus = Corpus(Path(folder))
    for codec in corpus.codecs.values():
        codec.max_pixels = int(max_pixels)
    work = Path(tempfile.mkdtemp(prefix="vidlbc-fuzz-", dir=memory_folder()))
    for number, data in enumerate(seeds(corpus, tuple(targets.split(",")))):
        (Path(kept) / f"seed-{number:03d}").write_bytes(data)

    def mutator(data: bytes, most: int, seed: int) -> bytes:
        if len(data) > 2 and seed % 2:
            return mutate(corpus, data, seed)[:most]
        return bytes(atheris.Mutate(data, most))

    atheris.Setup([sys.argv[0], *options, kept], lambda data: take(corpus, data, work), custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
