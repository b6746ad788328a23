"""Which sets are near each other: an exact join on Jaccard similarity, in numpy.

Two sets with Jaccard >= t share at least ceil(t * n) items (n: the larger size), so among the first ``n - ceil(t * n) + 1`` items of each, in any
common order, one is shared (prefix filter: Chaudhuri et al. 2006, Bayardo et al. 2007 https://doi.org/10.1145/1242572.1242591). Rarest first, these
prefixes meet seldom. For short sets, prefixes two items longer must share *three* items, which is rarer still (AdaptJoin, Wang et al. 2012). Every
candidate is then compared in full: nothing is missed, nothing is estimated, and there is no random seed.

Left out: all the pairs. What is wanted is the clusters (connected components), and pairs already in one cluster are not compared again, so that ten
thousand wordings of one template cost a few passes and not fifty million comparisons.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np

from runners.corpus.words import Sets, mix, runs

#: Items worked on at a time; bounds the memory of every step.
_BLOCK_ITEMS = 4 << 20
#: Candidate pairs gathered before they are compared.
_BLOCK_PAIRS = 1 << 20
_ROUNDING = 1e-9
#: Sets of up to so many items meet by keys of several items: their combinations are still few (165 at Jaccard 0.8).
_SHORT = 40


def needed(threshold: float, sizes: Any) -> Any:
    """Items that a set of each size must share with any set it is near to, (n,) int64."""
    return np.ceil(threshold * sizes - _ROUNDING).astype(np.int64)


def clusters(sets: Sets, threshold: float, part: int = 0, parts: int = 1) -> Any:
    """Label of each set, (n,) int64: equal for two sets joined by a chain of neighbours with Jaccard >= threshold. A label is the least index in it.

    Empty sets are near nothing. With several ``parts``, only candidates of every ``parts``-th key are compared; :func:`merged` of all parts gives the labels
    of one.
    """
    count = len(sets)
    if not count or not len(sets.items):
        return np.arange(count)
    first, same = _identical(sets)
    # From here on a set is a rank among the distinct ones, smaller sets first: a sort by rank is a sort by size.
    by_size = np.argsort(sets.sizes[first], kind="stable")
    members, sizes = first[by_size], sets.sizes[first][by_size]
    rank = np.empty(len(first), np.int64)
    rank[by_size] = np.arange(len(first))
    join = _Join(sets, members, sizes, threshold, part, parts)
    join.run()
    label = join.labels[rank[same]]
    label[sets.sizes == 0] = len(members) + np.flatnonzero(sets.sizes == 0)
    return least(label)


def least(labels: Any) -> Any:
    """The same partition, each part named after its least index."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return first[inverse]


def merged(*partitions: Any) -> Any:
    """The finest partition that each of the given ones refines: two rows together in any of them are together."""
    count = len(partitions[0])
    return components(count, np.concatenate([np.arange(count)] * len(partitions)), np.concatenate(partitions))


