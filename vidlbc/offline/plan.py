"""A plan: which command of the project runs until which minute, on what data, and what is chosen by a figure.

    minutes: 28                      all of it, counted from the first call
    calls: [5, 10, 10, 3]            minutes of each call (a command there); none: as few as there can be
    steps:
      - name: image                  {image} in later arguments is its model folder
        run: tools/pretrain_image.py what Python is given; or -m MODULE
        until: 16                    minute at which it is stopped, if it still runs
        closing: 0.5                 minutes that it has for its end: {until} is so much earlier
        args: [...]                  {data} {out} {until} {device} and names of earlier steps are filled in
        variant: [...]               more arguments; a step that chooses this one takes them over
        choose: {by: cost, of: [a, b], best: min}
        otherwise: [[...], [...]]    where it fails: changed arguments of the next attempts
        weights: [default/image_stage]   what it needs of vidlbc/weights
        done: model/trained.json     file of {out} that says that nothing more is wanted of it
    lists: {videos.csv: {train: [...], test: [...]}}     annotation lists that are made of sources below data=
    small: {tools/pretrain_image.py: [...]}              arguments of a rehearsal

A step starts when the one before it has ended, early or not, and what it reads has arrived.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from vidlbc.errors import InputError

ListedSource = str | dict[str, Any]
RESERVED = ("data", "out", "until", "device")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Choice:
    """The step of `of` whose last figure `by` (dots go into a line's sections) is `best`, min or max."""

    by: str
    of: tuple[str, ...]
    best: str = "min"


@dataclass(frozen=True)
class Step:
    """See the module. `until`, `closing`: minutes."""

    name: str
    run: str
    until: float
    args: tuple[str, ...] = ()
    closing: float = 0.5
    variant: tuple[str, ...] = ()
    choose: Choice | None = None
    otherwise: tuple[tuple[str, ...], ...] = ()
    weights: tuple[str, ...] = ()
    done: str | None = None


@dataclass(frozen=True)
class OfflinePlan:
    """See the module."""

    name: str
    minutes: float
    steps: tuple[Step, ...]
    calls: tuple[float, ...] = ()
    lists: Mapping[str, Mapping[str, Sequence[ListedSource]]] = field(default_factory=dict)
    small: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """What `plan_of` reads."""
        return json.loads(json.dumps(asdict(self)))


def read_plan(name: str, folder: Path) -> OfflinePlan:
    """A plan of `folder` by its name, or a YAML file. Raises InputError naming the choices, or what is wrong in it."""
    from omegaconf import OmegaConf

    path = folder / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise InputError(f"plan={name}: no such plan or file (plans: {known})")
    try:
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception as error:  # whatever the YAML reader makes of a file that is none
        raise InputError(f"{path}: not a plan in YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a plan with minutes and steps")
    return plan_of({"name": path.stem, **{str(key): value for key, value in values.items()}}, str(path))


def plan_of(values: Mapping[str, Any], where: str) -> OfflinePlan:
    """From what YAML or JSON holds. Raises InputError with one line."""
    entries = values.get("steps")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{where}: expected a list of steps")
    steps = tuple(_step(entry, f"{where}, step {number + 1}") for number, entry in enumerate(entries))
    plan = _build(OfflinePlan, {**values, "steps": steps}, where)
    small = {str(key): _texts(value, f"{where}, small") for key, value in (plan.small or {}).items()}
    plan = replace(plan, small=small, lists=plan.lists or {}, calls=tuple(plan.calls or ()))
    _check(plan, where)
    return plan


def _step(entry: Any, where: str) -> Step:
    if not isinstance(entry, Mapping):
        raise InputError(f"{where}: expected name, run, until, ...; found {entry!r}")
    values = dict(entry)
    where = f"{where} ({values.get('name')})"
    for key in ("args", "variant", "weights"):
        values[key] = _texts(values.get(key), f"{where}, {key}")
    values["otherwise"] = tuple(_texts(one, f"{where}, otherwise") for one in values.get("otherwise") or ())
    if isinstance(values.get("choose"), Mapping):
        chosen = dict(values["choose"])
        values["choose"] = _build(Choice, {**chosen, "of": _texts(chosen.get("of"), f"{where}, choose")}, where)
    return _build(Step, values, where)


def _build(kind: type, values: Mapping[str, Any], where: str) -> Any:
    try:
        return kind(**values)
    except TypeError as error:
        told = str(error).partition("__init__() ")[2] or str(error)
        raise InputError(f"{where}: {told}") from None


def _texts(values: Any, where: str) -> tuple[str, ...]:
    if values is None:
        return ()
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise InputError(f"{where}: expected a list of texts, found {values!r}")
    return tuple(values)


def _check(plan: OfflinePlan, where: str) -> None:
    before, names = 0.0, list(RESERVED)
    for step in plan.steps:
        place = f"{where}, step {step.name}"
        if not isinstance(step.name, str) or not _NAME.fullmatch(step.name) or step.name in names:
            raise InputError(f"{place}: expected a name of its own, of small letters, digits and _")
        words = step.run.split() if isinstance(step.run, str) else []
        if not words or not (words[0] == "-m" and len(words) > 1 or re.fullmatch(r"tools/\w+\.py", words[0])):
            raise InputError(f"{place}: run={step.run!r}, expected tools/NAME.py or -m MODULE")
        for name, value in (("until", step.until), ("closing", step.closing)):
            if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
                raise InputError(f"{place}: {name}={value!r}, expected a number of minutes")
        if not before < step.until:
            raise InputError(f"{place}: until={step.until:g}, but the step before it ends at {before:g}")
        if step.choose is not None:
            unknown = [name for name in step.choose.of if name not in names[len(RESERVED) :]]
            if unknown or not step.choose.of:
                raise InputError(f"{place}: chooses {', '.join(unknown) or 'nothing'}: expected names of earlier steps")
            if step.choose.best not in ("min", "max"):
                raise InputError(f"{place}: best={step.choose.best}, expected min or max")
        for text in (*step.args, *step.variant, *sum(step.otherwise, ())):
            for name in placeholders(text):
                if name not in names:
                    raise InputError(f"{place}: {{{name}}} in {text} is no earlier step and none of {RESERVED}")
        before = step.until
        names.append(step.name)
    if not isinstance(plan.minutes, int | float) or plan.minutes < before:
        raise InputError(f"{where}: minutes={plan.minutes!r}, expected at least {before:g}, where its last step ends")

    if not all(isinstance(length, int | float) and length > 0 for length in plan.calls):
        raise InputError(f"{where}: calls={list(plan.calls)}, expected minutes of each call")


def placeholders(text: str) -> list[str]:
    """The names in braces: of `a={data}/b{out}` data and out. (`{path: a}` is a mapping of the tools' own grammar.)"""
    return re.findall(r"\{(\w+)\}", text)


def fill(text: str, values: Mapping[str, str]) -> str:
    """Every placeholder that has a value replaced by it."""
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), text)


