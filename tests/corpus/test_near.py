"""Words, sets and the near-duplicate join, held against the plainest possible way of computing the same."""

from __future__ import annotations

import random
import re
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.corpus import dedupe, near
from runners.corpus.words import Sets, hashes, joined, plain, shingle_sets, word_sets, words

TEXTS = st.text(alphabet=st.one_of(st.sampled_from("abcdé 12.,'()-_\n’®ßÅ日本"), st.characters(exclude_categories=["Cs"])), max_size=60)


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=30))
def test_hashing_sees_the_same_words_as_the_regular_expression(texts: list[str]) -> None:
    offsets, values = hashes(texts)
    known: dict[int, str] = {}
    for text, (begin, end) in zip(texts, pairwise(offsets.tolist()), strict=True):
        said = words(text)
        assert end - begin == len(said)
        for word, value in zip(said, values[begin:end].tolist(), strict=True):
            assert known.setdefault(value, word) == word
    assert len(known) == len({word for text in texts for word in words(text)})


def test_hashing_does_not_depend_on_where_a_block_ends() -> None:
    texts = [f"word{n} of text {n} " * (n % 50) for n in range(3_000)]
    offsets, values = hashes(texts)
    for place in (0, 1, 1_234, 2_999):
        alone = hashes([texts[place]])[1]
        assert (values[offsets[place] : offsets[place + 1]] == alone).all()


def test_words_are_what_people_count_as_words() -> None:
    assert words("A 401(k) isn’t a_b; the café’s 3.5%") == ["a", "401", "k", "isn", "t", "a", "b", "the", "café", "s", "3", "5"]
    assert plain("What IS  an IRA?!") == "what is an ira"


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefg"), max_size=6), max_size=8))
def test_shingles_are_runs_of_three_words(texts: list[list[str]]) -> None:
    sets = shingle_sets(*hashes([" ".join(text) for text in texts]))
    for text, size in zip(texts, sets.sizes.tolist(), strict=True):
        runs = {tuple(text[i : i + 3]) for i in range(max(1, len(text) - 2))} if text else set()
        assert size == len(runs)


def brute_force(sets: list[set[int]], threshold: float) -> list[int]:
    label = list(range(len(sets)))
    for i, j in combinations(range(len(sets)), 2):
        if sets[i] and len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j]) - 1e-9 and label[i] != label[j]:
            low, high = sorted((label[i], label[j]))
            label = [low if one == high else one for one in label]
    return label


def as_sets(sets: list[set[int]]) -> Sets:
    offsets = np.cumsum([0, *(len(one) for one in sets)])
    return Sets(offsets.astype(np.int64), np.array([item for one in sets for item in sorted(one)], np.uint32))


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.lists(st.sets(st.integers(0, 14), max_size=12), max_size=40),
        st.lists(st.sets(st.integers(0, 55), min_size=28, max_size=52), max_size=12),
    ),
    st.sampled_from([0.3, 0.5, 0.51, 0.6, 2 / 3, 0.7, 0.75, 0.8, 0.9, 1.0]),
)
def test_clusters_are_those_of_comparing_everything(sets: list[set[int]], threshold: float) -> None:
    assert near.clusters(as_sets(sets), threshold).tolist() == brute_force(sets, threshold)


@pytest.mark.parametrize("size", [5, 12, 33, 39, 41, 46, 120])
@pytest.mark.parametrize("threshold", [0.4, 0.6, 0.75, 0.8, 0.9])
def test_clusters_of_texts_that_were_changed_a_little(size: int, threshold: float) -> None:
    draw = random.Random(size)
    sets: list[set[int]] = []
    for _ in range(60):
        base = set(draw.sample(range(5_000), size))
        sets.append(base)
        for _ in range(draw.randrange(4)):
            changed = set(draw.sample(sorted(base), size - draw.randrange(max(2, size // 4))))
            sets.append(changed | set(draw.sample(range(5_000), draw.randrange(3))))
    draw.shuffle(sets)
    assert near.clusters(as_sets(sets), threshold).tolist() == brute_force(sets, threshold)


def test_templates_are_one_cluster_and_cost_little() -> None:
    """Twenty thousand wordings of one template: two hundred million pairs that must not be compared one by one."""
    texts = [
        f"I am {age} years old and make {income} dollars a year so how much should I save" for age in range(20, 70) for income in range(30_000, 430_000, 1_000)
    ]
    sets = word_sets(*hashes(texts))
    assert len(np.unique(near.clusters(sets, 0.8))) == 1


def test_empty_texts_are_near_nothing() -> None:
    assert near.clusters(word_sets(*hashes(["", "a b", "!!", "a b"])), 0.8).tolist() == [0, 1, 2, 1]
    assert near.clusters(word_sets(*hashes([])), 0.8).tolist() == []


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=20), st.lists(st.integers(0, 6), min_size=1, max_size=20))
def test_merging_two_partitions(left: list[int], right: list[int]) -> None:
    count = min(len(left), len(right))
    one, two = near.least(np.array(left[:count])), near.least(np.array(right[:count]))
    both = near.merged(one, two)
    for i, j in combinations(range(count), 2):
        if one[i] == one[j] or two[i] == two[j]:
            assert both[i] == both[j]
    assert (both <= np.arange(count)).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 9), min_size=1, max_size=8)), min_size=1, max_size=25), st.randoms(use_true_random=False))
def test_what_stays_is_apart_and_what_goes_is_near_to_what_stays(rows: list[tuple[int, set[int]]], draw: random.Random) -> None:
    sets = as_sets([one for _, one in rows])
    asked = np.array([question for question, _ in rows], np.uint64)
    priority = np.array(draw.sample(range(len(rows)), len(rows)))
    found = dedupe.find(asked, sets, sets, priority, 0.6)
    stays = np.flatnonzero(found.dropped == dedupe.STAYS)
    for i, j in combinations(stays.tolist(), 2):
        assert asked[i] != asked[j]
        assert near.jaccard_to_one(sets, i, np.array([j]))[0] < 0.6
    for i in np.flatnonzero(found.dropped == dedupe.NEAR).tolist():
        assert found.dropped[found.by[i]] == dedupe.STAYS
        assert priority[found.by[i]] < priority[i]
        assert near.jaccard_to_one(sets, i, found.by[i : i + 1])[0] >= 0.6 - 1e-9
    for i in np.flatnonzero(found.dropped == dedupe.REPEATED).tolist():
        assert asked[found.by[i]] == asked[i]


def test_joining_lists_of_sets() -> None:
    parts = [as_sets([{1, 2}, set()]), as_sets([]), as_sets([{3}])]
    both = joined(parts)
    assert both.sizes.tolist() == [2, 0, 1]
    assert both.items.tolist() == [1, 2, 3]


def test_the_definition_of_a_word_holds_the_published_counts() -> None:
    """The reference counts were made with [a-z0-9]+ on lower-cased English; ours is the same there."""
    text = "What's the 401(k) limit for 2025 — and CLU® fees of 1.5%?"
    assert words(text) == re.findall(r"[a-z0-9]+", text.lower())
