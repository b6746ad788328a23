"""``elson status`` and ``elson retry`` over a real bucket."""

from __future__ import annotations

from typing import Any

import pytest

from runners.artifacts import layout, storage
from runners.cloud import jobs
from runners.errors import UserError
from runners.spec import BucketSpec
from runners.vm.decide import Boot, Job

BOOTS = (
    Boot("aaaaaaaa-1111", "vm-1", "us-central1-a", "2026-03-01T00:00:00+00:00"),
    Boot("bbbbbbbb-2222", "vm-2", "us-central1-b", "2026-03-01T01:00:00+00:00"),
)


def put(buckets: BucketSpec, **changes: Any) -> None:
    job = Job("job-1", "train", attempts=2, first_started_at="2026-03-01T00:00:00+00:00", boots=BOOTS, stage="merge", **changes)
    storage.write_json(f"{layout.job(buckets, 'job-1')}/state.json", {**job.to_json(), "max_attempts": 5}, generation=0)


def test_jobs_are_found_by_their_states(buckets: BucketSpec) -> None:
    assert jobs.names(buckets) == []
    put(buckets, status="running")
    storage.write(f"{layout.job(buckets, 'job-1')}/logs/vm-1-aaaaaaaa.log", "first", generation=0)
    assert jobs.names(buckets) == ["job-1"]
    assert jobs.state(buckets, "job-1")["status"] == "running"
    with pytest.raises(UserError, match="no job job-9"):
        jobs.state(buckets, "job-9")


def test_the_newest_boots_log_is_shown(buckets: BucketSpec) -> None:
    put(buckets, status="running")
    assert jobs.last_log(buckets, "job-1", 5) == []
    for name, text in (("vm-2-bbbbbbbb.log", "new 1\nnew 2\n"), ("vm-1-aaaaaaaa.log", "old\n")):
        storage.write(f"{layout.job(buckets, 'job-1')}/logs/{name}", text, generation=0)
    assert jobs.last_log(buckets, "job-1", 1) == ["new 2"]


@pytest.mark.parametrize("status", ["failed", "deadline"])
def test_a_job_that_is_over_may_begin_again(buckets: BucketSpec, status: str) -> None:
    put(buckets, status=status, reason="no quota")
    again = jobs.retry(buckets, "job-1")
    assert (again["status"], again["attempts"], again["first_started_at"], again["stage"]) == ("queued", 0, None, "")
    assert "no quota" in again["reason"] and Job.from_json(again).boots == BOOTS and again["earlier_s"] == 0


@pytest.mark.parametrize("status", ["running", "done", "ready"])
def test_a_job_that_is_not_over_is_left_alone(buckets: BucketSpec, status: str) -> None:
    put(buckets, status=status)
    with pytest.raises(UserError, match=f"is {status}"):
        jobs.retry(buckets, "job-1")


@pytest.mark.parametrize("status", ["running", "starting", "ready", "preempted", "retrying"])
def test_a_job_whose_vm_went_without_a_word_may_begin_again(buckets: BucketSpec, status: str) -> None:
    put(buckets, status=status, earlier_s=7000.0)
    with pytest.raises(UserError, match=f"is {status}"):
        jobs.retry(buckets, "job-1", lambda _: {"size": 1})
    again = jobs.retry(buckets, "job-1", lambda _: {"size": 0})
    assert (again["status"], again["attempts"], again["earlier_s"]) == ("queued", 0, 0.0)


def test_where_compute_cannot_be_asked_the_state_s_age_decides(buckets: BucketSpec) -> None:
    put(buckets, status="running", updated_at="2026-03-01T00:00:00+00:00")
    assert jobs.retry(buckets, "job-1", lambda _: {"problem": "no rights"})["status"] == "queued"
    with pytest.raises(UserError, match="is queued"):
        jobs.retry(buckets, "job-1", lambda _: {"size": 1})


@pytest.mark.parametrize("content", ["{", "[]", '{"job_id": "job-1", "role": "train", "attempts": "many"}'])
def test_a_job_whose_state_cannot_be_read_may_begin_again(buckets: BucketSpec, content: str) -> None:
    storage.write(f"{layout.job(buckets, 'job-1')}/state.json", content, generation=0)
    again = jobs.retry(buckets, "job-1")
    assert (again["status"], again["role"]) == ("queued", "train") and Job.from_json(again).attempts == 0


def test_what_compute_says_is_optional() -> None:
    assert "problem" in jobs.machine({})
