"""``elson status`` and ``elson retry`` over a real bucket."""

from __future__ import annotations

import urllib.error
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest

from runners.artifacts import layout, storage
from runners.cloud import jobs
from runners.errors import UserError
from runners.spec import BucketSpec
from runners.vm.decide import Boot, Job
from tests.infra.regions import Platform

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


@dataclass
class Session:
    """``requests`` in front of the simulated regions."""

    platform: Platform

    def get(self, url: str, params: dict[str, Any] | None = None, timeout: float = 0) -> Any:
        return self._ask("GET", url, params)

    def post(self, url: str, params: dict[str, Any] | None = None, timeout: float = 0) -> Any:
        return self._ask("POST", url, params)

    def _ask(self, method: str, url: str, params: dict[str, Any] | None) -> Any:
        try:
            found = self.platform.call(method, f"{url}?{urlencode(params or {})}", "")
        except urllib.error.HTTPError as error:
            return SimpleNamespace(status_code=error.code, text=str(error.reason))
        return SimpleNamespace(status_code=200, json=lambda: found, text="")


AT_SECOND = {"project": "p", "region": "us-east4", "group": "elson-train-1-2"}


@pytest.fixture
def regions(monkeypatch: pytest.MonkeyPatch) -> Platform:
    platform = Platform([("us-central1", 15), ("us-east4", 15)], lambda _place, _minute: "ZONE_RESOURCE_POOL_EXHAUSTED")
    monkeypatch.setattr(jobs, "_session", lambda: Session(platform))
    return platform


def test_a_job_is_found_in_whichever_place_it_is(regions: Platform) -> None:
    regions.step()
    found = jobs.machine({"machine": AT_SECOND})
    assert (found["group"], found["size"]) == ("elson-train-1", 1), "the state's group is the last that had a VM, another is asked now"
    assert "ZONE_RESOURCE_POOL_EXHAUSTED" in found["instances"][0]["problem"]
    assert [(one["region"], one["size"]) for one in found["places"]] == [("us-central1", 1), ("us-east4", 0)]
    del regions.groups["elson-train-1-2"], regions.groups["elson-train-1"]
    assert jobs.machine({"machine": AT_SECOND})["note"] == "the group is gone"
    regions.groups["elson-train-10"] = Platform([("us-east4", 15)], regions.capacity).groups["elson-train-1"]
    regions.groups["elson-train-10"].name = "elson-train-10"
    assert jobs.machine({"machine": AT_SECOND})["size"] == 0, "another job's group has a name that begins alike"


def test_a_job_that_is_waiting_or_working_in_another_place_is_not_begun_again(buckets: BucketSpec, regions: Platform) -> None:
    put(buckets, status="running")
    found = {**jobs.state(buckets, "job-1"), "machine": AT_SECOND}
    storage.update_json(f"{layout.job(buckets, 'job-1')}/state.json", lambda _: found)
    with pytest.raises(UserError, match="is running"):
        jobs.retry(buckets, "job-1")
    regions.groups["elson-train-1"].size = 0
    assert jobs.retry(buckets, "job-1")["status"] == "queued"


def test_a_job_begins_again_in_its_first_place_and_never_in_two(regions: Platform) -> None:
    assert jobs.start(AT_SECOND) == "" and [group.size for group in regions.groups.values()] == [1, 0], "the first is asked already"
    regions.groups["elson-train-1"].size = 0
    assert jobs.start(AT_SECOND) == "" and [group.size for group in regions.groups.values()] == [1, 0]
    regions.groups["elson-train-1"].size = 0
    regions.refuses_resize.add("elson-train-1")
    assert "503" in jobs.start(AT_SECOND)
    regions.groups.clear()
    assert "is gone" in jobs.start(AT_SECOND)
    assert "cannot be asked" in jobs.start({})


def test_a_region_that_does_not_answer_is_no_empty_group(buckets: BucketSpec, regions: Platform) -> None:
    regions.is_away = lambda region, _minute: region == "us-east4"
    assert "us-east4 does not answer" in jobs.machine({"machine": AT_SECOND})["problem"]
    assert "us-east4 does not answer" in jobs.start(AT_SECOND)
