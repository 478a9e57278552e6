"""What comes home of a run: its state, what each step wrote and printed, and weights, the newest first.

state.json                    plan, environment, what became of each step
STEP/printed.txt              the end of what it printed
STEP/*.jsonl  STEP/*.json     figures
STEP/model/...                a whole model's files, without an image stage that is there otherwise
STEP/average.safetensors  STEP/about.json      of a training at work: its averaged weights, and what they fit
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save

from vidlbc.codec import models
from vidlbc.errors import VidlbcError
from vidlbc.offline import weights
from vidlbc.offline.plan import OfflinePlan
from vidlbc.offline.results import Entry, Group, Limits, write_generation
from vidlbc.offline.state import Call, Record, Root
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.tensor_files import load_tensors

_PRINTED, _LOG, _JSON = 1 << 15, 1 << 18, 1 << 18


def collect(root: Root, results: Path, limits: Limits) -> int:
    """Write the next generation; the bytes of it. What does not fit is named in its index."""
    plan, _, commit = root.pack()
    call = root.call()
    assert call is not None
    records = root.records(plan)
    groups = [Group([Entry("state.json", dump_json(_state(plan, call, commit, records), indent=1))])]
    groups += [Group(_figures(root, name, record)) for name, record in records.items() if record.out]
    begun = {s.name: (s.run, Path(records[s.name].out)) for s in reversed(plan.steps) if records[s.name].out}
    trained = {name: found for name, found in begun.items() if weights.trains(found[0])}
    images = {name: _digest(out) for name, (run, out) in trained.items() if run == weights.IMAGE}
    kept = {*images.values(), *[_digest(folder) for folder in models.SHIPPED.glob("*")]}
    for name in _in_order(trained, images):
        groups += _weights(name, *trained[name], kept)
    counter = root.path / "generation"
    number = int(counter.read_text()) + 1 if counter.is_file() else 1
    write_atomic(counter, f"{number}\n".encode())
    return write_generation(results, f"{call.began:.0f}", number, groups, limits)


def _in_order(trained: Mapping[str, tuple[str, Path]], images: Mapping[str, bytes | None]) -> list[str]:
    """The newest step first, and behind it the one whose image stage it is of: neither is of use alone."""
    order: list[str] = []
    for name, (run, out) in trained.items():
        own = None if run == weights.IMAGE else _digest(out / "model")
        order += [name, *[image for image, digest in images.items() if own is not None and digest == own][:1]]
    return list(dict.fromkeys(order))


def _state(plan: OfflinePlan, call: Call, commit: str, records: dict[str, Record]) -> dict[str, Any]:
    return {
        "plan": plan.as_json(),
        "commit": commit,
        **asdict(call),
        "records": {name: asdict(record) for name, record in records.items()},
    }


def _figures(root: Root, name: str, record: Record) -> list[Entry]:
    out, found = Path(record.out), []
    printed = root.path / "out" / f"{name}.log"
    logs = [(out / "training" / own, _LOG, own) for own in ("log.jsonl", "validation.jsonl")]
    for path, most, own in [(printed, _PRINTED, "printed.txt"), *logs]:
        if path.is_file():
            found.append(Entry(f"{name}/{own}", path.read_bytes()[-most:]))
    for path in [*sorted(out.glob("*.json")), out / "training" / "request.json"]:
        if path.is_file() and path.name != "config.json" and path.stat().st_size <= _JSON:
            found.append(Entry(f"{name}/{path.name}", path.read_bytes()))
    return found


def _weights(name: str, run: str, out: Path, kept: set[bytes | None]) -> Iterator[Group]:
    """`kept`: digests of image stages that come home anyway, or are there."""
    try:
        folder = weights.model_folder(run, out)
        if not weights.is_model(run, out):
            yield from _average(name, run, out)
        elif run == weights.IMAGE:
            yield _folder(name, folder, "image_stage")
        else:
            yield _folder(name, folder, "temporal")
        if run == weights.VIDEO and (folder / "image_stage").is_dir():
            if _digest(folder) not in kept:
                kept.add(_digest(folder))
                yield _folder(name, folder, "image_stage")
    except (VidlbcError, OSError) as error:  # half written, or gone since: the next generation has it
        yield Group([Entry(f"{name}/no-weights.txt", f"{error}\n".encode())])


def _average(name: str, run: str, out: Path) -> Iterator[Group]:
    path = out / weights.AVERAGE
    if path.is_file():
        tensors, meta = load_tensors(path)
        described = weights.about(run, out)
        data = save(weights.as_stored(described, tensors))
        about = dump_json({**described, "meta": meta}, indent=1)
        yield Group([Entry(f"{name}/average.safetensors", data), Entry(f"{name}/about.json", about)])


def _folder(name: str, folder: Path, part: str) -> Group:
    """Of a finished model: its bytes stay what they are."""
    paths = sorted(path for path in (folder / part).rglob("*") if path.is_file() and not path.name.startswith("."))
    named = [(f"{name}/model/{path.relative_to(folder).as_posix()}", path) for path in paths]
    return Group([Entry(place, path.read_bytes()) for place, path in named], final=True)


def _digest(model: Path) -> bytes | None:
    """Of the image stage of a model; None where there is none that is whole."""
    with suppress(VidlbcError, OSError):
        return models.stored_digest(model / "image_stage")
    return None
