"""A holdout of the training split by group, so that no person (scene, recording) is on both sides."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from vidlbc.errors import InputError


def split_by_group(
    groups: Sequence[str], labels: Sequence[int], fraction: float = 0.2, seed: int = 0
) -> tuple[list[int], list[int]]:
    """(fit, holdout) indices: whole groups, in a seeded order, go to the holdout until it has `fraction` of the items.

    A group whose items are the last of some class stays in the fit part, for as long as another group will do. An
    empty group name makes an item a group of its own. With a single group there is no split by group: InputError.
    """
    if not 0.0 < fraction < 1.0:
        raise InputError(f"the holdout fraction must be in (0, 1), got {fraction}")
    if len(groups) != len(labels):
        raise InputError(f"{len(groups)} groups for {len(labels)} labels")
    members: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[group or f"\0{i}"].append(i)
    if len(members) < 2:
        raise InputError(f"a holdout by group needs at least 2 groups in the training split, got {len(members)}")
    names = sorted(members)
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    wanted = max(1, math.floor(fraction * len(groups) + 0.5))
    left = Counter(labels)
    chosen: list[str] = []
    held = 0
    for name in sorted(order, key=lambda n: _empties_a_class(members[n], labels, left)):
        if held and (held >= wanted or len(chosen) == len(members) - 1):
            break
        if chosen and _empties_a_class(members[name], labels, left):
            continue
        # Overshooting by more than the shortfall makes the holdout worse than stopping short.
        if chosen and held + len(members[name]) - wanted > wanted - held:
            continue
        chosen.append(name)
        held += len(members[name])
        left -= Counter(labels[i] for i in members[name])
    holdout = sorted(i for name in chosen for i in members[name])
    inside = set(holdout)
    return [i for i in range(len(groups)) if i not in inside], holdout


def _empties_a_class(items: Sequence[int], labels: Sequence[int], left: Counter) -> bool:
    return any(left[label] <= n for label, n in Counter(labels[i] for i in items).items())