def merged(args: Sequence[str], more: Sequence[str]) -> list[str]:
    """`args` with those of the same key replaced by `more`, the rest of `more` behind."""
    keys = {text.partition("=")[0] for text in more}
    return [text for text in args if "=" not in text or text.partition("=")[0] not in keys] + list(more)


def with_calls(plan: OfflinePlan, call_minutes: float) -> OfflinePlan:
    """The plan with its calls told: its own, else as few of equal length as `call_minutes` allows.

    Raises InputError where its own are too long, or do not reach the end of its last step.
    """
    if not call_minutes > 0:
        raise InputError(f"call_minutes={call_minutes}: expected more than 0")
    if not plan.calls:
        count = math.ceil(plan.minutes / call_minutes - 1e-9)
        return replace(plan, calls=(plan.minutes / count,) * count)
    if max(plan.calls) > call_minutes or sum(plan.calls) < plan.steps[-1].until:
        told = f"plan {plan.name}: calls={list(plan.calls)} of {plan.steps[-1].until:g} minutes of steps"
        raise InputError(f"{told}: expected each at most call_minutes={call_minutes:g}, and enough together")
    return plan


def scaled(plan: OfflinePlan, scale: float, least_s: float) -> OfflinePlan:
    """A rehearsal: every step takes `scale` of its minutes, at least `least_s` seconds, with the arguments of `small`;
    calls begin at the same point of the same step.

    Two fifths of a step at least are left for its end: on a slow machine most of a short step is Python starting.
    """
    if not scale > 0 or not least_s >= 0:
        raise InputError(f"scale={scale}, least_s={least_s}: expected more than 0, and at least 0")
    steps: list[Step] = []
    before, now, marks = 0.0, 0.0, [(0.0, 0.0)]
    for step in plan.steps:
        length = max(scale * (step.until - before), least_s / 60)
        before, now = step.until, now + length
        marks.append((before, now))
        small = plan.small.get(step.run, ())
        closing = min(length, max(scale * step.closing, 0.4 * least_s / 60))
        steps.append(replace(step, until=now, closing=closing, args=tuple(merged(step.args, small))))
    ends = [_mapped(sum(plan.calls[: count + 1]), marks, scale) for count in range(len(plan.calls))]
    lengths = tuple(end - start for start, end in zip([0.0, *ends], ends, strict=False))
    return replace(plan, minutes=_mapped(plan.minutes, marks, scale), calls=lengths, steps=tuple(steps))


def _mapped(minute: float, marks: Sequence[tuple[float, float]], scale: float) -> float:
    """A minute of the plan in the rehearsal: `marks` are ends of steps, (then, now); behind them time just scales."""
    for (then, now), (next_then, next_now) in pairwise(marks):
        if minute <= next_then:
            return now + (minute - then) / (next_then - then) * (next_now - now)
    return marks[-1][1] + scale * (minute - marks[-1][0])
