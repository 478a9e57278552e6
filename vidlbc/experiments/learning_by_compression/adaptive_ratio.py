"""A compression ratio per clip against a constant one (Xie et al., arXiv 2105.13978, section 3.1 and Figure 4).

    every clip x every (variant, QP) --encode, decode--> bytes and PSNR --policies--> total bytes at equal mean PSNR

Policies choose a (variant, QP) for each clip:

    constant setting   the same variant and QP for all clips; of the variants, the one that needs the fewest bytes
    constant ratio     the same bits per pixel for all clips: the best quality within it
    target             the fewest bytes that reach a PSNR (what `encode psnr=` does)
    slope              the fewest bytes + mu * pixels * dB short: every clip stops where a dB costs the same

These choose among the QPs measured. `prices`: the encoder's own choice (as `encode bpp_per_db=`),
over all QPs, without having seen other clips; it is compared with the constant policies at the mean PSNR it gives.
"""

import io
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import vidlbc
from vidlbc.codec.codec import Codec
from vidlbc.codec.inputs import check_qp
from vidlbc.codec.rate_control import Target, compress_to_target
from vidlbc.errors import InputError
from vidlbc.evaluate.rate_distortion.bjontegaard import bd_rate
from vidlbc.experiments.clips import ClipSet, ClipSettings, load_clips
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.progress import progress_bar
from vidlbc.run.request import keep_request
from vidlbc.run.tables import format_table
from vidlbc.video.distortion import psnr

POLICIES = ("constant setting", "constant ratio", "target", "slope")
_STEPS = 24  # points of a policy's curve


@dataclass(frozen=True)
class AdaptiveSettings:
    """`model`: a folder or a shipped name; `variants`: those to choose from, () for all that the model has."""

    model: str
    data: str
    out: Path
    split: str = "test"
    clips: ClipSettings = ClipSettings()
    qps: tuple[int, ...] = (4, 12, 20, 28, 36, 44, 52, 60)
    variants: tuple[str, ...] = ()
    prices: tuple[float, ...] = ()
    device: str = "auto"


@dataclass(frozen=True)
class Choice:
    """One clip under one setting: true bytes, mean PSNR in dB over its frames."""

    clip: str
    variant: str | None
    qp: int
    pixels: int
    bytes: int
    psnr: float


@dataclass(frozen=True)
class Total:
    """A policy at one operating point: bytes of all clips, mean over clips of their PSNR, share of each variant."""

    bytes: int
    psnr: float
    shares: dict[str, float]


def run_adaptive_ratio(settings: AdaptiveSettings) -> dict[str, Any]:
    """Measure or resume; the figures of metrics.json. Raises InputError for whatever stands in the way."""
    for qp in settings.qps:
        check_qp(qp)
    if len(set(settings.qps)) < 4:
        raise InputError(f"qps={list(settings.qps)}: expected at least 4 different ones, for curves")
    codec = vidlbc.load(settings.model, device=settings.device, temporal="none")
    variants: tuple[str | None, ...] = settings.variants or codec.variants or (None,)
    for variant in variants:
        codec.kept(variant)
    for price in settings.prices:
        Target("bpp_per_db", price).check()
    asked = {**asdict(settings), "out": None, "prices": None, "weights": codec.fingerprint}
    keep_request(settings.out / "request.json", asked, settings.out, write=True)
    clips = load_clips(settings.data, settings.clips, settings.out / "cache").split(settings.split)
    points = _measure(codec, clips, variants, settings)
    curves = {name: policy_curve(name, points) for name in POLICIES}
    figures: dict[str, Any] = {
        "clips": len(clips),
        "pixels": clips.pixels,
        "points": len(points),
        "curves": {name: [asdict(total) for total in curve] for name, curve in curves.items()},
        "bd_rate": {
            f"{ours} against {anchor}": _difference(curves[anchor], curves[ours])
            for ours in ("target", "slope")
            for anchor in ("constant ratio", "constant setting")
        },
    }
    figures["encoder"] = [_encoder(codec, clips, variants, price, curves, settings.out) for price in settings.prices]
    write_atomic(settings.out / "metrics.json", dump_json(figures, indent=1))
    _plot(curves, clips.pixels, settings.out / "adaptive_ratio.png")
    print(table(figures))
    return figures


