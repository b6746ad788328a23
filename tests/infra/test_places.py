"""Capacity anywhere: the rules by cases and properties, and the real watchdog over a platform of several regions in simulated time."""

from __future__ import annotations

import itertools
import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.infra import places_table
from tests.infra.places_table import QUOTA, STOCKOUT, THREE
from tests.infra.regions import START, Platform, watchdog

main = watchdog()
move = main.places.move
ABC = [{"group": name, "patience": 15} for name in "abc"]


def seen(*, size: str = "", vm: str = "", problem: str = "", away: str = "") -> dict[str, dict[str, Any]]:
    """Groups a, b and c; each argument names those that have it."""
    return {
        name: {"size": int(name in size), "vms": [f"vm-{name}"] if name in vm else [], "problems": [problem] if problem and name in size else []}
        for name in "abc"
        if name not in away
    }


def at(group: str, minutes: float, **more: Any) -> dict[str, Any]:
    return {"at": group, "since": (START - timedelta(minutes=minutes)).isoformat(), "lost": 0, "vms": [], "refused": {}, **more}


def decided(memory: dict[str, Any], found: dict[str, dict[str, Any]], silent: float = float("inf")) -> tuple[list[str], str, str]:
    return move(memory, ABC, found, silent, START)[1:]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("memory", "found", "emptied", "going"),
    [
        pytest.param({}, seen(size="a"), [], "", id="the first look only remembers"),
        pytest.param(at("a", 14), seen(size="a"), [], "", id="patience is not over"),
        pytest.param(at("a", 15), seen(size="a"), ["a"], "b", id="patience is over"),
        pytest.param(at("a", 5), seen(size="a", problem=STOCKOUT), ["a"], "b", id="a stockout ends patience"),
        pytest.param(at("a", 4), seen(size="a", problem=STOCKOUT), [], "", id="every zone is tried first"),
        pytest.param(at("a", 0), seen(size="a", problem=QUOTA), ["a"], "b", id="no quota is not waited for"),
        pytest.param(at("c", 15), seen(size="c"), ["c"], "a", id="after the last comes the first"),
        pytest.param(at("a", 500), seen(size="a", vm="a"), [], "", id="a VM that works stays"),
        pytest.param(at("a", 0, lost=1, vms=["x"]), seen(size="a"), ["a"], "b", id="a place that took two VMs"),
        pytest.param(at("a", 0, vms=["x"]), seen(size="a"), [], "", id="one VM may be taken"),
        pytest.param(at("a", 15), seen(size="a", away="b"), ["a"], "c", id="a region that is away is left out"),
        pytest.param(at("a", 15, refused={"b": {"first": START.isoformat(), "code": QUOTA}}), seen(size="a"), ["a"], "c", id="who refused comes last"),
        pytest.param({}, seen(), [], "", id="nothing runs: nothing is started"),
        pytest.param(at("a", 60), seen(), [], "", id="a job that ended stays ended"),
        pytest.param(at("b", 0), seen(size="ab"), ["a"], "", id="two places: the remembered one stays"),
        pytest.param(at("b", 0), seen(size="ab", vm="a"), ["b"], "", id="two places: the one with a VM stays"),
        pytest.param(at("a", 60), seen(size="b", vm="b", away="a"), [], "", id="another has a VM already"),
        pytest.param(at("a", 60), seen(away="abc"), [], "", id="nobody answers"),
    ],
)
def test_what_is_done_at_a_look(memory: dict[str, Any], found: dict[str, dict[str, Any]], emptied: list[str], going: str) -> None:
    assert decided(memory, found)[:2] == (emptied, going)


def test_a_region_that_does_not_answer_may_have_a_vm_that_works() -> None:
    memory, *_ = move(at("a", 0, vms=["vm-a"]), ABC, seen(away="a"), 1.0, START)
    later = START + timedelta(minutes=60)
    assert move(memory, ABC, seen(away="a"), 1.0, later)[2] == "", "its job reports"
    assert move(memory, ABC, seen(away="a"), 30.0, START + timedelta(minutes=10))[2] == "", "it was away for ten minutes only"
    assert move(memory, ABC, seen(away="a"), 30.0, later)[1:] == ([], "b", "its region does not answer")


def test_a_move_that_was_interrupted_is_ended_and_a_stop_is_not_undone() -> None:
    intent = at("a", 20, going="b", going_at=START.isoformat())
    assert decided(intent, seen())[:2] == ([], "b")
    assert decided(intent, seen(vm="a"))[:2] == ([], ""), "the old VM is still going"
    assert decided({**intent, "tries": 1}, seen())[:2] == ([], "c"), "b could not be resized"
    assert decided(intent, seen(away="b"))[:2] == ([], "c")
    assert decided({**intent, "going_at": (START - timedelta(hours=2)).isoformat()}, seen())[:2] == ([], "")


