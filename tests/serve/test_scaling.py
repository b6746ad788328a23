"""The autoscaler's rule: what it asks for, and what it makes of the queue of a real server under a crowd (record_queue.py)."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.fields import ReplicaSpec
from runners.planning.scaling import KV_USE_TARGET, STABILIZATION_S, WAITING_TARGET, Reading, needed, size
from tests.serve.record_queue import FILE

RECORDED: list[tuple[float, float, float]] = [tuple(row) for row in json.loads(FILE.read_text())]


@pytest.mark.parametrize(
    ("readings", "servers"),
    [
        ([], 1),
        ([Reading(0, 0)], 1),
        ([Reading(2, 0.1)], 1),
        ([Reading(2.1, 0.1)], 2),
        ([Reading(8, 0.9)], 4),
        ([Reading(0, 0.8)], 1),
        ([Reading(0, 0.81)], 2),
        ([Reading(0, 0.7), Reading(0, 0.7)], 2),
        ([Reading(0, 0.3), Reading(0, 0.3)], 1),
        ([Reading(5, 1.0), Reading(0, 0.2), Reading(0, 0.1)], 3),
    ],
)
def test_each_figure_asks_for_servers_and_the_larger_number_counts(readings: list[Reading], servers: int) -> None:
    assert needed(readings) == servers


@given(st.lists(st.builds(Reading, st.floats(0, 50), st.floats(0, 1)), min_size=1, max_size=10))
def test_so_many_servers_bring_both_means_to_their_targets_and_one_fewer_does_not(readings: list[Reading]) -> None:
    count = needed(readings)
    waiting, kv_use = sum(one.waiting for one in readings), sum(one.kv_use for one in readings)
    assert waiting / count <= WAITING_TARGET + 1e-5 and kv_use / count <= KV_USE_TARGET + 1e-5
    assert count == 1 or waiting / (count - 1) > WAITING_TARGET or kv_use / (count - 1) > KV_USE_TARGET


def play(rows: list[tuple[float, float, float]], replicas: ReplicaSpec, second_s: float = 60.0, rest_s: float = 7200.0) -> list[tuple[float, int]]:
    """(time, size) of each look, with each recorded second as ``second_s``, and a long rest after it. The servers share the recorded queue."""
    quiet = [(rows[-1][0] * second_s + 60.0 * (minute + 1), 0.0, 0.0) for minute in range(int(rest_s / 60))]
    past: list[tuple[float, int]] = []
    sizes: list[tuple[float, int]] = []
    current, taken_s = replicas.min, float("-inf")
    for at_s, waiting, kv_use in [*((at * second_s, waiting, kv_use) for at, waiting, kv_use in rows), *quiet]:
        past.append((at_s, needed([Reading(waiting / current, kv_use / current)] * current)))
        following = size(at_s, past, taken_s, current, replicas)
        taken_s = at_s if following < current else taken_s
        sizes.append((at_s, current := following))
    return sizes


def test_the_recorded_crowd_gets_servers_at_once_and_loses_them_one_by_one() -> None:
    assert max(row[1] for row in RECORDED) >= 4 and RECORDED[-1][1] == 0, "a queue that grew and was worked off"
    crowded_s = 60 * next(at for at, waiting, _ in RECORDED if waiting > WAITING_TARGET)
    sizes = play(RECORDED, ReplicaSpec(min=1, max=3))
    assert {count for at_s, count in sizes if at_s < crowded_s} == {1}
    grown_s = next(at_s for at_s, count in sizes if count > 1)
    assert grown_s == crowded_s and max(count for _, count in sizes) == 3, "never more than the most"
    last_s = 60 * max(at for at, waiting, _ in RECORDED if waiting > 2 * WAITING_TARGET)  # when three were needed for the last time
    smaller = [at_s for (_, before), (at_s, after) in itertools.pairwise(sizes) if after < before]
    assert smaller[0] >= last_s + STABILIZATION_S and sizes[-1][1] == 1
    assert all(later - earlier >= STABILIZATION_S for earlier, later in itertools.pairwise(smaller))
    assert all(before - after <= 1 for (_, before), (_, after) in itertools.pairwise(sizes))


def test_the_least_is_kept_and_the_most_is_a_limit() -> None:
    assert {count for _, count in play(RECORDED, ReplicaSpec(min=2, max=2))} == {2}
    assert max(count for _, count in play(RECORDED, ReplicaSpec(min=1, max=2))) == 2


@given(
    st.lists(st.tuples(st.floats(0, 20), st.floats(0, 1)), min_size=1, max_size=60),
    st.integers(1, 5).flatmap(lambda least: st.tuples(st.just(least), st.integers(least, 10))),
)
def test_whatever_is_published_the_size_is_within_its_bounds(values: list[tuple[float, float]], bounds: tuple[int, int]) -> None:
    rows = [(float(number), waiting, kv_use) for number, (waiting, kv_use) in enumerate(values)]
    sizes = play(rows, ReplicaSpec(min=bounds[0], max=bounds[1]))
    assert all(bounds[0] <= count <= bounds[1] for _, count in sizes) and sizes[-1][1] == bounds[0]
