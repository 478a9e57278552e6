"""What one model for all QPs costs against models that were each trained for one: same stage, data and steps.

    OUT/all/       trained on QPs drawn from 0..63      OUT/qp16/, OUT/qp48/, ...   each on one QP alone
    OUT/metrics.json    at each of these QPs: bits of the model for all, at the other's PSNR, above the other's

The model for all is coded at neighbouring QPs too; its rate at exactly the other's PSNR is read off the curve through
them (monotone cubic of log rate over PSNR).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

from vidlbc.codec.inputs import check_qp
from vidlbc.codec.prior.topdown import NUM_QP
from vidlbc.errors import InputError
from vidlbc.run.atomic_files import dump_json, write_atomic
from vidlbc.run.tables import format_table
from vidlbc.train.data.image_data import CropSettings
from vidlbc.train.data.pictures import PictureSource
from vidlbc.train.image_job import ImageJobSettings, run_image_job
from vidlbc.train.schedule import Budget

_STEP, _EACH_WAY = 6, 2  # neighbouring QPs of the model for all


@dataclass(frozen=True)
class RateStudySettings:
    """`qps`: for each a model of its own; `stage`: options of the `lbc` image stage; `steps`: of every training.

    `init`: a model for all QPs that every training goes on from; its options then hold.
    """

    train: tuple[PictureSource, ...]
    val: tuple[PictureSource, ...]
    out: Path
    qps: tuple[int, ...] = (16, 48)
    stage: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 2000
    crops: CropSettings = field(default_factory=CropSettings)
    lr: float = 1.5e-3
    ema: float = 0.995
    seed: int = 0
    eval_pictures: int = 24
    device: str = "auto"
    init: str | None = None


def run_rate_study(settings: RateStudySettings) -> dict[str, Any]:
    """Train and measure; resumes. Returns the figures of metrics.json. Raises InputError."""
    if not settings.qps:
        raise InputError("qps=[]: expected at least one")
    if not settings.train or not settings.val:
        raise InputError("data.train and data.val: expected pictures to train and to measure on")
    for qp in settings.qps:
        check_qp(qp)
    around = sorted({n for qp in settings.qps for n in neighbours(qp)})
    everything = _curve(_one(settings, "all", None, around))
    rows = []
    for qp in settings.qps:
        (bpp,), (psnr,) = _curve(_one(settings, f"qp{qp}", (qp,), [qp]))
        own = everything[0][around.index(qp)], everything[1][around.index(qp)]
        rows.append(
            {
                "qp": qp,
                "bpp": bpp,
                "psnr": psnr,
                "all_bpp": own[0],
                "all_psnr": own[1],
                "all_above_percent": excess(*everything, bpp, psnr),
            }
        )
    figures = {"steps": settings.steps, "pictures": settings.eval_pictures, "init": settings.init, "rows": rows}
    write_atomic(settings.out / "metrics.json", dump_json(figures, indent=1))
    print(rate_table(figures))
    return figures


def neighbours(qp: int) -> list[int]:
    """QPs around one, itself among them."""
    return [n for k in range(-_EACH_WAY, _EACH_WAY + 1) if 0 <= (n := qp + _STEP * k) < NUM_QP]


def excess(rates: Sequence[float], qualities: Sequence[float], bpp: float, psnr: float) -> float | None:
    """Percent by which the curve's rate at `psnr` is above `bpp`; None where the curve does not reach there."""
    order = np.argsort(qualities)
    x, y = np.asarray(qualities)[order], np.log(np.asarray(rates)[order])
    if not x[0] <= psnr <= x[-1] or (np.diff(x) <= 0).any():
        return None
    return float(100 * (np.exp(PchipInterpolator(x, y)(psnr)) / bpp - 1))


def rate_table(figures: Mapping[str, Any]) -> str:
    """The table that ends a run."""
    lines = [
        [
            row["qp"],
            f"{row['bpp']:.4f}",
            f"{row['psnr']:.2f}",
            f"{row['all_bpp']:.4f}",
            f"{row['all_psnr']:.2f}",
            None if row["all_above_percent"] is None else f"{row['all_above_percent']:+.2f}",
        ]
        for row in figures["rows"]
    ]
    start = f" from {figures['init']}" if figures["init"] else ""
    title = (
        f"{figures['pictures']} validation pictures, true bytes, {figures['steps']} steps each"
        f"{start}; last: bits of the model for all QPs at the PSNR of the one for this QP, above its bits"
    )
    header = ["QP", "bpp, one QP", "dB", "bpp, all QPs", "dB", "all above one %"]
    return format_table(lines, header, title)


def _one(settings: RateStudySettings, name: str, qps: tuple[int, ...] | None, measured: Sequence[int]) -> Any:
    """Validation rates of one training, or what is there from an earlier run."""
    out = settings.out / name
    if (out / "metrics.json").is_file():
        return json.loads((out / "metrics.json").read_text())["val"]
    print(f"--- {name}", flush=True)
    job = ImageJobSettings(
        train=settings.train,
        out=out,
        family="lbc",
        options=dict(settings.stage),
        budget=Budget(steps=settings.steps),
        crops=replace(settings.crops, qps=qps),
        lr=settings.lr,
        ema=settings.ema,
        seed=settings.seed,
        val=settings.val,
        eval_qps=tuple(measured),
        eval_pictures=settings.eval_pictures,
        device=settings.device,
        init=settings.init,
    )
    figures = run_image_job(job)
    assert figures is not None, "this study runs in one process"
    return figures["val"]


def _curve(rates: Sequence[Mapping[str, float]]) -> tuple[list[float], list[float]]:
    return [rate["bpp"] for rate in rates], [rate["psnr"] for rate in rates]
