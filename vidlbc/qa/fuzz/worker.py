"""One process that runs cases.  python -m vidlbc.qa.fuzz.worker FOLDER SEED HEADROOM TARGET,TARGET MAX_PIXELS

Takes case numbers on stdin, a line each; answers each with a line of JSON: the fields of `Outcome`. First of all it
answers, with number -1, what reading the valid inputs takes at most.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from vidlbc.errors import VidlbcError

_LINE = 1000  # characters


@dataclass(frozen=True)
class Outcome:
    """Of one case. `seconds` of the processor, all threads; `bytes`: the most memory above what there was before.

    `verdict`: decoded, refused (by one line of ours), traceback (by anything else) or memory (none was left).
    """

    number: int
    target: str
    verdict: str
    text: str
    seconds: float
    bytes: int


def judged(number: int, target: str, work: Callable[[], None]) -> Outcome:
    """Run `work` and tell how it ended."""
    before, began = _rest(), time.process_time()
    verdict, text = "decoded", ""
    try:
        work()
    except VidlbcError as error:
        verdict, text = "refused", str(error)
        if not text.strip() or not text.isprintable() or len(text) > _LINE:
            verdict, text = "traceback", f"{type(error).__name__} of other than one printable line: {text[:500]!r}"
    except MemoryError:
        verdict, text = "memory", traceback.format_exc()
    except RecursionError:
        verdict, text = "traceback", "RecursionError: " + traceback.format_exc()[-1500:]
    except Exception as error:
        short = "allocate memory" in str(error) or "alloc" in type(error).__name__.lower()
        verdict, text = "memory" if short else "traceback", traceback.format_exc()
    return Outcome(number, target, verdict, text, time.process_time() - began, max(0, _peak() - before))


def _rest() -> int:
    """Resident bytes now; the peak counts from here on."""
    # Without it (not Linux) the peak is the process's own, and says less.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """Most resident bytes since `_rest`."""
    with suppress(OSError), open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory_folder() -> str | None:
    """A folder that no disk has to keep up with, where there is one."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


def _limit_address_space(headroom: int) -> None:
    """What is reserved beyond `headroom` bytes is refused by the system, as MemoryError."""
    with suppress(OSError), open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + headroom, resource.RLIM_INFINITY))


def main() -> None:
    import torch

    from vidlbc.qa.fuzz.corpus import Corpus
    from vidlbc.qa.fuzz.targets import make_case, run_case, valid_cases

    folder, seed, headroom, targets, max_pixels = sys.argv[1:]
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    corpus = Corpus(Path(folder))
    for codec in corpus.codecs.values():
        codec.max_pixels = int(max_pixels)
    with tempfile.TemporaryDirectory(prefix="vidlbc-fuzz-", dir=memory_folder()) as w:
        work = Path(w)
        valid = [case for case in valid_cases(corpus) if case.target in targets.split(",")]
        # First what is made once a process (tables, threads, graphs), and is none of a case's.
        for case in valid:
            judged(-1, case.target, partial(run_case, corpus, case, work))
        done = [judged(-1, case.target, partial(run_case, corpus, case, work)) for case in valid]
        wrong = [outcome for outcome in done if outcome.verdict != "decoded"]
        most = Outcome(
            -1,
            "",
            wrong[0].verdict if wrong else "decoded",
            wrong[0].text if wrong else "",
            max((o.seconds for o in done), default=0.0),
            max((o.bytes for o in done), default=0),
        )
        answers.write(json.dumps(asdict(most)) + "\n")
        _limit_address_space(int(headroom))
        for line in sys.stdin:
            case = make_case(corpus, int(seed), int(line), tuple(targets.split(",")))
            outcome = judged(int(line), case.target, partial(run_case, corpus, case, work))
            answers.write(json.dumps(asdict(outcome)) + "\n")


if __name__ == "__main__":
    main()
