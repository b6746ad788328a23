"""Hold a validation set out: whole groups of near-duplicates, the same share of every category, the same pairs whatever their order."""

from __future__ import annotations

from typing import Any

import numpy as np

from runners.corpus.words import Sets, mix, runs

#: The check compares every validation pair with every training pair up to so many comparisons; beyond, a sample of the validation pairs.
_ALL_PAIRS, _SAMPLE = 20_000_000, 200
_BLOCK_ITEMS = 2 << 20


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
    begins = runs(group[order])[:-1]
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
    """Prove a split: no group on both sides, and no validation pair near a training pair, compared again and in full.

    Returns how many validation pairs were compared (all, but for very large datasets). Raises AssertionError, which is a bug of ours.
    """
    held, trained = np.flatnonzero(kept & validation), np.flatnonzero(kept & ~validation)
    if np.intersect1d(groups[held], groups[trained]).size:
        raise AssertionError("a group of near-duplicates is on both sides of the split")
    compared = held if len(held) * len(trained) <= _ALL_PAIRS else held[:_SAMPLE]
    for part in sets:
        near_to = nearest(part, compared, trained)
        if (near_to >= threshold).any():
            raise AssertionError(f"validation pair {compared[int(near_to.argmax())]} is near a training pair")
    return len(compared)


def nearest(sets: Sets, some: Any, others: Any) -> Any:
    """Highest Jaccard of each of ``some`` sets with any of ``others``, (k,) float: the product of two item matrices, block by block."""
    from scipy.sparse import csr_array

    best = np.zeros(len(some))
    owner, items = sets.of(some)
    known, column = np.unique(items, return_inverse=True)
    if not len(known) or not len(others):
        return best
    wanted = csr_array((np.ones(len(column), np.float32), (column, owner)), shape=(len(known), len(some)))
    blocks = max(1, int(sets.sizes[others].sum()) // _BLOCK_ITEMS, len(others) * len(some) // _BLOCK_ITEMS)
    for block in np.array_split(others, blocks):
        row, items = sets.of(block)
        at = np.minimum(np.searchsorted(known, items), len(known) - 1)
        found = known[at] == items
        mine = csr_array((np.ones(int(found.sum()), np.float32), (row[found], at[found])), shape=(len(block), len(known)))
        shared = (mine @ wanted).tocoo()
        union = sets.sizes[block[shared.row]] + sets.sizes[some[shared.col]] - shared.data
        np.maximum.at(best, shared.col, shared.data / union)
    return best