def test_it_is_given_up_only_when_every_place_refused_for_two_hours() -> None:
    refused = {name: {"first": (START - timedelta(minutes=120)).isoformat(), "code": QUOTA} for name in "abc"}
    emptied, going, why = decided(at("a", 0, refused=refused), seen(size="a", problem=QUOTA))
    assert (emptied, going) == (["a", "b", "c"], "") and "two hours" in why and QUOTA in why
    young = {**refused, "b": {"first": (START - timedelta(minutes=119)).isoformat(), "code": QUOTA}}
    assert decided(at("a", 0, refused=young), seen(size="a", problem=QUOTA))[:2] == (["a"], "b")
    assert decided(at("a", 5, refused=refused), seen(size="a", problem=STOCKOUT))[1] == "", "a stockout takes a refusal back, and the others refuse"
    old = {name: {**refused[name], "last": (START - timedelta(minutes=60)).isoformat()} for name in "bc"}
    assert decided(at("a", 5, refused=old), seen(size="a", problem=STOCKOUT))[1] == "b", "a refusal of an hour ago is asked about again"


def test_every_small_state_asks_at_most_one_place_and_never_takes_a_vm_away() -> None:
    """All 3 x 27 x 4 states of sizes, VMs, regions and memories: exhaustive."""
    states = [(size, vm, away) for size in (0, 1) for vm in (0, 1) for away in (0, 1)]
    for memory in ({}, at("a", 60), at("b", 60), at("c", 60, going="a", going_at=START.isoformat())):
        for three in itertools.product(states, repeat=3):
            found = {
                name: {"size": size, "vms": [f"vm-{name}"] if vm else [], "problems": []}
                for name, (size, vm, away) in zip("abc", three, strict=True)
                if not away
            }
            emptied, going, _ = decided(memory, found)
            after = {name: one["size"] for name, one in found.items()} | dict.fromkeys(emptied, 0) | ({going: 1} if going else {})
            assert sum(after.values()) <= 1 and set(emptied) | ({going} - {""}) <= set(found)
            working = [name for name, one in found.items() if one["size"] and one["vms"]]
            assert not working or any(after[name] for name in working), "a VM works somewhere, and none is left"
            assert bool(going) <= (not any(one["vms"] for one in found.values() if one["size"])), "moved while a VM works"
            if memory.get("at") in found:
                assert sum(after.values()) or not any(one["size"] for one in found.values()), "nobody is asked any more"


def test_a_stockout_everywhere_for_two_hours_costs_nothing_and_ends_in_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Platform(THREE, lambda _place, minute: STOCKOUT if minute < 120 else "").play(400, monkeypatch)
    assert run.status == "done" and run.billed <= 41 and run.made == 1 and run.minute < 175
    moves = [one["group"] for one in run.said if one["message"].endswith("is asked")]
    assert len(moves) >= 9 and set(moves) == set(run.groups), "it comes back to each"
    assert all(one["severity"] != "ERROR" for one in run.said)


def test_the_first_place_that_has_a_vm_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Platform(THREE, lambda place, _minute: "" if place == 1 else STOCKOUT).play(200, monkeypatch)
    assert run.status == "done" and run.order == ["elson-train-0b75369b-2"] and run.minute <= 60


def test_a_preemption_storm_moves_on_and_stays_within_the_jobs_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    storm = Platform(THREE, lambda _place, _minute: "", lives=lambda place, _born: 4.0 if place < 2 else float("inf"), bounds=(150, 12)).play(300, monkeypatch)
    assert storm.status == "done" and storm.order[-1] == "elson-train-0b75369b-3"
    endless = Platform(THREE, lambda _place, _minute: "", lives=lambda _place, _born: 7.0, needs_minutes=10_000).play(600, monkeypatch)
    assert endless.made <= 7 + 2 and endless.billed <= 150 and not endless.alive and not any(group.size for group in endless.groups.values())
    assert any("VMs, 7 are allowed" in one.get("reason", "") for one in endless.said), "the bound is over all places"