def _measure(codec: Codec, clips: ClipSet, variants: Sequence[str | None], settings: AdaptiveSettings) -> list[Choice]:
    """Every clip under every setting; what an earlier run measured is kept."""
    path = settings.out / "points.jsonl"
    points = [Choice(**json.loads(line)) for line in _whole_lines(path)]
    done = {(p.clip, p.variant, p.qp) for p in points}
    with progress_bar(desc="encode", unit="file", total=len(clips) * len(variants) * len(settings.qps)) as meter:
        meter.update(len(done))
        with open(path, "a", encoding="utf-8") as log:
            for key, frames in zip(clips.keys, clips.clips, strict=True):
                for variant in variants:
                    for qp in settings.qps:
                        if (key, variant, qp) in done:
                            continue
                        data = codec.compress(frames, qp, variant=variant)
                        quality = float(np.mean(psnr(codec.decompress(data), frames)))
                        pixels = frames.shape[0] * frames.shape[1] * frames.shape[2]
                        point = Choice(key, variant, qp, pixels, len(data), quality)
                        points.append(point)
                        log.write(json.dumps(asdict(point)) + "\n")
                        meter.update()
    return points


def _encoder(
    codec: Codec,
    clips: ClipSet,
    variants: tuple[str | None, ...],
    price: float,
    curves: dict[str, list[Total]],
    out: Path,
) -> dict[str, Any]:
    """What the encoder makes of all clips at a price, and what constant policies need for the same mean PSNR."""
    path = out / f"encoder-{price:g}.jsonl"
    chosen = [Choice(**json.loads(line)) for line in _whole_lines(path)]
    bar = progress_bar(desc=f"encode at {price:g}", unit="file", total=len(clips), initial=len(chosen))
    with bar as meter, open(path, "a", encoding="utf-8") as log:
        for key, frames in list(zip(clips.keys, clips.clips, strict=True))[len(chosen) :]:
            sink = io.BytesIO()
            report = compress_to_target(codec, frames, sink, Target("bpp_per_db", price), variants=variants)
            quality = float(np.mean(psnr(codec.decompress(sink.getvalue()), frames)))
            pixels = frames.shape[0] * frames.shape[1] * frames.shape[2]
            chosen.append(Choice(key, report.variant, report.qp, pixels, report.bytes, quality))
            log.write(json.dumps(asdict(chosen[-1])) + "\n")
            log.flush()
            meter.update()
    total = _total(chosen)
    needed = {name: bytes_at(curves[name], total.psnr) for name in POLICIES[:2]}
    saved = {name: None if size is None else 1 - total.bytes / size for name, size in needed.items()}
    return {"bpp_per_db": price, **asdict(total), "saved": saved}


def _whole_lines(path: Path) -> Iterable[str]:
    """Lines of a log; one that a killed run left unfinished is cut off."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_atomic(path, whole.encode())
    return whole.splitlines()


def policy_curve(policy: str, points: Sequence[Choice]) -> list[Total]:
    """Operating points of a policy, by rising bytes, none that another point of its own beats."""
    everyone = _by_clip(points)
    if policy == "constant setting":
        settings = {(p.variant, p.qp) for p in points}
        totals = [_total([_of(choices, *setting) for choices in everyone]) for setting in settings]
    else:
        totals = [_total([choose(choices) for choices in everyone]) for choose in _choosers(policy, points)]
    return _front(totals)


def _of(choices: Sequence[Choice], variant: str | None, qp: int) -> Choice:
    return next(p for p in choices if (p.variant, p.qp) == (variant, qp))


def _choosers(policy: str, points: Sequence[Choice]) -> list[Callable[[Sequence[Choice]], Choice]]:
    """One choice of a clip's point for each operating point of the policy."""

    def within(rate: float) -> Callable[[Sequence[Choice]], Choice]:
        def choose(choices: Sequence[Choice]) -> Choice:
            fitting = [p for p in choices if p.bytes <= rate * p.pixels]
            return max(fitting, key=lambda p: p.psnr) if fitting else min(choices, key=lambda p: p.bytes)

        return choose

    def reaching(quality: float) -> Callable[[Sequence[Choice]], Choice]:
        def choose(choices: Sequence[Choice]) -> Choice:
            good = [p for p in choices if p.psnr >= quality]
            return min(good, key=lambda p: p.bytes) if good else max(choices, key=lambda p: p.psnr)

        return choose

    def sloped(price: float) -> Callable[[Sequence[Choice]], Choice]:
        return lambda choices: min(choices, key=lambda p: p.bytes / p.pixels - price * p.psnr)

    rates = [p.bytes / p.pixels for p in points]
    qualities = [p.psnr for p in points]
    if policy == "constant ratio":
        return [within(rate) for rate in np.geomspace(min(rates), max(rates), _STEPS)]
    if policy == "target":
        return [reaching(quality) for quality in np.linspace(min(qualities), max(qualities), _STEPS)]
    prices = [price for clip in _by_clip(points) for price in _prices(clip)]
    return [sloped(price) for price in np.geomspace(min(prices) / 2, max(prices) * 2, 2 * _STEPS)]


