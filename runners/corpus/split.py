"""Hold a validation set out: whole groups of near-duplicates, the same share of every category, the same pairs whatever their order."""

from __future__ import annotations

from typing import Any

import numpy as np

from runners.corpus import near
from runners.corpus.words import Sets, mix

#: Set items read by the check of a split; beyond it a part of the validation pairs is checked.
_CHECKED_ITEMS = 30_000_000


def held_out(groups: Any, categories: Any, ids: Any, kept: Any, fraction: float, seed: int) -> Any:
    """Which of the kept pairs are validation, (n,) bool.

    Args:
        groups: (n,) label of the pairs that must stay together.
        categories: (n,) integers.
        ids: (n,) uint64, the content hash of each pair: the draw depends on these and the seed, not on the order of the pairs.
        kept: (n,) bool.
        fraction: share of validation, of every category as near as whole groups allow.
        seed: another seed draws other groups.
    """
    out = np.zeros(len(groups), bool)
    rows = np.flatnonzero(kept)
    if not len(rows) or not fraction:
        return out
    _, group = np.unique(groups[rows], return_inverse=True)
    draws = mix(ids[rows] + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15))
    order = np.lexsort((draws, group))
    begins = np.flatnonzero(np.concatenate([[True], group[order][1:] != group[order][:-1]]))
    # A group draws with its least member, and counts for that member's category.
    draw, category, size = draws[order][begins], categories[rows][order][begins], np.bincount(group)
    taken, carried = np.zeros(len(begins), bool), 0.0
    for name in np.unique(category):
        mine = np.flatnonzero(category == name)
        share = fraction * int(size[mine].sum()) + carried
        left = round(share)
        for one in mine[np.argsort(draw[mine], kind="stable")]:
            if size[one] <= left:
                taken[one] = True
                left -= int(size[one])
            if not left:
                break
        carried = share - round(share) + left
    out[rows] = taken[group]
    return out


def check(groups: Any, validation: Any, kept: Any, sets: tuple[Sets, ...], threshold: float) -> int:
    """Prove a split: no group on both sides, and no validation pair near a training pair, compared anew and in full.

    Returns how many validation pairs were compared (all, but for very large datasets). Raises AssertionError, which is a bug of ours.
    """
    held, trained = np.flatnonzero(kept & validation), np.flatnonzero(kept & ~validation)
    if np.intersect1d(groups[held], groups[trained]).size:
        raise AssertionError("a group of near-duplicates stands on both sides of the split")
    cost = max(1, sum(int(part.sizes[trained].sum()) for part in sets))
    compared = held[: max(1, _CHECKED_ITEMS // cost)]
    for one in compared:
        for part in sets:
            if len(trained) and near.jaccard_to_one(part, one, trained).max() >= threshold:
                raise AssertionError(f"validation pair {one} is near a training pair")
    return len(compared)
