"""A VM's decisions: every transition by name, and properties over random histories."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners import pipeline
from runners.vm import decide
from runners.vm.decide import Activity, Boot, Decision, Job, Limits

START = datetime(2026, 3, 1, tzinfo=UTC)
TRAIN = Limits(max_attempts=3, deadline_minutes=120)
SERVE = Limits(max_attempts=3, deadline_minutes=None)


def boot(name: str, minutes: float = 0, lived: float = 0) -> Boot:
    return Boot(name, f"vm-{name}", "us-central1-a", (START + timedelta(minutes=minutes)).isoformat(), 60 * lived)


def running(lived: float = 0, **changes: object) -> Job:
    """A training whose VM has lived for so many minutes."""
    base = Job("job", "train", status="running", stage="train", attempts=1, first_started_at=START.isoformat(), boots=(boot("a", lived=lived),))
    return replace(base, **changes)  # type: ignore[arg-type]


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def test_the_first_boot_works_and_is_counted() -> None:
    decision = decide.at_boot(Job("job", "train"), boot("a"), TRAIN, at(0))
    assert decision.action == "work"
    assert (decision.job.attempts, decision.job.status, decision.job.first_started_at) == (1, "starting", START.isoformat())


@pytest.mark.parametrize("status", decide.OVER)
def test_a_boot_after_the_end_stops_and_changes_nothing(status: str) -> None:
    job = running(status=status)
    assert decide.at_boot(job, boot("b"), TRAIN, at(1)) == Decision("stop", job)


def test_the_startup_script_run_twice_in_one_boot_is_one_attempt() -> None:
    job = decide.at_boot(Job("job", "train"), boot("a"), TRAIN, at(0)).job
    assert decide.at_boot(job, boot("a"), TRAIN, at(1)) == Decision("work", job)


def test_another_instance_begins_with_the_first_stage_since_its_disk_is_empty() -> None:
    job = running(stage="quantize")
    rebooted = decide.at_boot(job, replace(boot("b"), instance=boot("a").instance), TRAIN, at(1)).job
    assert rebooted.stage == "quantize"
    assert decide.at_boot(job, boot("b"), TRAIN, at(1)).job.stage == ""


def test_a_boot_past_the_deadline_stops() -> None:
    decision = decide.at_boot(running(120), boot("b"), TRAIN, at(0))
    assert (decision.action, decision.job.status) == ("stop", "deadline")
    assert "lived 120 minutes, 120 are allowed" in decision.job.reason


def test_waiting_for_capacity_uses_up_nothing() -> None:
    """Two hours without a VM after one that lived for 50 minutes: 70 are left."""
    again = decide.at_boot(running(50), boot("b", 170), TRAIN, at(170))
    assert again.action == "work" and decide.left_s(again.job, TRAIN) == 70 * 60


def test_a_vms_age_only_grows_and_only_by_its_own_boot() -> None:
    job = decide.live(running(10), "a", 700)
    assert decide.lived_s(job) == 700
    assert decide.live(job, "a", 650) == job and decide.live(job, "b", 9000) == job
    later = decide.at_boot(job, boot("b"), TRAIN, at(1)).job
    assert decide.lived_s(decide.live(later, "b", 60)) == 760


def test_of_several_servers_each_ones_age_counts() -> None:
    first = decide.live(decide.at_boot(running(0), replace(boot("b"), lived_s=40), TRAIN, at(1)).job, "b", 100)
    both = decide.at_boot(first, replace(boot("c"), lived_s=40), TRAIN, at(2)).job
    assert decide.lived_s(both) == 140
    assert decide.lived_s(decide.live(decide.live(both, "b", 1000), "c", 500)) == 1500
    assert decide.live(both, "b", 90) == both
    again = decide.begin_again(both)
    assert decide.lived_s(decide.live(decide.at_boot(again, replace(boot("d"), lived_s=40), TRAIN, at(9)).job, "b", 5000)) == 40, "of a job before this one"


@pytest.mark.parametrize("hours", [-10_000, -10, 10, 10_000])
def test_a_clock_that_jumps_changes_no_deadline(hours: int) -> None:
    for minutes, action in ((119, "leave"), (120, "stop")):
        assert decide.at_deadline(running(minutes), TRAIN, at(60 * hours)).action == action


def test_a_boot_with_no_attempt_left_stops_and_says_why() -> None:
    decision = decide.at_boot(running(attempts=3, reason="train ended with exit code 139"), boot("d"), TRAIN, at(10))
    assert (decision.action, decision.job.status) == ("stop", "failed")
    assert "3 of 3" in decision.job.reason and "139" in decision.job.reason


def test_an_idle_server_that_is_started_again_begins_again() -> None:
    decision = decide.at_boot(Job("job", "serve", status="idle", attempts=3, boots=(boot("a"),)), boot("b", 900), SERVE, at(900))
    assert (decision.action, decision.job.attempts) == ("work", 1)


def test_stages_follow_each_other_and_end_in_done() -> None:
    job, actions = running(), list[str]()
    for stage in pipeline.stages_of("train"):
        assert job.stage == stage
        decision = decide.after_stage(job, stage, 0, "", TRAIN, at(10))
        actions.append(decision.action)
        job = decision.job
    assert actions == ["next", "next", "stop"]
    assert job.status == "done"


@pytest.mark.parametrize("code", decide.FINAL_EXIT_CODES)
def test_a_refusal_is_final(code: int) -> None:
    decision = decide.after_stage(running(), "train", code, "", TRAIN, at(10))
    assert (decision.action, decision.job.status, decision.job.attempts) == ("stop", "failed", 1)


@pytest.mark.parametrize("code", [3, 70, 125, 137, 139, 255])
def test_a_crash_is_tried_again_until_attempts_are_used_up(code: int) -> None:
    job, actions = running(), list[str]()
    for minute in range(1, 4):
        decision = decide.after_stage(job, "train", code, "", TRAIN, at(minute))
        actions.append(decision.action)
        job = decision.job
    assert actions == ["retry", "retry", "stop"]
    assert (job.status, job.attempts) == ("failed", 3) and str(code) in job.reason


def test_a_crash_past_the_deadline_is_the_end() -> None:
    assert decide.after_stage(running(121), "train", 139, "", TRAIN, at(0)).job.status == "deadline"


@pytest.mark.parametrize("code", [0, 1, 130, 137, 143])
def test_an_interrupted_container_is_neither_done_nor_failed(code: int) -> None:
    decision = decide.after_stage(running(), "train", code, "preempted", TRAIN, at(10))
    assert (decision.action, decision.job.status, decision.job.attempts) == ("leave", "preempted", 1)


def test_a_failed_unit_boots_afresh_while_attempts_are_left() -> None:
    assert decide.after_unit_failure(running(attempts=2), "elson-prepare", "", TRAIN, at(1)).action == "reboot"
    ended = decide.after_unit_failure(running(attempts=3), "elson-prepare", "", TRAIN, at(1))
    assert (ended.action, ended.job.status) == ("stop", "failed") and "elson-prepare" in ended.job.reason
    assert decide.after_unit_failure(running(), "elson-train", "preempted", TRAIN, at(1)).action == "leave"
    assert decide.after_unit_failure(running(status="done"), "elson-train", "", TRAIN, at(1)).action == "leave"
    assert decide.after_unit_failure(running(500), "elson-train", "", TRAIN, at(0)).job.status == "deadline"


def test_the_deadline_and_whoever_ended_the_job_end_this_vm() -> None:
    assert decide.at_deadline(running(119), TRAIN, at(0)).action == "leave"
    assert decide.at_deadline(running(120), TRAIN, at(0)).job.status == "deadline"
    assert decide.at_deadline(running(status="done"), TRAIN, at(0)) == Decision("stop", running(status="done"))
    assert decide.at_deadline(replace(running(10**6), role="serve", stage="serve"), SERVE, at(0)).action == "leave"


def test_only_a_server_that_stays_ready_has_its_attempts_back() -> None:
    tired = Job("job", "serve", attempts=3, first_started_at=START.isoformat())
    steady = decide.when_ready(tired, 60 * decide.STEADY_MINUTES, 0, at(35))
    assert decide.at_boot(replace(steady, status="preempted"), boot("b", 6), SERVE, at(6)).action == "work"
    flapping = decide.when_ready(tired, 60, 0, at(5))
    assert decide.at_boot(replace(flapping, status="retrying"), boot("b", 6), SERVE, at(6)).job.status == "failed"


def test_a_server_goes_on_idling_where_the_boot_before_left_off() -> None:
    job = decide.when_ready(Job("job", "serve", attempts=1), 600, 540, at(10))
    assert decide.at_boot(job, boot("b", 11), SERVE, at(11)).job.idle_s == 540
    assert decide.at_boot(decide.when_idle(job, 60, at(11)).job, boot("c", 900), SERVE, at(900)).job.idle_s == 0, "somebody asked for it again"


def test_a_state_file_survives_the_round_trip_and_newer_keys() -> None:
    job = decide.at_boot(Job("job", "train"), boot("a"), TRAIN, at(0)).job
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job
    assert Job.from_json({**json.loads(json.dumps(job.to_json())), "invented_later": 1}) == job


GOOD = json.loads(json.dumps(running(10).to_json()))


@pytest.mark.parametrize(
    "values",
    [
        *([], "text", 7, None, {}),
        {**GOOD, "role": 3},
        {**GOOD, "attempts": "1"},
        {**GOOD, "attempts": -5},
        {**GOOD, "attempts": True},
        {**GOOD, "earlier_s": float("nan")},
        {**GOOD, "boots": {"a": 1}},
        {**GOOD, "boots": [{"id": "a"}]},
        {**GOOD, "boots": ["a"]},
        {**GOOD, "boots": [{**GOOD["boots"][0], "lived_s": -1}]},
        {**GOOD, "progress": []},
        {**GOOD, "stage": "banana"},
        {key: value for key, value in GOOD.items() if key != "job_id"},
    ],
    ids=lambda values: str(values)[:40],
)
def test_a_state_of_another_shape_is_refused_as_one_kind_of_error(values: object) -> None:
    with pytest.raises(ValueError):
        Job.from_json(values)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from([*GOOD, "x"]), v)
    )
)
def test_whatever_a_state_file_holds_it_is_a_job_or_a_value_error(values: object) -> None:
    try:
        Job.from_json(values if not isinstance(values, dict) else {**GOOD, **values})
    except ValueError:
        return


@given(st.lists(st.sampled_from(["boot", "crash", "preempted", "unit", "success"]), max_size=60), st.integers(1, 6))
def test_no_history_makes_more_attempts_than_allowed(events: list[str], allowed: int) -> None:
    """Whatever happens in whatever order, work is started at most ``max_attempts`` times, and nothing starts after the end."""
    limits, job, starts, working, minute = Limits(allowed, 10_000), Job("job", "train"), 0, False, 0
    for number, event in enumerate(events):
        minute += 1
        over = job.status in decide.OVER
        if event == "boot" or not working:
            decision = decide.at_boot(job, boot(str(number), minute), limits, at(minute))
            starts += decision.action == "work"
            assert not (over and decision.action == "work")
            job, working = replace(decision.job, stage=decision.job.stage or "train"), decision.action == "work"
            continue
        if event == "unit":
            decision = decide.after_unit_failure(job, "elson-prepare", "", limits, at(minute))
        else:
            code, interruption = {"crash": (139, ""), "preempted": (143, "preempted"), "success": (0, "")}[event]
            decision = decide.after_stage(job, job.stage, code, interruption, limits, at(minute))
            starts += decision.action == "retry"
        job, working = decision.job, decision.action in ("next", "retry")
    assert starts <= allowed


def test_only_requests_that_are_not_ours_count_as_use() -> None:
    quiet = Activity(answered=5, probes=5, last_used_s=100)
    assert decide.observe(quiet, 6, 0, 6, 200).last_used_s == 100
    assert decide.observe(quiet, 7, 0, 6, 200).last_used_s == 200
    assert decide.observe(quiet, 5, 1, 5, 200).last_used_s == 200, "a long answer in flight is use"
    assert decide.observe(quiet, 0, 0, 5, 200) == Activity(0, 5, 100), "a restarted server's counters are a new start"
    assert decide.idle_for_s(quiet, 160) == 60


def test_temporary_trouble_is_tried_again_without_an_attempt_and_within_the_deadline() -> None:
    job = running(attempts=3)
    for trouble in range(1, 16):
        decision = decide.after_stage(job, "train", 75, "", TRAIN, at(30))
        job = decision.job
        assert (decision.action, job.attempts, job.troubles, job.status) == ("retry", 3, trouble, "retrying")
        assert 5 <= decide.pause_s(job) <= 300
    assert decide.after_stage(job, "train", 75, "", TRAIN, at(30)).action == "stop", "trouble that does not pass ends, too"
    assert decide.after_stage(running(121), "train", 75, "", TRAIN, at(0)).job.status == "deadline"
    assert decide.after_stage(running(troubles=9), "train", 0, "", TRAIN, at(30)).job.troubles == 0
    assert sum(decide.pause_s(running(troubles=n)) for n in range(1, 16)) > 30 * 60, "a long outage is waited for"


def told(machine: object = None, minutes: float = 0, **more: object) -> dict[str, object]:
    there = {"run_job": "elson-train-01234567"} if machine is None else machine
    return {"status": "running", "machine": there, "updated_at": at(minutes).isoformat(), **more}


def test_a_machine_of_the_other_kind_that_wrote_lately_is_at_work() -> None:
    assert decide.elsewhere(told(), "group", at(3)) == "elson-train-01234567, 3 minutes ago"
    assert decide.elsewhere(told({"group": "elson-train-01234567"}), "run_job", at(3)) == "elson-train-01234567, 3 minutes ago"
    assert decide.elsewhere(told(minutes=600), "group", at(0)), "a clock that is ahead"
    for status in ("starting", "retrying", "preempted", "terminated"):
        assert decide.elsewhere(told(status=status), "group", at(14.9)), "its next VM or try comes"


@pytest.mark.parametrize(
    "document",
    [
        *(None, [], "x", {}, told([]), told({}), told({"group": "a"}), told(minutes=-15)),
        *(told(updated_at=text) for text in ("x", 5, "2026-03-01")),
        *(told(status=status) for status in (*decide.OVER, "queued")),
    ],
)
def test_its_own_kind_a_silent_one_and_one_that_is_over_hinder_nobody(document: object) -> None:
    assert decide.elsewhere(document, "group", at(0)) == ""
