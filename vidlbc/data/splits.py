"""A split for corpora that come without one: deterministic, by group, the same content never on both sides."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from vidlbc.data.content import Content, contents_of
from vidlbc.data.corpus import Corpus
from vidlbc.errors import InputError


def split_corpus(
    corpus: Corpus, *, test: float = 0.2, val: float = 0.0, seed: int = 0, contents: Mapping[str, Content] | None = None
) -> Corpus:
    """The corpus with every item in train, val or test. `test`, `val`: the shares of the items, in [0, 1).

    Items of one group, or of the same bytes under two names, stay together (without a group, content decides alone).
    Groups are taken in the order of their hash, so the order of the listing and the names of folders do not matter,
    and a group is passed over when training would lose the last item of a class. Raises InputError when nothing can
    be held out (a single group), or when the corpus is already split.
    """
    if corpus.splits:
        raise InputError(f"{corpus.source}: already split ({', '.join(corpus.splits)})")
    if not (0 <= test < 1 and 0 <= val < 1 and test + val < 1):
        raise InputError(f"shares test={test} and val={val}: expected each in [0, 1) and a sum below 1")
    if contents is None:
        contents = contents_of(corpus)
    bundles = _bundles(corpus, contents)
    order = sorted(bundles, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    in_train = Counter(item.label for item in corpus.items)
    assigned: dict[str, str] = {}
    for split, share in (("test", test), ("val", val)):
        wanted = share * len(corpus.items)
        taken = 0
        for name in order:
            size = len(bundles[name])
            # Stop where the share is met better without this group than with it, but never empty-handed.
            if name in assigned or taken >= wanted or (taken and taken + size - wanted > wanted - taken):
                continue
            labels = Counter(corpus.items[index].label for index in bundles[name])
            if len(assigned) + 1 == len(bundles) or any(in_train[label] == count for label, count in labels.items()):
                continue
            in_train -= labels
            assigned[name] = split
            taken += size
        if wanted and not taken:
            raise InputError(
                f"{corpus.source}: cannot hold out a {split} split: each of its {len(bundles)} groups"
                " holds all items of a class; give the corpus a split, or hold nothing out"
            )
    split_of = {index: assigned.get(name, "train") for name, indices in bundles.items() for index in indices}
    return replace(corpus, items=tuple(replace(item, split=split_of[i]) for i, item in enumerate(corpus.items)))


def _bundles(corpus: Corpus, contents: Mapping[str, Content]) -> dict[str, list[int]]:
    """Item indices by bundle: items tied by a group or by equal bytes (union-find), named by their smallest tie."""
    parent: dict[str, str] = {}

    def find(tie: str) -> str:
        while parent.setdefault(tie, tie) != tie:
            parent[tie] = parent[parent[tie]]
            tie = parent[tie]
        return tie

    own = []
    for item in corpus.items:
        content = "content:" + (contents[item.path].sha256 or item.path)
        tie = f"group:{item.group}" if item.group else content
        first, second = sorted((find(tie), find(content)))
        parent[second] = first
        own.append(tie)
    bundles: dict[str, list[int]] = {}
    for index, tie in enumerate(own):
        bundles.setdefault(find(tie), []).append(index)
    return bundles
