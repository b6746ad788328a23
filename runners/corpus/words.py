"""Texts to numbers, a block of texts at a time: words, their hashes, sets of words, sets of three-word shingles.

A word is a run of letters and digits, without regard to case: ``401(k)`` is ``401`` and ``k``; ``don't`` is ``don`` and ``t``. Everything that
compares texts (repeats, near-duplicates, leaks) uses this one definition.

The hashing is done on the bytes of a whole block with numpy: a word's hash is a polynomial in its bytes modulo 2**64, read off running sums, so
150 million words cost seconds and no Python loop runs over them.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np

WORD = re.compile(r"[^\W_]+")
FIGURE = re.compile(r"\d[\d,]*(?:\.\d+)?")
_FOREIGN_MARKS = re.compile(r"[^\x00-\x7f\w]|_")
_BASE = np.uint64(0x9E3779B97F4A7C15)
#: Bytes hashed at a time: the tables of powers are two arrays of this length.
_BLOCK_BYTES = 1 << 20


def fold(text: str) -> str:
    """Lower case, composed, with every mark outside ASCII as a space, so that bytes alone tell what a word is."""
    if text.isascii():
        return text.lower()
    return _FOREIGN_MARKS.sub(" ", unicodedata.normalize("NFC", text).lower())


def words(text: str) -> list[str]:
    """The words of a text, in order."""
    return WORD.findall(fold(text))


def plain(text: str) -> str:
    """The words of a text with one space between: equal for two texts that differ in case, spacing or marks only."""
    return " ".join(words(text))


@dataclass(frozen=True)
class Sets:
    """Sets of 32-bit items: set i is ``items[offsets[i]:offsets[i + 1]]``, ascending. ``offsets`` (n + 1,) int64, ``items`` (total,) uint32."""

    offsets: Any
    items: Any

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Any:
        """Number of items of each set, (n,) int64."""
        return np.diff(self.offsets)

    def of(self, chosen: Any) -> tuple[Any, Any]:
        """(owner: position in ``chosen``, item) of every item of some sets, by index."""
        sizes = self.sizes[chosen]
        owner = np.repeat(np.arange(len(chosen)), sizes)
        starts = self.offsets[chosen] - (np.cumsum(sizes) - sizes)
        return owner, self.items[np.repeat(starts, sizes) + np.arange(len(owner))]


def offsets_of(sizes: Any) -> Any:
    """Where each of several pieces begins and the last one ends, (n + 1,) int64."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def runs(values: Any) -> Any:
    """Where each run of equal values begins and the last one ends, (runs + 1,) int64; of sorted values, where each distinct one does."""
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1], [True]])) if len(values) else np.zeros(1, np.int64)


def hashes(texts: list[str]) -> tuple[Any, Any]:
    """(offsets (n + 1,) int64, 64-bit hashes (words,) uint64) of the words of each text."""
    counts, parts, block, size = list[Any](), list[Any](), list[bytes](), 0
    for text in texts:
        data = fold(text).encode("utf-8", "replace")
        if size and size + len(data) > _BLOCK_BYTES:
            _hash_block(block, counts, parts)
            block, size = [], 0
        block.append(data)
        size += len(data) + 1
    if block:
        _hash_block(block, counts, parts)
    return offsets_of(np.concatenate([np.zeros(0, np.int64), *counts])), np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _hash_block(block: list[bytes], counts: list[Any], parts: list[Any]) -> None:
    """Append the word counts and hashes of some encoded texts."""
    data = np.frombuffer(b"\n" + b"\n".join(block) + b"\n", np.uint8)
    power, inverse = _powers(len(data))
    inside = _word_bytes()[data]
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    starts, ends = edges[0::2], edges[1::2]
    sums = np.cumsum(data * power[: len(data)], dtype=np.uint64)
    parts.append(mix((sums[ends - 1] - sums[starts - 1]) * inverse[starts]))
    begins = np.cumsum([1] + [len(text) + 1 for text in block])
    counts.append(np.diff(np.searchsorted(starts, begins)))


@functools.cache
def _word_bytes() -> Any:
    """Which of the 256 bytes belong to words: letters, digits and everything outside ASCII (``fold`` left only letters there)."""
    table = np.zeros(256, bool)
    table[[byte for byte in range(128) if chr(byte).isalnum()]] = True
    table[128:] = True
    return table


@functools.lru_cache(maxsize=2)
def _powers_of(length: int) -> tuple[Any, Any]:
    inverse = np.uint64(pow(int(_BASE), -1, 1 << 64))
    tables = []
    for base in (_BASE, inverse):
        factors = np.full(length, base, np.uint64)
        factors[0] = 1
        tables.append(np.cumprod(factors, dtype=np.uint64))
    return tables[0], tables[1]


def _powers(length: int) -> tuple[Any, Any]:
    size = _BLOCK_BYTES + 2
    while size < length:
        size *= 2
    return _powers_of(size)


def mix(values: Any) -> Any:
    """Spread 64-bit values over all bits (the finaliser of MurmurHash3)."""
    values = values ^ (values >> np.uint64(33))
    values *= np.uint64(0xFF51AFD7ED558CCD)
    values ^= values >> np.uint64(33)
    values *= np.uint64(0xC4CEB9FE1A85EC53)
    values ^= values >> np.uint64(33)
    return values


def word_sets(offsets: Any, values: Any) -> Sets:
    """The set of words of each text."""
    return _as_sets(offsets, values)


def shingle_sets(offsets: Any, values: Any, length: int = 3) -> Sets:
    """The set of runs of ``length`` words of each text; a shorter text has one, of all its words."""
    counts = np.diff(offsets)
    padded = np.concatenate([values, np.zeros(length, np.uint64)])
    # A text of fewer than three words would run into the next one: its words beyond the end count as zero.
    position_in_text = np.arange(len(values)) - np.repeat(offsets[:-1], counts)
    left = np.repeat(counts, counts) - position_in_text
    total = values.copy()
    for step in range(1, length):
        total = mix(total) * _BASE + np.where(left > step, padded[step : step + len(values)], np.uint64(0))
    keep = (left >= length) | (position_in_text == 0)
    return _as_sets(offsets_of(np.maximum(counts - (length - 1), np.minimum(counts, 1))), mix(total[keep]))


def _as_sets(offsets: Any, values: Any) -> Sets:
    """Sort each text's hashes, folded to 32 bits, and drop repeats."""
    owner = np.repeat(np.arange(len(offsets) - 1, dtype=np.uint64), np.diff(offsets))
    packed = np.sort((owner << np.uint64(32)) | (values >> np.uint64(32)))
    packed = packed[runs(packed)[:-1]]
    sizes = np.bincount((packed >> np.uint64(32)).astype(np.int64), minlength=len(offsets) - 1)
    return Sets(offsets_of(sizes), packed.astype(np.uint32))


def joined(parts: list[Sets]) -> Sets:
    """One list of sets after the other."""
    starts = np.cumsum([0] + [len(part.items) for part in parts])
    offsets = np.concatenate([np.zeros(1, np.int64), *(part.offsets[1:] + start for part, start in zip(parts, starts, strict=False))])
    return Sets(offsets, np.concatenate([part.items for part in parts]) if parts else np.empty(0, np.uint32))