def _by_clip(points: Sequence[Choice]) -> list[list[Choice]]:
    clips: dict[str, list[Choice]] = {}
    for point in points:
        clips.setdefault(point.clip, []).append(point)
    return list(clips.values())


def _prices(choices: Sequence[Choice]) -> list[float]:
    """What a dB costs along a clip's curve, in bytes a pixel."""
    front = _front([_total([choice]) for choice in choices])
    pixels = choices[0].pixels
    costs = [(b.bytes - a.bytes) / pixels / (b.psnr - a.psnr) for a, b in itertools.pairwise(front)]
    return [cost for cost in costs if cost > 0] or [1.0]


def _total(chosen: Sequence[Choice]) -> Total:
    """One choice a clip."""
    names = [str(p.variant) for p in chosen]
    shares = {name: names.count(name) / len(names) for name in sorted(set(names))}
    return Total(sum(p.bytes for p in chosen), float(np.mean([p.psnr for p in chosen])), shares)


def _front(totals: Iterable[Total]) -> list[Total]:
    """Those that no other beats in both bytes and quality."""
    front: list[Total] = []
    for total in sorted(totals, key=lambda t: (t.bytes, -t.psnr)):
        if not front or total.psnr > front[-1].psnr + 1e-6:
            front.append(total)
    return front


def _difference(anchor: Sequence[Total], ours: Sequence[Total]) -> float | None:
    if min(len(anchor), len(ours)) < 4:
        return None
    curves = [([t.bytes for t in curve], [t.psnr for t in curve]) for curve in (anchor, ours)]
    return bd_rate(*curves[0], *curves[1])


def bytes_at(curve: Sequence[Total], quality: float) -> float | None:
    """Bytes of a policy at a mean PSNR, interpolated in log(bytes) between its points; None outside of them."""
    if not curve or not curve[0].psnr <= quality <= curve[-1].psnr:
        return None
    return float(np.exp(np.interp(quality, [t.psnr for t in curve], [np.log(t.bytes) for t in curve])))


def table(figures: dict[str, Any]) -> str:
    """Bytes of each policy at the qualities that all of them reach."""
    curves = {n: [Total(**total) for total in curve] for n, curve in figures["curves"].items()}
    low, high = max(c[0].psnr for c in curves.values()), min(c[-1].psnr for c in curves.values())
    rows = []
    for quality in np.linspace(low, high, 7)[1:-1]:
        found = {name: bytes_at(curve, float(quality)) for name, curve in curves.items()}
        rows.append([f"{quality:.2f}", *[f"{found[name]:,.0f}" if found[name] else "-" for name in POLICIES]])
    title = f"{figures['clips']} clips: bytes of all at equal mean PSNR\n" + "\n".join(
        f"BD-rate, {name}: " + ("no overlap" if value is None else f"{value:+.1f}%")
        for name, value in figures["bd_rate"].items()
    )
    lines = [format_table(rows, ("mean PSNR dB", *POLICIES), title)]
    for made in figures["encoder"]:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in made["shares"].items())
        against = "; ".join(
            f"{name}: {'outside its curve' if share is None else f'{share:+.1%} saved'}"
            for name, share in made["saved"].items()
        )
        lines.append(
            f"encoder at {made['bpp_per_db']:g} bit/pixel a dB: {made['bytes']:,} bytes, {made['psnr']:.2f} dB "
            f"({shares}); at that PSNR, {against}"
        )
    return "\n".join(lines)


def _plot(curves: dict[str, list[Total]], pixels: int, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for name, curve in curves.items():
        axes.plot([8 * t.bytes / pixels for t in curve], [t.psnr for t in curve], marker=".", label=name)
    axes.set_xscale("log")
    axes.set_xlabel("bit/pixel, all clips")
    axes.set_ylabel("PSNR in dB, mean over clips")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