def components(count: int, left: Any, right: Any) -> Any:
    """Least index of the connected component of each of ``count`` nodes, given edges left[i] - right[i]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    return least(connected_components(graph, directed=False)[1])


def _identical(sets: Sets) -> tuple[Any, Any]:
    """(index of the first of each distinct set, for each set which distinct one it is); sets are told apart by 64 bits and size."""
    total = np.zeros(len(sets) + 1, np.uint64)
    for begin in range(0, len(sets.items), _BLOCK_ITEMS):
        block = np.asarray(sets.items[begin : begin + _BLOCK_ITEMS])
        sums = np.cumsum(mix(block.astype(np.uint64) + np.uint64(1)), dtype=np.uint64)
        low, high = np.searchsorted(sets.offsets, [begin, begin + len(block)], side="left")
        inner = sets.offsets[low:high] - begin
        # total[i] gathers the sum up to offsets[i]; the running sum is carried from block to block.
        total[low:high] += np.where(inner > 0, sums[np.maximum(inner, 1) - 1], np.uint64(0))
        total[high:] += sums[-1]
    key = mix(np.diff(total) + sets.sizes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    return first, inverse


def _items_of_a_key(threshold: float) -> int:
    """How many items two distinct near sets share at least, whatever their size, up to three."""
    return 3 if threshold >= 0.75 else 2 if threshold > 0.5 else 1


def _blocks(sizes: Any) -> Iterator[tuple[int, int]]:
    """(first, last) of blocks with at most _BLOCK_ITEMS items, or with one that is larger."""
    ends = np.cumsum(sizes)
    begin = 0
    while begin < len(ends):
        base = ends[begin - 1] if begin else 0
        end = max(int(np.searchsorted(ends, base + _BLOCK_ITEMS, side="right")), begin + 1)
        yield begin, end
        begin = end


class _Join:
    """One run: the sets, the partition found so far."""

    def __init__(self, sets: Sets, members: Any, sizes: Any, threshold: float, part: int, parts: int) -> None:
        self.part, self.parts = np.uint64(part), np.uint64(parts)
        self.sets, self.members, self.sizes, self.threshold = sets, members, sizes, threshold
        self.labels = np.arange(len(members))
        self.signature_words = 1 if len(sets.items) < 48 * len(sets) else 4

    def run(self) -> None:
        counts = self._count()
        keys, owners = self._postings(counts)
        del counts
        self.signatures = self._sign()
        self._compare(keys, owners)

    def _gather(self, ranks: Any) -> tuple[Any, Any]:
        """(owner: position in ``ranks``, item) of every item of some sets."""
        return self.sets.of(self.members[ranks])

    def _count(self) -> Any:
        """How many sets hold an item (up to 255), in a table indexed by the item's high bits: rarity, not identity, is wanted."""
        bits = int(np.clip(np.ceil(np.log2(len(self.sets.items))) + 1, 16, 27))
        self.shift = np.uint32(32 - bits)
        table = np.zeros(1 << bits, np.uint8)
        for begin, end in _blocks(self.sizes):
            slots = np.sort(self._gather(np.arange(begin, end))[1] >> self.shift)
            edges = runs(slots)
            table[slots[edges[:-1]]] = np.minimum(table[slots[edges[:-1]]] + np.diff(edges), 255)
        return table

    def _postings(self, counts: Any) -> tuple[Any, Any]:
        """Sorted (key, owner) of every prefix key that at least two sets have."""
        parts = []
        for begin, end in _blocks(self.sizes):
            owner, item = self._gather(np.arange(begin, end))
            rarity = counts[item >> self.shift].astype(np.uint64)
            packed = np.sort((owner.astype(np.uint64) << np.uint64(40)) | (rarity << np.uint64(32)) | item)
            keys = self._keys(packed, self.sizes[begin:end], begin)
            parts.append(keys if self.parts == 1 else keys[mix(keys >> np.uint64(32)) % self.parts == self.part])
        postings = np.sort(np.concatenate(parts))
        keys = postings >> np.uint64(32)
        if not len(keys):
            return keys, keys.astype(np.int64)
        same = keys[1:] == keys[:-1]
        keep = np.concatenate([same, [False]]) | np.concatenate([[False], same])
        return keys[keep], (postings[keep] & np.uint64(0xFFFFFFFF)).astype(np.int64)

    def _keys(self, packed: Any, sizes: Any, begin: int) -> Any:
        """(key << 32 | owner) of the prefixes of one block; ``packed`` is owner, rarity, item, sorted.

        Two sets of which the larger is short meet by keys of several items; all others by keys of one. Sets near the limit have both.
        """
        together = _items_of_a_key(self.threshold)
        long_from = int(needed(self.threshold, np.array(_SHORT + 1)))
        by_kind = [(together, sizes <= _SHORT), (1, sizes >= long_from)] if together > 1 else [(1, sizes > 0)]
        return np.concatenate([self._keys_of(count, np.flatnonzero(chosen), packed, sizes, begin) for count, chosen in by_kind])

    def _keys_of(self, count: int, chosen: Any, packed: Any, sizes: Any, begin: int) -> Any:
        """Keys of ``count`` items each of some sets of a block."""
        prefix = np.minimum(sizes - needed(self.threshold, sizes) + count, sizes)[chosen]
        starts = (np.cumsum(sizes) - sizes)[chosen]
        item = packed & np.uint64(0xFFFFFFFF)
        shared = (packed >> np.uint64(32)) & np.uint64(0xFF) > 1
        parts = [np.empty(0, np.uint64)]
        for length in np.unique(prefix[prefix >= count]).tolist():
            mine = np.flatnonzero(prefix == length)
            at = starts[mine][:, None] + np.arange(length)
            picks = np.array(list(combinations(range(length), count))).T
            key, usable = item[at[:, picks[0]]], shared[at[:, picks[0]]]
            for pick in picks[1:]:
                key, usable = mix(key * np.uint64(0x9E3779B97F4A7C15) + item[at[:, pick]]), usable & shared[at[:, pick]]
            key = key if count == 1 else key >> np.uint64(32)
            owners = (chosen[mine] + begin).astype(np.uint64)[:, None]
            parts.append(((key << np.uint64(32)) | owners)[usable])
        return np.concatenate(parts)

    def _sign(self) -> Any:
        """Parity sketch of each set, (n, words) uint64: sketches differ in at most as many bits as the sets differ in items."""
        out = np.zeros((len(self.members), self.signature_words), np.uint64)
        for begin, end in _blocks(self.sizes):
            _, item = self._gather(np.arange(begin, end))
            starts = np.cumsum(self.sizes[begin:end]) - self.sizes[begin:end]
            bit = np.uint64(1) << (item.astype(np.uint64) & np.uint64(63))
            filled = np.flatnonzero(self.sizes[begin:end])
            for word in range(self.signature_words):
                mine = np.where((item >> np.uint32(6)) % self.signature_words == word, bit, np.uint64(0))
                if len(filled):
                    out[begin + filled, word] = np.bitwise_xor.reduceat(mine, starts[filled])
        return out

    def _compare(self, keys: Any, owners: Any) -> None:
        """Compare every two sets under one key that may be near and are not yet in one cluster."""
        if not len(keys):
            return
        edges = runs(keys)
        end_of = np.repeat(edges[1:], np.diff(edges))
        active, step, waiting, held = np.arange(len(keys)), 0, list[Any](), 0
        while len(active):
            step += 1
            active = active[active + step < end_of[active]]
            left, right = owners[active], owners[active + step]
            # Sizes grow along a key's list: once a set is too small for its partner it is too small for all later ones.
            fits = self.sizes[left] >= needed(self.threshold, self.sizes[right])
            active, left, right = active[fits], left[fits], right[fits]
            apart = (self.labels[left] != self.labels[right]) & (left != right)
            waiting.append((left[apart] << np.int64(32)) | right[apart])
            held += int(apart.sum())
            if held >= _BLOCK_PAIRS or step in (1, 2, 4, 8) or step % 64 == 0:
                self._join(np.concatenate(waiting))
                waiting, held = [], 0
                active = active[self._undecided(active, step, owners, end_of)]
        if held:
            self._join(np.concatenate(waiting))

    def _undecided(self, active: Any, step: int, owners: Any, end_of: Any) -> Any:
        """Which positions still have somebody after them, under their key, in another cluster."""
        if step < 8:
            return np.ones(len(active), bool)
        label = self.labels[owners]
        # The last position before each key's end where the label changes: beyond it all are one cluster.
        changes = np.concatenate([[0], np.flatnonzero(label[1:] != label[:-1]) + 1])
        last_change = changes[np.searchsorted(changes, end_of[active], side="left") - 1]
        return (last_change > active + step) | (label[active] != label[end_of[active] - 1])

    def _join(self, pairs: Any) -> None:
        """Unite the near ones among some candidate pairs (left << 32 | right)."""
        pairs = np.unique(pairs)
        left, right = pairs >> 32, pairs & 0xFFFFFFFF
        apart = self.labels[left] != self.labels[right]
        near = self._near(left[apart], right[apart])
        left, right = left[apart][near], right[apart][near]
        if len(left):
            count = len(self.labels)
            self.labels = components(count, np.concatenate([left, np.arange(count)]), np.concatenate([right, self.labels]))

    def _near(self, left: Any, right: Any) -> Any:
        """Whether each pair of sets has Jaccard >= threshold: the sketch first, then the items."""
        total = self.sizes[left] + self.sizes[right]
        # |A n B| >= t / (1 + t) * (|A| + |B|)
        overlap = np.ceil(total * self.threshold / (1 + self.threshold) - _ROUNDING).astype(np.int64)
        near = np.zeros(len(left), bool)
        for begin in range(0, len(left), _BLOCK_PAIRS):
            part = slice(begin, begin + _BLOCK_PAIRS)
            differ = np.bitwise_count(self.signatures[left[part]] ^ self.signatures[right[part]]).sum(axis=1)
            near[part] = differ <= total[part] - 2 * overlap[part]
        chosen = np.flatnonzero(near)
        for begin, end in _blocks(total[chosen]):
            some = chosen[begin:end]
            near[some] = self._shared(left[some], right[some]) >= overlap[some]
        return near

    def _shared(self, left: Any, right: Any) -> Any:
        """Number of items each pair of sets shares."""
        packed = []
        for side in (left, right):
            owner, item = self._gather(side)
            packed.append((owner.astype(np.uint64) << np.uint64(32)) | item)
        both = np.sort(np.concatenate(packed))
        twice = both[1:][both[1:] == both[:-1]] >> np.uint64(32)
        return np.bincount(twice.astype(np.int64), minlength=len(left))


def jaccard_to_one(sets: Sets, one: int, others: Any) -> Any:
    """Jaccard of set ``one`` with each of ``others``, (k,) float64."""
    mine = sets.items[sets.offsets[one] : sets.offsets[one + 1]]
    owner, items = sets.of(others)
    if not len(mine):
        return np.zeros(len(others))
    at = np.minimum(np.searchsorted(mine, items), len(mine) - 1)
    shared = np.bincount(owner[mine[at] == items], minlength=len(others))
    return shared / (len(mine) + sets.sizes[others] - shared)