def test_vms_of_all_places_together_live_no_longer_than_the_job_may(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Platform(THREE, lambda _place, _minute: "", lives=lambda _place, _born: 45.0, needs_minutes=10_000, bounds=(150, 70)).play(900, monkeypatch)
    assert 140 <= run.billed <= 175 and not run.alive


def test_a_region_that_vanishes_with_its_vm_is_replaced_and_never_two_work_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The VM is gone with its region; when the region comes back, its group still has size 1 and is emptied."""
    gone = lambda region, minute: region == "us-central1" and 20 <= minute < 200  # noqa: E731
    lives = lambda place, born: 20 - born if place == 0 and born < 20 else float("inf")  # noqa: E731
    run = Platform(THREE, lambda _place, _minute: "", is_away=gone, lives=lives, needs_minutes=60).play(400, monkeypatch)
    assert run.status == "done" and run.order == ["elson-train-0b75369b", "elson-train-0b75369b-2"] and run.most_at_once == 1
    back = Platform(THREE, lambda _place, _minute: "", is_away=gone, lives=lives, needs_minutes=300, bounds=(600, 7)).play(500, monkeypatch)
    assert back.status == "done" and back.groups["elson-train-0b75369b"].size == 0 and back.most_at_once <= 2 and back.billed <= 310


def test_a_region_that_does_not_answer_while_its_vm_works_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Platform(THREE, lambda _place, _minute: "", is_away=lambda region, minute: region == "us-central1" and 10 <= minute < 100, needs_minutes=90)
    run.play(300, monkeypatch)
    assert run.status == "done" and run.order == ["elson-train-0b75369b"]


def test_no_quota_anywhere_is_given_up_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Platform(THREE, lambda _place, _minute: QUOTA).play(400, monkeypatch)
    assert run.billed == 0 and not any(group.size for group in run.groups.values()) and run.objects == {}
    told = [one for one in run.said if one["severity"] == "ERROR"]
    assert len(told) == 1 and QUOTA in told[0]["reason"] and 120 <= told[0]["minute"] <= 150


def test_an_interrupted_move_loses_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Platform(THREE, lambda place, _minute: STOCKOUT if place == 0 else "")
    run.refuses_resize.add("elson-train-0b75369b-2")
    run.play(60, monkeypatch)
    assert run.order == ["elson-train-0b75369b-3"] and run.groups["elson-train-0b75369b"].size == 0


def test_a_job_that_is_over_or_was_stopped_is_not_started_by_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Platform(THREE, lambda _place, _minute: "", needs_minutes=20).play(100, monkeypatch, stops_when_done=False)
    assert run.made == 1 and run.objects == {} and not any(group.size for group in run.groups.values())
    stopped = Platform(THREE, lambda _place, _minute: "", needs_minutes=1000)
    stopped.play(30, monkeypatch)
    for group in stopped.groups.values():
        group.size = 0  # the budget's stop, or a person
    stopped.play(60, monkeypatch)
    assert stopped.made == 1 and not stopped.alive


@pytest.mark.parametrize("memory", ["[]", '{"groups": {"elson-train-0b75369b": "elson-train-0b75369b"}, "place": 5}', '{"groups": {}, "place": {"at": 7}}'])
def test_a_memory_of_another_shape_is_begun_again(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Platform(THREE, lambda _place, _minute: "")
    run.objects["watchdog/elson-train-0b75369b.json"] = memory
    run.play(100, monkeypatch)
    assert run.status == "done" and json.loads(json.dumps(run.said)) is not None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_the_platform_does_a_job_stays_within_its_bounds(data: st.DataObject) -> None:
    """Capacity, preemptions and regions at random for eight hours: never two places asked, never more VMs or minutes than allowed.

    A VM that lives less than the five minutes between two looks may not be seen: those are counted by the job's own attempts.
    """
    codes = data.draw(st.lists(st.sampled_from(["", "", STOCKOUT, QUOTA, "SOMETHING_NEW"]), min_size=24, max_size=24))
    lives = data.draw(st.lists(st.integers(6, 90), min_size=24, max_size=24))
    away = data.draw(st.lists(st.booleans(), min_size=16, max_size=16))
    with pytest.MonkeyPatch.context() as patch:
        run = Platform(
            THREE,
            lambda place, minute: codes[(int(minute) // 20 + 8 * place) % 24],
            lives=lambda place, born: lives[(int(born) // 20 + 8 * place) % 24],
            is_away=lambda region, minute: region == "us-east4" and away[int(minute) // 30 % 16],
            needs_minutes=10_000,
        ).play(480, patch)
    # What lives in a region that does not answer is bounded by the platform and the VM itself.
    # Up to five minutes before a VM's first look and after its last are not counted.
    assert run.made <= 7 + 3 and run.billed - run.unseen <= 150 + 5 + 10 * run.made


def test_the_page_has_the_table_as_it_is_played() -> None:
    assert "\n".join(places_table.table()) in places_table.PAGE.read_text(), "write it again: .venv/bin/python -m tests.infra.places_table"
