"""What the main job would do, told before it does any of it: `plan=true`."""

from dataclasses import replace

from vidlbc.codec.load import load
from vidlbc.codec.models import find_model, kinds_of
from vidlbc.pipeline.check import check_values, shard_settings
from vidlbc.pipeline.settings import JobSettings
from vidlbc.shards import read_annotations
from vidlbc.shards.forecast import forecast, held_out


def plan_of_job(settings: JobSettings) -> str:
    """Label map, splits, files, and about how long and how many bytes. Raises InputError as the job would."""
    check_values(settings)
    corpus = read_annotations(
        settings.root, settings.labels, fold=settings.fold, form=settings.form, columns=settings.columns
    )
    lines = [corpus.label_map()]
    if corpus.splits:
        lines.append(", ".join(f"{len(corpus.select(split).items)} {split}" for split in corpus.splits))
    else:
        lines.append(held_out(settings.holdout))
    budget = settings.train.budget
    if settings.temporal != "none" and budget is not None:
        limits = {"minutes": budget.minutes, "steps": budget.steps}
        told = " or ".join(f"{value:g} {name}" for name, value in limits.items() if value is not None)
        lines.append(f"training of {settings.temporal}: {told or 'until the time given'}")
    # The image stage alone stands for the kind that is still to be trained: neither its time nor its bytes are known.
    folder = find_model(settings.image_stage)
    kind = settings.temporal if settings.temporal in kinds_of(folder) else "none"
    codec = load(folder, settings.device, kind, settings.precision, effort=settings.effort)
    how = replace(shard_settings(settings), rdo=codec.prefers_rdo if settings.rdo is None else settings.rdo)
    lines.append(forecast(corpus, codec, how).told(settings.processes))
    if codec.kind != settings.temporal:
        lines.append(f"(coded with kind {codec.kind} for this; {settings.temporal} is still to be trained)")
    return "\n".join(lines)
